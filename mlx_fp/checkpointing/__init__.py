"""Floor 8: the files of a run: when they are written, which stay, where a run resumes. Knows no loop."""
