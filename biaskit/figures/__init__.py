"""Everything that is drawn of priors and kept tokens. Takes finished values; runs no model. Figures of a validation are in its report."""
