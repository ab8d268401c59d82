"""Floor 1: helpers that need no arrays, the import of MLX, and the record of how a device computes a step."""
