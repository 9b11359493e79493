"""Ask a model the questions of tasks in every cell. The only part of `validation` that runs a model."""
