"""Floor 8: the training loop: a stream of events, hooks that fold over them, and the report of a run."""
