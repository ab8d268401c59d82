"""Floor 1: what needs no arrays, the import of MLX, and how a device wants a step computed."""
