"""Floor 4: files that are whole at every instant: checkpoints and bundles."""
