"""The command line: one module per command group, heavy imports inside the commands. Arguments and printing only, no work of its own."""
