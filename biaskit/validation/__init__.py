"""Ask a model the questions of tasks, with and without pruning, store every answer, and report. `bench` measures speed and memory."""
