"""Floor 8: the files of a run: when to write them, which to keep, where to resume. It does not know the loop."""
