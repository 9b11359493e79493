"""Ask a model the questions of tasks, in every cell."""
