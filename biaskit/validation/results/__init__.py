"""The results folder: lines, manifest, reading it back."""
