"""The interactive page: priors, a picture and what methods keep of it, in one HTML file that asks the network for nothing."""
