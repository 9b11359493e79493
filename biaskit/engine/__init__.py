"""Carry a decision out on a stock model."""
