"""Kernels built for the processor at hand: the same numbers to rounding, from a place of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT, child_env

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("g++") is None, reason="MLX builds CPU kernels with g++ on Linux"
)

TRAIN = """
import json, os, subprocess, tempfile, warnings
before = dict(os.environ)
import mlx.core as mx
import mlx_fp as fp
from mlx_fp import cpu, nn, optim

def loss(model, x, y):
    return nn.losses.cross_entropy(model(x), y, reduction="mean")

class Net(__import__("mlx.nn").nn.Module):
    def __init__(self):
        super().__init__()
        import mlx.nn
        self.embed = mlx.nn.Embedding(11, 16)
        self.body = mlx.nn.TransformerEncoder(1, 16, 2, mlp_dims=32, activation=mlx.nn.gelu)
        self.head = mlx.nn.Linear(16, 11)

    def __call__(self, x):
        import mlx.nn
        return self.head(self.body(self.embed(x), mlx.nn.MultiHeadAttention.create_additive_causal_mask(x.shape[1])))

step = fp.train_step(nn.lift(Net), loss, optim.adamw(1e-3))
params, state = step.init(0)
x = mx.random.randint(0, 11, (4, 9), key=mx.random.key(1))
losses = []
for _ in range(4):
    params, state, logs = step(params, state, (x[:, :-1], x[:, 1:]))
    losses.append(logs["loss"].item())
print(json.dumps({
    "losses": losses,
    "native": cpu.kernels().native,
    "info": str(cpu.kernels()),
    "environment": {k: v for k, v in os.environ.items() if k != "OPENBLAS_THREAD_TIMEOUT"} == {
        k: v for k, v in before.items() if k != "OPENBLAS_THREAD_TIMEOUT"
    },
    "child": subprocess.run("env; command -v g++", shell=True, capture_output=True, text=True).stdout,
    "temporary": tempfile.gettempdir(),
}))
"""


def run(tmp_path, code=TRAIN, cwd=None, **env):
    """Run code in a process with folders of its own for kernels."""
    folders = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir(parents=True, exist_ok=True)
    environ = child_env(**{"MLX_FP_JIT": None, **folders, **env})
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """Folders with kernels in them, for the tests that do not look at how they come about."""
    return tmp_path_factory.mktemp("warm")


def told(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def kernels(tmp_path):
    return sorted((tmp_path / "cache").rglob("lib*.so"))


def test_steps_give_the_same_numbers_to_rounding_and_nothing_else_changes(tmp_path):
    plain, native = told(run(tmp_path / "plain")), told(run(tmp_path / "native", MLX_FP_JIT="native"))
    assert (plain["native"], native["native"]) == (False, True)
    assert native["losses"] == pytest.approx(plain["losses"], rel=1e-5)
    assert native["environment"]
    assert "mlx_fp" not in native["child"].replace(str(tmp_path), "").replace(str(ROOT), "")
    assert native["temporary"] == str(tmp_path / "native" / "tmp")
    assert kernels(tmp_path / "native")
    assert not list((tmp_path / "native" / "tmp").rglob("*.so"))
    assert list((tmp_path / "plain" / "tmp").rglob("*.so"))
    assert "-march=native" in native["info"]
    assert str(tmp_path / "native" / "cache") in native["info"]


@pytest.mark.slow
def test_the_next_process_finds_the_kernels_and_all_are_whole(warm):
    told(run(warm, MLX_FP_JIT="native"))
    first = {path: path.stat().st_mtime_ns for path in kernels(warm)}
    told(run(warm, MLX_FP_JIT="native"))
    assert {path: path.stat().st_mtime_ns for path in kernels(warm)} == first
    files = [path for path in (warm / "cache").rglob("*") if path.is_file()]
    assert not [path for path in files if ".so." in path.name]  # lib….so.123, half of one, or its source


def test_it_can_be_asked_for_by_a_call(warm):
    code = "from mlx_fp import cpu; print(cpu.kernels()); cpu.native()\n"
    code += "print(cpu.native() == cpu.kernels(), cpu.kernels().native)"
    done = run(warm, code)
    assert done.stdout.splitlines()[0].startswith("as MLX came")
    assert done.stdout.splitlines()[1] == "True True"


def test_kernels_carry_what_the_processor_has(warm):
    """The flags reach the compiler: the kernel of a gelu uses registers that the oldest processor has not."""
    if "avx" not in Path("/proc/cpuinfo").read_text() or shutil.which("objdump") is None:
        pytest.skip("reads the instructions of an x86-64 processor with AVX")
    told(run(warm, MLX_FP_JIT="native"))
    kernel = next(path for path in kernels(warm) if "Erf" in path.name)
    assert "%ymm" in subprocess.run(["objdump", "-d", str(kernel)], capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_two_processes_may_build_at_once(tmp_path):
    """Each gets whole kernels, and the same numbers."""
    (tmp_path / "tmp").mkdir()
    env = child_env(XDG_CACHE_HOME=str(tmp_path / "cache"), MLX_FP_JIT="native")
    both = [
        subprocess.Popen([sys.executable, "-c", TRAIN], stdout=subprocess.PIPE, env=env, text=True) for _ in range(2)
    ]
    one, other = (json.loads(each.communicate()[0].splitlines()[-1]) for each in both)
    assert one["native"] is other["native"] is True
    assert one["losses"] == other["losses"]


def test_an_update_in_place_is_right(warm):
    """Results lie where inputs did, which the loops are declared to bear."""
    code = """
