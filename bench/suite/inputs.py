"""Weights and batches, the same for every framework: `python -m suite.inputs FOLDER CASE...` writes the weights."""

import sys
from pathlib import Path

import numpy as np

from .cases import batch, named


def read(folder, name):
    """The weights of a case, by their MLX paths, and its batch `(inputs, target)`, as numpy arrays."""
    with np.load(Path(folder) / f"{name}.npz") as archive:
        weights = {key: archive[key] for key in archive.files}
    return weights, batch(named(name))


def write(folder, name):
    """Write the weights that MLX gives a new module of a case."""
    import mlx.core as mx
    import mlx.utils

    from .mlx_models import module

    mx.random.seed(0)
    weights = dict(mlx.utils.tree_flatten(module(named(name)).parameters()))
    np.savez(Path(folder) / f"{name}.npz", **{path: np.array(leaf) for path, leaf in weights.items()})


if __name__ == "__main__":
    for each in sys.argv[2:]:
        write(sys.argv[1], each)
