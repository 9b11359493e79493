"""Bootstrap and paired tests on arrays of scores. Knows no file, task or method."""
