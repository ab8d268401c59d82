"""The compared ways to run a model, each in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass

REFERENCE, CONTROL = "raw", "control"


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run a model: its name in tables, the module of this package that runs it, and its environment."""

    name: str
    label: str
    module: str
    way: str
    env: tuple[tuple[str, str], ...] = ()
    asked: bool = False
    """Whether the variant runs only if an option names it."""
    pairs: bool = False
    """Whether the variant runs the cases that are pairs, too."""


_CORE = (("MLX_FP_JIT", "native"),)
_STREAMS = (("MLX_FP_JIT", "native"), ("MLX_BFS_MAX_WIDTH", "1000"))

VARIANTS = (
    Variant("eager", "MLX eager", "run_mlx", "eager"),
    Variant(REFERENCE, "MLX compiled", "run_mlx", "compiled", pairs=True),
    Variant(CONTROL, "the same again", "run_mlx", "compiled", pairs=True),
    Variant("ours", "mlx_fp", "run_mlx", "ours", pairs=True),
    Variant("lifted", "mlx_fp lifted", "run_mlx", "lifted", asked=True),
    Variant("native", "mlx_fp native", "run_mlx", "ours", (("MLX_FP_JIT", "native"),)),
    Variant("core", "native, 1 core", "run_mlx", "core", _CORE),
    Variant("streams", "native, 2 streams", "run_mlx", "streams", _STREAMS),
    Variant("jax", "JAX jit", "run_jax", "jit"),
    Variant("torch", "PyTorch eager", "run_torch", "eager"),
    Variant("torch_compile", "torch.compile", "run_torch", "compiled", (("TORCHINDUCTOR_COMPILE_THREADS", "1"),)),
)
NAMED = {variant.name: variant for variant in VARIANTS}


def chosen(names):
    """Return the named variants and the reference, in the order of tables; without names, the usual variants.

    Raise SystemExit for a name that is none.
    """
    for name in names:
        if name not in NAMED:
            raise SystemExit(f"no variant is called {name!r}; there are {', '.join(NAMED)}")
    wanted = {*names, REFERENCE} if names else {v.name for v in VARIANTS if not v.asked}
    return [variant for variant in VARIANTS if variant.name in wanted]
