"""Floor 5: tasks, which are a loss, metrics and the shape of batches."""
