"""The benchmark suite: one table of models by frameworks, each framework in a process of its own.

`python -m suite --help`, with `bench` on PYTHONPATH; docs/benchmarks.md explains the output.
"""
