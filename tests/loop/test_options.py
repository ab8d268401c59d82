"""The options of a run stand in one table, and `help` shows them as parameters."""

from __future__ import annotations

import inspect

import pytest

import mlx_fp as fp
from mlx_fp.loop._options import OPTIONS, Options
from mlx_fp.loop._plan import Plan


@pytest.mark.parametrize("verb", [fp.fit, fp.events, fp.run, fp.sweep], ids=lambda verb: verb.__name__)
def test_help_lists_each_option_with_its_default_and_its_description(verb):
    parameters = inspect.signature(verb).parameters
    args = inspect.getdoc(verb).partition("Args:\n")[2].partition("\n\n")[0]
    for name, option in OPTIONS.items():
        assert parameters[name].default == option.default
        assert f"    {name}: {option.words[:30]}" in args
    assert not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def test_the_table_the_types_and_the_plan_have_the_same_options():
    assert list(OPTIONS) == list(Options.__annotations__)
    assert set(OPTIONS) == {name for name in Plan.__slots__ if name not in ("train", "yielded")}


def test_each_default_follows_its_own_rule():
    fp.fit([1], **{name: option.default for name, option in OPTIONS.items()})
