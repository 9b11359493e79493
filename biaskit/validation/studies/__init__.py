"""Studies of priors: how many images are enough, how far one carries over to other prompts, images, sizes, models. No answers."""
