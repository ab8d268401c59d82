"""Compare the times of functions: they take turns in random order in one run, so that noise affects all alike."""

import random
import time
from contextlib import nullcontext
from statistics import median, quantiles


def paired(functions, *, turns=200, calls=20, warm_up=30, within=None):
    """Return the seconds per call of each function, one figure per turn; `within` makes contexts for some functions."""
    for run in functions.values():
        for _ in range(warm_up):
            run()
    taken = {name: [] for name in functions}
    order = list(functions)
    for _ in range(turns):
        random.shuffle(order)
        for name in order:
            with (within or {}).get(name, nullcontext)():
                run, start = functions[name], time.perf_counter()
                for _ in range(calls):
                    run()
                taken[name].append((time.perf_counter() - start) / calls)
    return taken


def ratios(taken, of, to):
    """Return the quartiles of the ratio of two functions, turn by turn: (lower, median, upper)."""
    each = [a / b for a, b in zip(taken[of], taken[to], strict=True)]
    lower, middle, upper = quantiles(each, n=4)
    return lower, middle, upper


def note(benchmark, taken, reference):
    """Write medians in microseconds, and ratios to the reference, into `extra_info`; print them."""
    for name, seconds in taken.items():
        lower, middle, upper = ratios(taken, name, reference)
        benchmark.extra_info[f"{name}_us"] = round(median(seconds) * 1e6, 1)
        benchmark.extra_info[f"{name}/{reference}"] = [round(r, 3) for r in (lower, middle, upper)]
        print(f"\n  {name:12} {median(seconds) * 1e6:10.1f} us  ratio {middle:.3f} [{lower:.3f}, {upper:.3f}]", end="")
