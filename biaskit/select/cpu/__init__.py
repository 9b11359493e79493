"""The selections on a CPU. Plain tensors; called by `select` alone, never by a pruner or the engine."""
