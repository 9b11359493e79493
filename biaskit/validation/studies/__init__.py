"""Studies of priors: how many images are enough, and how far a prior carries over to other prompts, images, resolutions and models."""
