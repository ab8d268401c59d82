"""Binding MLX to a fast BLAS: mostly in subprocesses, for it is the state of a process that is at stake."""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from helpers import python_process

from mlx_fp.cpu import _blas as blas

LINUX = blas._elf.HERE in blas._elf.KNOWN
PACKAGED = importlib.util.find_spec("scipy_openblas32") is not None


def _wheel_on_a_cpu() -> bool:
    if not LINUX or importlib.util.find_spec("mlx") is None:
        return False
    code = "import mlx.core as mx, sys; sys.exit(mx.default_device().type != mx.DeviceType.cpu)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


linux = pytest.mark.skipif(not _wheel_on_a_cpu(), reason="needs MLX on a Linux CPU, x86-64 or aarch64")
openblas = pytest.mark.skipif(not PACKAGED, reason="needs scipy-openblas32")

# What every subprocess below starts with. `right()` asks MLX itself; `holder(name)` is the file behind a slot.
HEAD = """
import os, re, sys, warnings
warnings.simplefilter("always")
import ctypes
from mlx_fp.cpu import _blas as blas, _elf

def lib(): return _elf.image("libmlx.so")
def slots(): return _elf.imports(lib(), blas._BLAS)
def held(): return {name: tuple(map(_elf.read, at)) for name, at in slots().items()}
def holder(name): return os.path.basename(_elf.owner(_elf.read(slots()[name][0])))

def right():
    import mlx.core as mx
    n = 300
    i, j, k = mx.arange(n)[:, None], mx.arange(n)[None, :], mx.arange(n)
    product = (i + k[None, :]).astype(mx.float32) @ (k[:, None] % 3 == j % 3).astype(mx.float32)
    rows = [sum(range(r, n, 3)) for r in range(3)]
    known = 100 * i + mx.array(rows)[mx.arange(n) % 3][None, :]
    s = mx.linalg.svd(mx.array([[3.0, 0.0], [4.0, 5.0]]), stream=mx.cpu)[1]
    svd = mx.allclose(s, mx.array([3 * 5**0.5, 5**0.5]))
    return bool(mx.array_equal(product, known.astype(mx.float32))) and bool(svd)
"""


