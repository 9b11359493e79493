"""The selections on a GPU, a batch at a time. Plain tensors; called by `select` alone, never by a pruner or the engine."""
