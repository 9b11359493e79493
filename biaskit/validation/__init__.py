"""Ask a model the questions of tasks, with and without pruning, keep every answer, and report. Speed and memory are measured in `bench`."""
