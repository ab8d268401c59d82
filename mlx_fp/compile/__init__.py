"""Floor 3: `mx.compile` for functions of trees, and a key as MLX's random stream."""