import mlx.core as mx
from mlx_fp import cpu
cpu.native()
step = mx.compile(lambda p, m, g: (p - 0.1 * (0.9 * m + g), 0.9 * m + g))
p, m, g = mx.arange(10_001, dtype=mx.float32), mx.ones((10_001,)), mx.full((10_001,), 2.0)
for _ in range(3):
    p, m = step(p, m, g)
    mx.eval(p, m)
m_1, m_2, m_3 = 2.9, 0.9 * 2.9 + 2, 0.9 * (0.9 * 2.9 + 2) + 2
print(mx.abs(m - m_3).max().item() < 1e-5, mx.abs(p - mx.arange(10_001) + 0.1 * (m_1 + m_2 + m_3)).max().item() < 2e-3)
"""
    done = run(warm, code)
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_subnormal_numbers_are_zero_in_kernels_and_nowhere_else(warm):
    code = """
import mlx.core as mx
from mlx_fp import cpu
cpu.native()
small = mx.full((64,), 1e-40)
print((mx.compile(lambda x: (x * 1.5) * 1e30)(small) == 0).all().item(), (small * 1e30 > 0).all().item(), 5e-324 > 0)
"""
    done = run(warm, code)
    assert done.stdout.split() == ["True", "True", "True"], done.stderr


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({"MLX_FP_JIT": "natve"}, "did you mean 'native'"),
        ({"MLX_FP_JIT": "native", "PATH": "/nowhere"}, "without g++ on PATH"),
        ({"MLX_FP_JIT": "native", "XDG_CACHE_HOME": "/proc/none"}, "XDG_CACHE_HOME names another place"),
    ],
)
def test_what_cannot_be_is_a_warning_and_mlx_goes_on_as_it_came(tmp_path, env, why):
    code = "import mlx_fp as fp, mlx.core as mx; print(fp.nn.relu(mx.array(-1.0)).item(), fp.cpu.kernels().native)"
    done = run(tmp_path, code, **env)
    assert done.stdout.split() == ["0.0", "False"], done.stderr
    assert done.stderr.count("RuntimeWarning") == 1
    assert why in done.stderr


def test_a_call_that_cannot_be_obeyed_is_an_error(tmp_path):
    done = run(tmp_path, "from mlx_fp import cpu; cpu.native()", PATH="/nowhere")
    assert "RuntimeError: MLX compiles nothing without g++ on PATH" in done.stderr


@pytest.mark.slow
def test_a_folder_that_others_can_write_to_is_refused(tmp_path):
    run(tmp_path, "from mlx_fp import cpu; cpu.native()")
    (folder,) = (tmp_path / "cache" / "mlx_fp").glob("kernels-*")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    done = run(tmp_path, "from mlx_fp import cpu; cpu.native()")
    assert "others can write to" in done.stderr


def test_a_gpu_is_refused(tmp_path):
    code = """
