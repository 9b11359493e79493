"""A prior: what it holds, its file, where it is found, what it says."""
