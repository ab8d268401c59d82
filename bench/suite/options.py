"""The options of a run of the suite, from the command line, or from the environment under pytest."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass

from . import cases, variants
from .pool import usual_threads


@dataclass(frozen=True, slots=True)
class Options:
    """Which cases, modes and variants to measure, and how long."""

    cases: tuple[cases.Case, ...]
    modes: tuple[str, ...]
    variants: tuple[variants.Variant, ...]
    turns: int | None
    seconds: float
    threads: int


def parser(description):
    """A parser of the command line with the options of a run; each has an environment variable too."""
    made = argparse.ArgumentParser(prog="python -m suite", description=description)
    _add(made, "cases", "names or shell patterns of cases, with commas: 'gpt,*_published'")
    _add(made, "modes", "forward, train, or both with a comma", "forward,train")
    _add(made, "variants", f"names, with commas, of {', '.join(variants.NAMED)}")
    _add(made, "turns", "turns of each variant; as many as fit into --seconds, and 7 at least, if left out")
    _add(made, "seconds", "seconds of measuring for a case and a mode", "6")
    _add(made, "threads", "threads of every framework", str(usual_threads()))
    return made


def options(parsed):
    """Return the options of a parsed command line. Raise SystemExit for unknown names."""
    modes = _names(parsed.modes)
    if unknown := set(modes) - set(cases.MODES):
        raise SystemExit(f"no mode is called {unknown.pop()!r}; there are {', '.join(cases.MODES)}")
    return Options(
        tuple(cases.chosen(_names(parsed.cases))),
        modes,
        tuple(variants.chosen(_names(parsed.variants))),
        int(parsed.turns) if parsed.turns else None,
        float(parsed.seconds),
        int(parsed.threads),
    )


def from_environment():
    """Return the options from BENCH_CASES, BENCH_VARIANTS, BENCH_TURNS and the other variables."""
    return options(parser("").parse_args([]))


def _add(made, name, text, default=""):
    variable = f"BENCH_{name.upper()}"
    made.add_argument(f"--{name}", default=os.environ.get(variable, default), help=f"{text} (or {variable})")


def _names(text):
    return tuple(name.strip() for name in text.split(",") if name.strip())
