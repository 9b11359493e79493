"""Drawn scenes with known content, and questions about them. Data only: the models that learn them are in `demo`."""
