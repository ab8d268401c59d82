"""Floor 11: the command line, on Python files that define experiments."""
