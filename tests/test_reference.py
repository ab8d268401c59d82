"""The reference: each public name is in one group, and each entry is a public name."""

from __future__ import annotations

import importlib
import re
from collections import Counter

import pytest
from helpers import REFERENCE
from test_face import CPU
from test_house import OF_MLX, public_modules

ENTRY = re.compile(r"^(?:::: |## .*\{ #)(mlx_fp\.[\w.]+)", re.MULTILINE)
TABLE = re.compile(r"<!-- table: (\S+) as \S+ -->")
HOMES = {
    "mlx_fp.metrics": "mlx_fp.task.metrics",
    "mlx_fp.passes": "mlx_fp.step.passes",
    "mlx_fp.rng": "mlx_fp.compile.rng",
}
"""Modules that users import by another name than that of their file."""
PARTS = {
    "cpu",
    "data",
    "lm",
    "metrics",
    "nn",
    "nn.initializers",
    "nn.losses",
    "optim",
    "passes",
    "rng",
    "show",
    "testing",
}
"""Names that are modules, with names of their own."""

TEXT = "\n".join(page.read_text(encoding="utf-8") for page in sorted(REFERENCE.glob("*.md")))


def full(module, name):
    """Return the place of a name as the test compares it: `fp.accuracy` and `fp.metrics.accuracy` are one."""
    found = getattr(importlib.import_module(module), name)
    home = getattr(found, "__module__", "") if callable(found) else ""
    return (home, found.__name__) if home.startswith("mlx_fp") and hasattr(found, "__name__") else (module, name)


def listed():
    """Yield the place of each entry."""
    for entry in ENTRY.findall(TEXT):
        module, _, name = entry.rpartition(".")
        yield full(HOMES.get(module, module), name)


def public():
    """Return the places of all public names but those of MLX."""
    of_mlx = {f"mlx_fp.{module}": set(importlib.import_module(f"mlx_fp.{module}").__all__) for module in OF_MLX}
    layers = of_mlx["mlx_fp.nn._mlx_layers"] | of_mlx["mlx_fp.nn._mlx_activations"]
    lifted = {"mlx_fp.nn": layers, "mlx_fp.optim": of_mlx["mlx_fp.optim._mlx_optimizers"]}
    own = {"linear_cross_entropy"}
    places = set()
    for module in public_modules():
        names = set(importlib.import_module(module).__all__) - lifted.get(module, of_mlx.get(module, set()) - own)
        places |= {full(module, name) for name in names if f"{module}.{name}".removeprefix("mlx_fp.") not in PARTS}
    return places


@pytest.mark.skipif(not CPU, reason="names of mlx_fp/cpu are in it")
def test_each_public_name_is_in_exactly_one_group():
    count = Counter(listed())
    assert {place for place, times in count.items() if times > 1} == set()
    assert count.keys() - public() == set()
    assert public() - count.keys() == set()


def test_the_names_of_mlx_are_in_tables():
    assert TABLE.findall(TEXT) == list(OF_MLX)


def test_every_page_of_the_reference_is_in_its_list_and_in_the_navigation():
    navigation = (REFERENCE.parents[1] / "mkdocs.yml").read_text(encoding="utf-8")
    index = (REFERENCE / "index.md").read_text(encoding="utf-8")
    for page in REFERENCE.glob("*.md"):
        assert f"reference/{page.name}" in navigation
        assert page.name == "index.md" or f"]({page.name})" in index
