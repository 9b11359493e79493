"""Carry a pruner's decision out on a stock model, and record what it asked for. What to keep is decided in `pruners`, `select`."""
