"""Functions as files: MLX's own format, ONNX, and their graphs."""
