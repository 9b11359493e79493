"""Checkpoints: find and load them, build random ones, locate their parts. What differs by family is in `families/FAMILY.py`."""
