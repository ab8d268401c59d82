"""`import mlx_fp`: every public name is there, and wrong ones come back with candidates."""

import inspect
import pkgutil
from importlib.util import find_spec

import pytest
from helpers import run_python

import mlx_fp as fp

CPU = find_spec("mlx_fp.cpu") is not None
"""Whether the folder for Linux CPUs is there; the rest of the library works without it."""


FOLDERS_OF_A_LAYER = ("compile", "core", "nn", "tree")
MODULES_OF_A_LAYER = {
    "compile",
    "compile._recomputed",
    "compile.rng",
    "core",
    "core._absent",
    "core._errors",
    "core._exporting",
    "core._fork",
    "core._frozen",
    "core._html",
    "core._late",
    "core._mlx",
    "core._mlx_text",
    "core._pickling",
    "core._rebuilding",
    "core._signature",
    "core._types",
    "core.backend",
    "nn",
    "nn._bounds",
    "nn._call",
    "nn._dense",
    "nn._depth",
    "nn._head_tap",
    "nn._layer",
    "nn._lift",
    "nn._mlx_layers",
    "nn._module",
    "nn._module_call",
    "nn._observing",
    "nn._recomputing",
    "nn._tree_path",
    "tree",
    "tree._merging",
    "tree._paths",
    "tree._select",
    "tree._strict",
}
"""The modules that a first layer may load. Each of them costs every program part of a millisecond."""


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
    """A name is loaded at its first use, in `fp`, in `nn` and in `optim`."""
    code = "import sys, mlx_fp as fp; from mlx_fp import nn; nn.linear(2, 2); print(*sys.modules)"
    loaded = set(run_python(code, timeout=60).split())
    own = {name.removeprefix("mlx_fp.") for name in loaded if name.startswith("mlx_fp.")}
    assert {name for name in own if name.partition(".")[0] in FOLDERS_OF_A_LAYER} <= MODULES_OF_A_LAYER
    assert {name.partition(".")[0] for name in own} <= {*FOLDERS_OF_A_LAYER, "cpu"}
    assert loaded & {"toolz", "more_itertools", "numpy", "rich", "html", "pickle"} == set()


@pytest.mark.parametrize(
    "package", [fp.nn, fp.optim, fp.data, fp.lm, fp.metrics, fp.show], ids=lambda module: module.__name__
)
def test_dir_holds_public_names_only(package):
    assert dir(package) == sorted(package.__all__)
