"""Drawn scenes with known content, and questions about them."""
