"""Ask a model the questions of tasks, with and without pruning, and keep every answer: `biaskit validate`."""
