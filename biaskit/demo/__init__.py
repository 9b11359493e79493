"""The demonstration: what the toolkit does, without a download."""
