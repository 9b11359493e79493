"""Bootstrap and paired tests on arrays of scores, independent of files, tasks and methods."""
