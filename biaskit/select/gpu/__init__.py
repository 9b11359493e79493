"""The selections on a GPU: a few launches for a batch, one wait."""
