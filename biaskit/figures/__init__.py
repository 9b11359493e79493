"""Figures of priors and kept tokens. They take computed values and run no model. Figures of a validation are in its report."""
