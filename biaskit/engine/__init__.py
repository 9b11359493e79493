"""Apply a pruner's decision to a stock model, and record the signals it reads. What to keep is decided in `pruners` and `select`."""