import mlx.core as mx
from types import SimpleNamespace
from mlx_fp import cpu
mx.default_device = lambda: SimpleNamespace(type=mx.DeviceType.gpu)
cpu.native()
"""
    assert "RuntimeError: MLX computes on the GPU" in run(tmp_path, code).stderr


def test_any_doubt_undoes_it(warm):
    code = """
import mlx.core as mx
from mlx_fp import cpu
from mlx_fp.cpu import _kernels
def doubt(*_):
    raise RuntimeError("doubt")
_kernels._check = doubt
try:
    cpu.native()
except RuntimeError as error:
    print(error, cpu.kernels().native)
print(mx.compile(lambda x: mx.exp(x) * 0 + 7)(mx.array([1.0])).item())
"""
    done = run(warm, code)
    assert done.stdout.split() == ["doubt", "False", "7.0"], done.stderr
    assert list((warm / "tmp").rglob("*.so"))


@pytest.mark.slow
def test_a_kernel_that_does_not_compile_is_mlx_s_own_error(tmp_path):
    code = """
import os, pathlib
import mlx.core as mx
from mlx_fp import cpu
folder = cpu.native().folder
for header in pathlib.Path(folder).rglob("*.gch"):
    header.write_text("no header")
os.environ["PATH"] = "/nowhere"
try:
    mx.eval(mx.compile(lambda x: mx.exp(x) + 5)(mx.array([1.0, 2.0])))
except RuntimeError as error:
    print("Failed to compile" in str(error))
"""
    done = run(tmp_path, code)
    assert done.stdout.split() == ["True"], done.stderr


# a folder that is not as it was left


def half(file):
    os.truncate(file, file.stat().st_size // 2)


def rubbish(file):
    file.write_bytes(b"\x7fELF" + bytes(range(256)) * 64)


def folder_in_its_place(file):
    file.unlink()
    file.mkdir()


@pytest.mark.slow
@pytest.mark.parametrize("damage", [half, rubbish, folder_in_its_place])
def test_damaged_kernels_are_built_again(warm, damage):
    """Loaded, they would kill the process."""
    before = told(run(warm, MLX_FP_JIT="native"))["losses"]
    damaged = [*(warm / "cache").rglob("replacements.so"), *kernels(warm)]
    for file in damaged:
        damage(file)
    done = run(warm, MLX_FP_JIT="native")
    assert (told(done)["native"], told(done)["losses"]) == (True, before)
    assert f"{len(damaged)} native kernels" in done.stderr
    assert "damaged" not in run(warm, MLX_FP_JIT="native").stderr


@pytest.mark.slow
def test_a_damaged_header_is_done_without(tmp_path):
    told(run(tmp_path, MLX_FP_JIT="native"))
    for file in (tmp_path / "cache").rglob("*.gch"):
        half(file)
    for file in kernels(tmp_path):
        file.unlink()
    assert told(run(tmp_path, MLX_FP_JIT="native"))["native"]
    assert kernels(tmp_path)


@pytest.mark.slow
def test_a_folder_that_cannot_be_used_is_a_warning(tmp_path):
    (tmp_path / "cache" / "mlx_fp").mkdir(parents=True)
    told(run(tmp_path, MLX_FP_JIT="native"))
    (folder,) = (tmp_path / "cache" / "mlx_fp").glob("kernels-*")
    shutil.rmtree(folder)
    folder.write_text("a file")
    done = run(tmp_path, "import mlx_fp as fp; fp.nn.relu; print(fp.cpu.kernels().native)", MLX_FP_JIT="native")
    assert done.stdout.split() == ["False"]
    assert "the folder for kernels cannot be used" in done.stderr


@pytest.mark.parametrize("name", ["$(touch ran)`touch ran`;touch ran'\"\\n", "a\n b ü"])
@pytest.mark.usual(r"a\n b \xfc")
def test_the_name_of_the_folder_is_no_command(tmp_path, name):
    code = "import mlx_fp as fp; fp.nn.relu; print(fp.cpu.kernels().native)"
    done = run(tmp_path, code, MLX_FP_JIT="native", XDG_CACHE_HOME=str(tmp_path / name), cwd=tmp_path)
    assert done.stdout.split() == ["True"], done.stderr
    assert list((tmp_path / name).rglob("lib*.so"))
    assert not list(tmp_path.rglob("ran"))
