"""Make MLX build its CPU kernels for this machine's instruction set, in a cache of their own.

MLX builds the kernels of compiled functions with `g++ -O3` for the oldest processor of the architecture. It keeps the
kernels in the folder for temporary files, which all programs share. `patch_compiler` replaces two functions that
libmlx.so imports: the one that runs the compiler (see `_builds`), and the one that names that folder. The replacements
add flags and name a private folder. The environment, other libraries and child processes stay as they were.
"""

from __future__ import annotations

import ctypes
import os
import re
import shlex
import string
import subprocess
import tempfile
import threading
from pathlib import Path
from types import ModuleType

from . import _elf
from ._builds import BUILD, HEADER, UNKNOWN_BUILD, replace_popen
from ._functions import compile_to, compiler_path
from ._kernel_folder import discard_damaged, seal
from ._private_folder import make_private

__all__ = ["FLAGS", "patch_compiler"]

FLAGS = ("-march=native", "-fno-math-errno", "-fno-trapping-math", "--param", "max-inline-insns-auto=200")
"""The flags that are added. They reorder no sum and keep NaN. A product and a sum may be rounded once, not twice.

Besides, subnormal numbers are treated as zero.
"""

_FOLDER = "_ZNSt10filesystem19temp_directory_pathB5cxx11Ev"

_SOURCE = r"""
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <string.h>
#include <unistd.h>

static std::atomic<int> calls{0};

extern "C" int mlx_fp_calls() { return calls; }

extern "C" std::filesystem::path mlx_fp_folder() {
  ++calls;
  return FOLDER;
}

// Treat subnormal numbers as zero within a kernel: they cost forty times as much as other numbers, or more
static const char* flush = R"(
struct mlx_fp_flush {
#if defined(__SSE__)
  unsigned before = __builtin_ia32_stmxcsr();
  mlx_fp_flush() { __builtin_ia32_ldmxcsr(before | 0x8040); }
  ~mlx_fp_flush() { __builtin_ia32_ldmxcsr(before); }
#elif defined(__aarch64__)
  unsigned long long before = __builtin_aarch64_get_fpcr64();
  mlx_fp_flush() { __builtin_aarch64_set_fpcr64(before | 1ull << 24); }
  ~mlx_fp_flush() { __builtin_aarch64_set_fpcr64(before); }
#endif
};
)";

static void insert(std::string& source, const std::string& place, bool after, const std::string& text) {
  auto at = source.find(place);
  if (at != std::string::npos)
    source.insert(after ? at + place.size() : at, text);
}

// Iteration i reads and writes only elements i. Tell the compiler, because a result may share the memory of an input
static void improve(const std::string& from, const std::string& to) {
  std::stringstream text;
  text << std::ifstream(from).rdbuf();
  auto source = text.str();
  insert(source, "  for (size_t i = 0; i < size; ++i) {", false, "#pragma GCC ivdep\n");
  insert(source, "extern \"C\"  {", false, flush);
  insert(source, "void** args) {", true, "\n  mlx_fp_flush flushed;");
  std::ofstream(to) << source;
}

static std::string as_word(const std::string& text) {
  std::string result = "'";
  for (char c : text)
    result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

// The command is `g++ … "kernel.cpp" -o "kernel.so" 2>&1`. Add the flags, seal the finished kernel with its SHA-256,
// and rename it into its place. If the build fails with the precompiled header, build without it
extern "C" char* mlx_fp_rewrite(const char* command) {
  const std::string line(command), compiler = "g++ ", folder = FOLDER, start = "\"" + folder, middle = "\" -o ";
  const std::string end = "\" 2>&1";
  auto from = line.find(start), at = line.find(middle + start, from), stop = line.rfind(end);
  if (from == std::string::npos)
    return strdup(command);
  if (line.rfind(compiler, 0) != 0 || at == std::string::npos || stop == std::string::npos || stop <= at)
    return nullptr;  // a shell would read the name of the folder, which may hold anything
  auto options = line.substr(compiler.size(), from - compiler.size());
  auto to = at + middle.size() + 1;
  auto kernel = line.substr(to, stop - to), own = kernel + "." + std::to_string(getpid());
  improve(line.substr(from + 1, at - from - 1), own + ".cpp");
  auto out = as_word(own), files = options + as_word(own + ".cpp") + " -o " + out + " 2>&1";
  auto sum = as_word(own + ".sum");
  auto plain = COMPILER + files, ready = COMPILER INCLUDE + files;
  auto build = "{ " + ready + " || " + plain + "; }";
  auto seal = " && { sha256sum < " + out + " > " + sum + " && cat " + sum + " >> " + out + "; mv " + out + " " +
      as_word(kernel) + "; }";
  return strdup((build + seal + "; code=$?; rm -f " + out + " " + out + ".*; exit $code").c_str());
}
"""


