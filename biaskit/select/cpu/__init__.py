"""The selections on a CPU: fast cosines with a proven bound, exact ones where a decision hangs on them."""
