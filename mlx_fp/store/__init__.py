"""Floor 4: checkpoints and run bundles. Each file is complete at every instant."""
