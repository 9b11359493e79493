"""Checkpoints: find, load, imitate, and look into them. What differs by family is in the family's file, one folder up."""
