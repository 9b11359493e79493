"""The embedded model: scenes it is trained on, the training itself, its evaluation, and its weights."""
