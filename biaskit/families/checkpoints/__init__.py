"""Checkpoints: find, load, imitate."""
