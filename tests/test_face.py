"""`import mlx_fp`: every public name is there, and wrong ones come back with candidates."""

import inspect
import pkgutil
from importlib.util import find_spec

import pytest
from helpers import run_python

import mlx_fp as fp

CPU = find_spec("mlx_fp.cpu") is not None
"""Whether the folder for Linux CPUs is there; the rest of the library works without it."""


def test_every_public_name_resolves():
    assert all(getattr(fp, name) is not None for name in fp.__all__ if CPU or name != "cpu")
    assert set(fp.__all__) <= set(dir(fp))


def test_an_unknown_name_comes_back_with_candidates():
    with pytest.raises(AttributeError, match="did you mean 'trainer'"):
        fp.trianer


@pytest.mark.parametrize("package", [fp, fp.data, fp.lm, fp.nn, fp.optim, fp.show], ids=lambda module: module.__name__)
def test_no_module_is_called_as_a_public_function_is(package):
    """The import of a submodule sets its name in the package, and would take the place of the function."""
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    taken = [name for name in modules & set(package.__all__) if not inspect.ismodule(getattr(package, name))]
    assert taken == []


def test_a_first_layer_loads_nothing_that_it_does_not_need():
    """toolz, more-itertools and numpy take longer to load than all else that a layer needs."""
    code = "import sys, mlx_fp as fp; fp.nn.linear(2, 2); print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in run_python(code, timeout=60).split()}
    assert "mlx_fp" in loaded
    assert loaded & {"toolz", "more_itertools", "numpy", "rich"} == set()


@pytest.mark.parametrize(
    "package", [fp.nn, fp.optim, fp.data, fp.lm, fp.metrics, fp.show], ids=lambda module: module.__name__
)
def test_dir_holds_public_names_only(package):
    assert dir(package) == sorted(package.__all__)
