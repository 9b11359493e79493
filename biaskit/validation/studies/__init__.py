"""Studies of priors: how many images are enough, and how well a prior transfers to other prompts, images, sizes and models."""
