"""The interactive page: priors, an image and what methods keep of it, in one HTML file without network requests."""
