"""MLX on Linux CPUs: a fast BLAS, native kernels, threads and memory, and what suits small arrays and few cores."""
