"""The results folder: cells, lines, manifest, written and read back. Loads neither torch nor transformers."""
