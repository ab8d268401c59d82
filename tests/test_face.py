"""`import mlx_fp`: every public name is there, and wrong ones come back with candidates."""

import subprocess
import sys

import pytest

import mlx_fp as fp


def test_every_public_name_resolves():
    assert all(getattr(fp, name) is not None for name in fp.__all__)
    assert set(fp.__all__) <= set(dir(fp))


def test_an_unknown_name_comes_back_with_candidates():
    with pytest.raises(AttributeError, match="did you mean 'trainer'"):
        fp.trianer


def test_a_submodule_does_not_take_the_place_of_the_function_of_its_name():
    code = """
import importlib, mlx_fp as fp
for name in ("tree._select", "experiments._experiment", "experiments._sweep", "core._registry", "task.metrics"):
    importlib.import_module(f"mlx_fp.{name}")
print(*(type(getattr(fp, name)).__name__ for name in ("select", "experiment", "sweep", "metrics")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["function", "function", "function", "module"]


def test_a_first_layer_loads_nothing_that_it_does_not_need():
    """toolz, more-itertools and numpy take longer to load than all else that a layer needs."""
    code = "import sys, mlx_fp as fp; fp.nn.linear(2, 2); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "mlx_fp" in loaded
    assert loaded & {"toolz", "more_itertools", "numpy", "rich"} == set()
