"""Images × model → prior."""
