"""MLX's stock kernels are built with a precompiled header: the same kernels."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from helpers import python_process

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("g++") is None, reason="MLX builds CPU kernels with g++ on Linux"
)

KERNEL = """
import mlx.core as mx
from mlx_fp.core.backend import device_backend
device_backend()
x = mx.arange(1, 9, dtype=mx.float32)
print(mx.compile(lambda x: mx.exp(-x * x) / (1 + mx.sqrt(x)))(x).tolist())
"""


@pytest.fixture
def built(tmp_path):
    """Return a function that runs code with folders of its own, and returns its output and the kernels."""

    def run(code=KERNEL, name="here", **env):
        temporary = tmp_path / name
        temporary.mkdir(exist_ok=True)
        folders = {"TMPDIR": str(temporary), "XDG_CACHE_HOME": str(tmp_path / "a cache's $HOME")}
        done = python_process(code, **{"MLX_FP_JIT": None, **folders, **env})
        return done.stdout, sorted(temporary.rglob("*.so"))

    return run


def test_the_kernels_have_the_same_instructions(built, tmp_path):
    if shutil.which("objdump") is None:
        pytest.skip("reads the instructions with objdump")
    ours, (fast,) = built()
    alone, (slow,) = built(name="alone", MLX_FP_JIT="off")
    assert ours == alone
    code = [
        subprocess.run(
            ["objdump", "-d", "--no-show-raw-insn", path], capture_output=True, text=True
        ).stdout.splitlines()
        for path in (fast, slow)
    ]
    assert code[0][3:] == code[1][3:]  # the first lines name the file
    assert len(code[0]) > 30
    (header,) = tmp_path.rglob("*.gch")
    assert header.stat().st_size > 1 << 20


def test_a_kernel_is_built_without_a_header_that_the_compiler_refuses(built, tmp_path):
    expected, _ = built()
    (header,) = tmp_path.rglob("*.gch")
    header.write_bytes(b"")
    assert built(name="again")[0] == expected
    assert header.stat().st_size == 0