def run(code: str, *, choice: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `HEAD` and `code` in a fresh interpreter; an assertion that fails there fails here."""
    unset = {"OPENBLAS_THREAD_TIMEOUT": None, "PYTHONWARNINGS": None}
    return python_process(HEAD + code, **{**unset, **env, "MLX_FP_BLAS": choice})


def warned(done: subprocess.CompletedProcess[str]) -> int:
    return done.stderr.count("RuntimeWarning")


# --- bound ---


@linux
@openblas
def test_binds_every_import_and_computes_right() -> None:
    done = run(
        """
found = blas.blas()
assert set(found.bound) == set(slots()), found
assert {"cblas_sgemm", "sgesdd_"} <= set(found.bound)
assert {holder(name) for name in slots() if name != "cblas_sgemm"} == {os.path.basename(found.library)}
assert holder("cblas_sgemm").startswith("functions-")
assert "openblas" in found.library and found.threads >= 1 and "scipy-openblas32" in found.reason
assert right()
"""
    )
    assert not done.stderr


@linux
@openblas
def test_binds_after_mlx_was_imported_and_used() -> None:
    run(
        """
import mlx.core as mx
assert right()
assert "blas" in holder("cblas_sgemm") and "openblas" not in holder("cblas_sgemm")
found = blas.blas()
assert "openblas" in holder("cblas_dgemm") and len(found.bound) == len(slots())
assert right()
x = mx.random.normal((64, 64), key=mx.random.key(1))
spd = x @ x.T + 64 * mx.eye(64)
l = mx.linalg.cholesky(spd, stream=mx.cpu)
assert mx.allclose(l @ l.T, spd, atol=1e-3), "cholesky"
q, r = mx.linalg.qr(x, stream=mx.cpu)
assert mx.allclose(q @ r, x, atol=1e-3), "qr"
assert mx.allclose(mx.linalg.inv(spd, stream=mx.cpu) @ spd, mx.eye(64), atol=1e-3), "inv"
w, v = mx.linalg.eigh(spd, stream=mx.cpu)
assert mx.allclose((v * w) @ v.T, spd, atol=1e-2), "eigh"
"""
    )


@linux
@openblas
def test_agrees_with_numpy() -> None:
    pytest.importorskip("numpy")
    run(
        """
import numpy as np
blas.blas()
import mlx.core as mx
a, b = (np.random.default_rng(s).normal(size=(257, 129)).astype("float32") for s in (0, 1))
for left, right_ in ((a, b.T), (a.T, b), (a[::2], b.T)):
    got = np.array(mx.array(left) @ mx.array(right_))
    assert np.allclose(got, left @ right_, atol=1e-3)
got = np.array(mx.linalg.svd(mx.array(a), stream=mx.cpu)[1])
assert np.allclose(got, np.linalg.svd(a, compute_uv=False), atol=1e-3)
"""
    )


@linux
@openblas
def test_a_second_call_binds_nothing() -> None:
    run(
        """
first = blas.blas()
before = held()
assert blas.blas() is first and held() == before
"""
    )


@linux
@openblas
def test_threads_that_race_get_one_answer() -> None:
    run(
        """
import threading
found = []
workers = [threading.Thread(target=lambda: found.append(blas.blas())) for _ in range(8)]
[w.start() for w in workers]; [w.join() for w in workers]
assert len(found) == 8 and len(set(map(id, found))) == 1 and right()
"""
    )


@linux
@openblas
def test_a_process_forked_after_binding_computes() -> None:
    run(
        """
import signal
blas.blas()
child = os.fork()
if child == 0:
    signal.alarm(30)  # what hangs is ended
    os._exit(0 if right() else 1)
assert os.waitpid(child, 0)[1] == 0
assert right()
"""
    )


@linux
@openblas
def test_sets_the_thread_timeout_while_it_loads_and_puts_the_environment_back() -> None:
    watch = "timeouts = []; load = ctypes.CDLL\n"
    watch += (
        "ctypes.CDLL = lambda *a, **k: timeouts.append(os.environ.get('OPENBLAS_THREAD_TIMEOUT')) or load(*a, **k)\n"
    )
    run(watch + "blas.blas(); assert '10' in timeouts and 'OPENBLAS_THREAD_TIMEOUT' not in os.environ")
    run(
        watch + "blas.blas(); assert '10' not in timeouts and os.environ['OPENBLAS_THREAD_TIMEOUT'] == '20'",
        OPENBLAS_THREAD_TIMEOUT="20",
    )


@linux
@openblas
def test_touches_libmlx_only() -> None:
    """The plain BLAS names stay unknown to the process; numpy's import slots and answers stay as they were."""
    pytest.importorskip("numpy")
    run(
        r"""
import ctypes
import numpy as np
core = next(line.split()[-1] for line in open("/proc/self/maps") if "_multiarray_umath" in line)
def numpys():
    image = _elf.image(os.path.basename(core))
    found = _elf.imports(image, re.compile(rb"\w*(cblas|openblas)\w*"))
    return {name: tuple(_elf.owner(_elf.read(s)) for s in at) for name, at in found.items()}
a = np.random.default_rng(0).normal(size=(200, 200))
known, before = a @ a, numpys()
assert before
blas.blas()
assert right()
assert numpys() == before and np.array_equal(a @ a, known)
assert "scipy_openblas32" not in sys.modules
for name in ("cblas_sgemm", "sgesdd_", "scipy_cblas_sgemm"):
    assert not hasattr(ctypes.CDLL(None), name), name
"""
    )


@linux
@openblas
def test_a_page_made_read_only_is_written_and_left_read_only() -> None:
    run(
        """
import dataclasses
import mlx.core
def access(slot):
    for line in open("/proc/self/maps"):
        span, flags = line.split()[:2]
        low, high = (int(x, 16) for x in span.split("-"))
        if low <= slot < high:
            return flags[:2]
page = os.sysconf("SC_PAGE_SIZE")
slot = slots()["cblas_sgemm"][0]
start = slot - slot % page
full = dataclasses.replace(lib(), segments=(*lib().segments, (_elf._RELRO, start, page)))
_elf._protect([start], 1)
assert access(slot) == "r-"
pointer = _elf.read(slot)
before = _elf.write(full, {slot: 42})
assert before == {slot: pointer} and _elf.read(slot) == 42 and access(slot) == "r-"
_elf.write(full, before)
assert _elf.read(slot) == pointer
_elf._protect([start], 3)  # the linker writes here on a first call
found = blas.blas()
assert found.bound and right()
"""
    )


# --- left as it came ---


@linux
def test_off_changes_nothing_and_says_so() -> None:
    done = run(
        """
import mlx.core as mx
before = held()
found = blas.blas()
assert held() == before and right()
assert (found.bound, found.threads, found.reason) == ((), None, "MLX_FP_BLAS=off"), found
with open("/proc/self/maps") as maps:
    assert "openblas" not in maps.read()
""",
        choice="OFF",
    )
    assert not done.stderr


@linux
@pytest.mark.parametrize("path", ["/nowhere/libfoo.so", "libm.so.6", os.devnull, __file__])
def test_a_path_that_will_not_do_warns_once(path: str) -> None:
    done = run(
        """
import mlx.core as mx
before = held()
found = blas.blas(); blas.blas(); blas.blas()
assert held() == before and not found.bound and right()
assert os.environ["MLX_FP_BLAS"] in found.reason, found
""",
        choice=path,
    )
    assert warned(done) == 1
    assert path in done.stderr
    assert "MLX_FP_BLAS=off" in done.stderr


@linux
def test_a_library_of_64_bit_integers_is_refused() -> None:
    numpy = pytest.importorskip("numpy")
    wide = sorted(Path(numpy.__file__).parents[1].glob("numpy.libs/libscipy_openblas64_*.so*"))
    if not wide:
        pytest.skip("this numpy brings no 64-bit OpenBLAS")
    done = run("found = blas.blas(); assert not found.bound and '64-bit' in found.reason", choice=str(wide[0]))
    assert warned(done) == 1


@linux
@openblas
def test_a_library_that_cannot_be_written_in_leaves_mlx_alone() -> None:
    done = run(
        """
import mlx.core as mx
def refuse(pages, access): raise OSError(13, "mprotect: Permission denied")
_elf._protect = refuse
found = blas.blas()
assert not found.bound and "Permission denied" in found.reason and right()
"""
    )
    assert warned(done) == 1


@linux
@openblas
@pytest.mark.parametrize("name", ["cblas_sgemm", "cblas_dgemm", "cblas_cgemm", "sgesdd_", "dgesdd_"])
def test_wrong_answers_are_undone(name: str) -> None:
    """A function that does nothing stands in for a broken one."""
    done = run(
        """
import ctypes
import mlx.core as mx
honest, bad = blas._pointers, os.environ["BAD"]
def broken(library, names):
    return honest(library, names) | {bad: _elf.address(library, "scipy_openblas_get_num_threads")}
blas._pointers = broken
found = blas.blas()
assert not found.bound and "wrongly" in found.reason, found
assert not any("openblas" in holder(name) for name in slots())
assert right()
""",
        BAD=name,
    )
    assert warned(done) == 1
    assert "--force-reinstall" in done.stderr


@linux
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_wrong_library_named_by_path_is_undone(tmp_path: Path) -> None:
    source, library = tmp_path / "wrong.c", tmp_path / "libwrong.so"
    source.write_text("".join(f"void cblas_{kind}gemm(void) {{}}\n" for kind in "sdc"))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    done = run(
        """
found = blas.blas()
assert not found.bound and "wrongly" in found.reason and right()
assert not any("wrong" in holder(name) for name in slots())
""",
        choice=str(library),
    )
    assert warned(done) == 1


@linux
def test_a_library_without_lapack_binds_what_it_has() -> None:
    """MLX's own netlib BLAS, named by its path, is such a one."""
    done = run(
        """
import mlx.core as mx
mx.eval(mx.ones((8, 8)) @ mx.ones((8, 8)))
from pathlib import Path
os.environ["MLX_FP_BLAS"] = _elf.owner(_elf.read(slots()["cblas_sgemm"][0]))
found = blas.blas()
assert set(found.bound) == {name for name in slots() if name.startswith("cblas_")}, found
assert found.threads is None and "MLX_FP_BLAS" in found.reason and right()
"""
    )
    assert not done.stderr


@linux
def test_a_missing_package_is_one_warning_with_its_remedy() -> None:
    done = run(
        """
blas._packaged = lambda: ""
found = blas.blas(); blas.blas()
assert not found.bound and "not installed" in found.reason and right()
"""
    )
    assert warned(done) == 1
    assert "pip install scipy-openblas32" in done.stderr
    assert "40 times" in done.stderr


@linux
def test_warnings_turned_into_errors_are_raised_once() -> None:
    run(
        """
warnings.simplefilter("error")
try:
    blas.blas()
except RuntimeWarning:
    pass
else:
    raise AssertionError("no warning")
assert not blas.blas().bound and right()
""",
        choice="/nowhere/libfoo.so",
    )


@linux
@openblas
def test_an_mlx_that_has_openblas_already_is_left_alone() -> None:
    run(
        """
import mlx.core as mx, ctypes
fast = ctypes.CDLL(blas._packaged())
pointer = _elf.address(fast, "scipy_cblas_sgemm")
_elf.write(lib(), {slot: pointer for slot in slots()["cblas_sgemm"]})
before = held()
found = blas.blas()
assert held() == before and not found.bound and "already" in found.reason and "openblas" in found.library
"""
    )


# --- elsewhere ---


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let `bind` decide anew, and touch nothing when it would reach for the process."""

    def refuse(*_: object) -> None:
        raise AssertionError("looked for libmlx")

    monkeypatch.setattr(blas, "_settled", functools.cache(blas._settled.__wrapped__))
    monkeypatch.setattr(blas._elf, "image", refuse)
    monkeypatch.delenv("MLX_FP_BLAS", raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("here", "library"),
    [("darwin arm64", "Accelerate"), ("linux riscv64", "MLX's own"), ("win32", "MLX's own")],
)
def test_other_machines_have_nothing_to_bind(fresh: pytest.MonkeyPatch, here: str, library: str) -> None:
    fresh.setattr(blas._elf, "HERE", here)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = blas.blas()
    assert (found.library, found.threads, found.bound) == (library, None, ())
    assert found.reason


@linux
def test_a_gpu_is_left_alone(fresh: pytest.MonkeyPatch) -> None:
    mx = pytest.importorskip("mlx.core")

    class Gpu:
        type = mx.DeviceType.gpu

    fresh.setattr(mx, "default_device", Gpu)
    assert "GPU" in blas.blas().reason


@pytest.mark.skipif(not LINUX, reason="needs Linux")
def test_no_mlx_no_error(fresh: pytest.MonkeyPatch) -> None:
    fresh.setitem(sys.modules, "mlx.core", None)
    assert blas.blas() == blas.BlasInfo("none", None, (), "MLX is not installed")


def test_importing_it_imports_neither_mlx_nor_numpy() -> None:
    run("assert not {'mlx', 'numpy'} & set(sys.modules), 'import'")


@linux
def test_binding_does_not_import_numpy() -> None:
    run("blas.blas(); assert 'numpy' not in sys.modules and 'scipy_openblas32' not in sys.modules")


def test_info_is_a_frozen_record_that_reads_as_a_line() -> None:
    one = blas.BlasInfo("libfoo.so", 2, ("cblas_sgemm", "sgesdd_"), "an example")
    assert str(one) == "libfoo.so, 2 threads, 2 functions bound: an example"
    assert str(blas.BlasInfo("Accelerate", None, (), "macOS")) == "Accelerate, 0 functions bound: macOS"
    assert not hasattr(one, "__dict__")
    with pytest.raises(FrozenInstanceError):
        one.library = "x"  # type: ignore[misc]