def patch_compiler() -> Path:
    """Replace both functions and return the folder of kernels. If that fails, a RuntimeError gives the reason."""
    mx, compiler, lib = _requirements()
    slots = _elf.imports(lib, re.compile(_FOLDER.encode())).get(_FOLDER, ())
    if not slots:
        raise RuntimeError(UNKNOWN_BUILD)
    runner, _, include = replace_popen()
    folder = _folder(mx, compiler)
    library = ctypes.CDLL(str(_built(folder, include)))
    before = _elf.write(lib, dict.fromkeys(slots, _elf.address(library, "mlx_fp_folder")))
    runner.mlx_fp_set_rewriter(library.mlx_fp_rewrite)
    try:
        _check(mx, library, folder)
    except BaseException:
        _elf.write(lib, before)
        runner.mlx_fp_set_rewriter(None)
        raise
    return folder


def _requirements() -> tuple[ModuleType, str, _elf.Image]:
    """Return MLX, the path of the compiler, and libmlx; RuntimeError if one is missing."""
    if _elf.HERE not in _elf.KNOWN:
        raise RuntimeError(f"native kernels are for Linux CPUs, and this system is {_elf.HERE}")
    import mlx.core as mx

    if mx.default_device().type == mx.DeviceType.gpu:
        raise RuntimeError("MLX computes on the GPU, and builds its GPU kernels for that GPU by itself")
    compiler, lib = compiler_path(), _elf.image("libmlx.so")
    if lib is None:
        raise RuntimeError("this build of MLX has no libmlx.so")
    return mx, os.path.realpath(compiler), lib


def _folder(mx: ModuleType, compiler: str) -> Path:
    """Make the folder of kernels for this MLX, compiler, processor and set of flags; only this user may write to it."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    machine = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0].splitlines()
    features = [line for line in machine if line.partition(":")[0].strip() in _FEATURES]
    identity = "\n".join([mx.__version__, compiler, version, *features, *FLAGS, _SOURCE])
    folder = Path(make_private("kernels", identity))
    discard_damaged(folder)
    return folder


_FEATURES = ("model name", "flags", "Features", "CPU part")
"""The lines of /proc/cpuinfo that identify a processor, on x86-64 and on aarch64."""


def _built(folder: Path, include: Path) -> Path:
    """Build the replacements and a precompiled header of MLX, with which a kernel builds in a quarter of the time."""
    precompiled, library = folder / "include" / f"{HEADER}.gch", folder / "replacements.so"
    if not precompiled.exists() and (include / HEADER).exists():
        precompiled.parent.mkdir(parents=True, exist_ok=True)
        header = ("-x", "c++-header", *BUILD, *FLAGS, "-I", str(include), str(include / HEADER))
        compile_to(str(precompiled), *header)
    if not library.exists():
        texts = {
            "FOLDER": str(folder),
            "COMPILER": f"{shlex.join(['g++', *FLAGS])} ",
            "INCLUDE": f"-I {shlex.quote(str(folder / 'include'))} ",
        }
        constants = "".join(f"#define {name} {_as_literal(text)}\n" for name, text in texts.items())
        with tempfile.NamedTemporaryFile("w", suffix=".cpp", dir=folder) as source:
            source.write(constants + _SOURCE)
            source.flush()
            options = ("-std=c++17", "-O2", "-fPIC", "-shared", source.name)
            compile_to(str(library), *options, finish=lambda file: seal(Path(file)))
    return library


def _as_literal(text: str) -> str:
    """Return a text as a literal of C."""
    plain = string.ascii_letters + string.digits
    return '"' + "".join(chr(b) if chr(b) in plain else f"\\{b:03o}" for b in os.fsencode(text)) + '"'


def _check(mx: ModuleType, library: ctypes.CDLL, folder: Path) -> None:
    """Raise RuntimeError unless MLX builds a kernel in the folder and computes the known answer with it.

    The check runs in a thread of its own. A stream of MLX belongs to its thread, and a stream of the importing thread
    would hang a process that is forked later.
    """
    values: list[float] = []

    def probe() -> None:
        x = mx.arange(8, dtype=mx.float32)
        double = mx.compile(lambda x: (x * 2 + 1) * (x - 3) * 0.5)
        with mx.stream(mx.cpu):
            values.extend(double(x).tolist())

    mx.default_stream(mx.cpu)
    worker = threading.Thread(target=probe, name="mlx_fp.jit check")
    worker.start()
    worker.join()
    if values != [(x * 2 + 1) * (x - 3) * 0.5 for x in range(8)]:
        raise RuntimeError("a native kernel computes wrongly, or not at all")
    if not library.mlx_fp_calls() or not any((folder / "mlx").glob("*/cpu/*.so")):
        raise RuntimeError(f"MLX does not look for kernels in {folder}")
