"""The embedded models: `biaskit demo`, the weights, and how they were trained (`training/`). Their scenes are in `images/scenes`."""
