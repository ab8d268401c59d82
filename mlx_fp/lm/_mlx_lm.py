"""The import of mlx-lm, at first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["mlx_lm"]


def mlx_lm(module: str = "mlx_lm") -> Any:
    """Import a module of mlx-lm.

    Args:
        module: Its full name, for example `"mlx_lm.utils"`.

    Returns:
        The module.

    Raises:
        ImportError: mlx-lm is not installed; the message names the extra.

    >>> mlx_lm("mlx_lm.utils").__name__
    'mlx_lm.utils'
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mlx_lm":
            raise
        raise ImportError("this part of mlx_fp needs mlx-lm: pip install 'mlx-fp[lm]'") from error
