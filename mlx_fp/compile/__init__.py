"""Floor 3: `mx.compile` for functions of trees, and a key as the random stream of MLX."""
