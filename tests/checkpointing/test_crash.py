"""Checkpoints outlive what befalls them: a kill at any call, a power cut at any instant, a disk that fails."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import traceback
import tracemalloc
import zipfile
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers import assert_same_bits, bits, forged, header_of, numbers, run_call
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.core import _container as container
from mlx_fp.core._errors import CheckpointError
from mlx_fp.store import _safetensors as safetensors
from mlx_fp.store._checkpoint import peek

pytestmark = pytest.mark.slow

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")
SUFFIXES = (".safetensors", ".npz")
CALLS = ("open", "mkdir", "rmdir", "chmod", "fsync", "link", "replace", "unlink")
NUMBERED, CONSTANT, LATEST = "ep-{epoch}", "last", "at-{epoch}"
"""Templates; files of the third have the newest state in `latest` too."""


@contextmanager
def watched(before):
    """Within, `before(call, *args)` is asked at the entry of each call that changes files; what it raises goes on."""

    class Raw(io.FileIO):
        def write(self, content):
            before("write", self.fileno(), content)
            return super().write(content)

        def close(self):
            try:
                if not self.closed:
                    before("close", self.fileno())
            finally:
                super().close()

    def asking(name, call):
        def asked(*args, **options):
            before(name, *args)
            return call(*args, **options)

        return asked

    def opened(number, mode="r", **options):
        return io.BufferedWriter(Raw(number, mode)) if mode == "wb" else fdopen(number, mode, **options)

    fdopen = os.fdopen
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdopen", opened)
        for name in CALLS:
            patch.setattr(os, name, asking(name, getattr(os, name)))
        patch.setattr(container, "write_container", asking("container", container.write_container))
        patch.setattr(safetensors, "write_container", container.write_container)
        yield


def counted(work):
    """The calls that some work makes, in order."""
    calls = []
    with watched(lambda name, *args: calls.append(name)):
        work()
    return calls


def is_left(name):
    """Whether a file is what a writer left half-written."""
    return name.startswith(".")


def names(folder):
    return sorted(name for name in os.listdir(folder) if name != ".mlx_fp.lock")


def assert_same_files(found, wanted):
    """But for one that was to be deleted next."""
    assert set(found) >= set(wanted)
    assert len(found) <= len(wanted) + 1
    assert not [name for name in found if is_left(name)]


def train(folder, template, *, epochs=3, resume=None, told=lambda event: None):
    """Epochs of two steps, each with a checkpoint."""
    x = mx.arange(24, dtype=mx.float32).reshape(2, 4, 3) / 24
    keep = None if template == CONSTANT else 1
    target = pipe(
        fp.trainer(nn.linear(3, 2), fp.classification()),
        fp.with_optimizer(optim.adam(0.1)),
        fp.checkpoints(folder / template, keep_last=keep, latest=template == LATEST),
        fp.on("after_checkpoint", told),
    )
    batches = [(rows, mx.array([0, 1, 0, 1])) for rows in x]
    return pipe(target, fp.fit(batches, epochs=epochs, quiet=True, resume=resume))


# kill -9 at every call


def in_child(work):
    """Do some work in a process of its own, and return how it ended. MLX must not have worked here before."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    return os.waitpid(child, 0)[1]


def killed_at(point, folder, template, acked):
    """Train, and kill this process at a point: the entry of a call, or the middle of a write."""
    points = itertools.count()
    note = os.open(acked, os.O_WRONLY | os.O_CREAT)

    def before(name, *args):
        if next(points) == point:
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "write" and next(points) == point:
            os.write(args[0], bytes(args[1])[: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "container" and next(points) == point:
            (args[0].parent / ".tmp0123").write_bytes(b"half of it")  # as the package does before it renames
            os.kill(os.getpid(), signal.SIGKILL)

    def told(event):
        os.pwrite(note, str(event.step).encode(), 0)

    with watched(before):
        train(folder, template, told=told)


def judge(folder, template, acked, verdict):
    """Write what a killed run has left, and what becomes of the next one."""
    left = [name for name in names(folder) if not is_left(name)] if folder.is_dir() else []
    steps = [fp.load(folder / name).metadata["step"] for name in left]
    told = acked.read_text() if acked.exists() else ""
    latest = fp.load(folder / "latest").metadata["step"] if "latest.safetensors" in left else 0
    end = train(folder, template, resume="latest")
    found = {"newest": max(steps, default=0), "acked": int(told or 0), "latest": latest, "left": names(folder)}
    verdict.write_text(json.dumps({**found, "end": numbers(end.params)}))


def kill_everywhere(folder, template):
    """Print a verdict for each point at which a run can be killed; the last one is of a run left alone."""
    import concurrent.futures.thread  # noqa: F401  # what each child would load again

    _ = fp.fit, fp.checkpoints, fp.classification, fp.load, fp.on, fp.trainer, nn.linear, optim.adam, fp.data.arrays
    for point in itertools.count():
        here, acked, verdict = (Path(folder) / f"{point}{part}" for part in ("", ".acked", ".json"))
        ended = in_child(lambda at=(point, here, template, acked): killed_at(*at))
        assert ended in (0, signal.SIGKILL)
        assert in_child(lambda at=(here, template, acked, verdict): judge(*at)) == 0
        print(json.dumps({"killed": ended == signal.SIGKILL, **json.loads(verdict.read_text())}), flush=True)
        if ended == 0:
            return


@POSIX
@pytest.mark.parametrize("template", [NUMBERED, CONSTANT, LATEST])
def test_a_kill_at_any_call_loses_nothing_acknowledged(template, tmp_path):
    printed = run_call(__file__, f"kill_everywhere({str(tmp_path)!r}, {template!r})")
    *killed, alone = [json.loads(line) for line in printed.splitlines()]
    assert len(killed) > 30
    assert all(one["killed"] for one in killed)
    assert {one["newest"] for one in killed} == {0, 2, 4, 6}
    for point, one in enumerate(killed):
        assert one["newest"] >= one["acked"], point
        assert template != LATEST or one["latest"] >= one["acked"], point
        assert one["end"] == alone["end"], point
        assert_same_files(one["left"], alone["left"])


# power cuts


class Disk:
    """What a disk may hold after a power cut, when it is told of each call before it is made.

    What is there at first is on disk. From then on a file's bytes are when the file is flushed, and a name, new or
    gone, when its folder is. Bytes that are not may be all there, half, as zeros, or not at all.
    """

    def __init__(self, root, deaf_to=()):
        self.root, self.deaf_to = root, deaf_to
        self.open, self.bytes = {}, {}  # by inode: a file to read its bytes from, and those on disk
        self.states = set()
        self.names = self.now()
        self.bytes = {number: self.read(number) for number in self.open}

    def now(self):
        """The names as the system has them, by folder, with inodes, or None for a folder."""
        found = {}
        for folder, folders, files in os.walk(self.root):
            here = found[os.path.relpath(folder, self.root)] = dict.fromkeys(folders)
            for name in files:
                path = os.path.join(folder, name)
                here[name] = os.stat(path).st_ino
                if here[name] not in self.open:
                    self.open[here[name]] = io.FileIO(path)
        return found

    def read(self, number):
        self.open[number].seek(0)
        return self.open[number].read()

    def before(self, name, *args):
        """Note what a power cut could leave before a call, and what the call brings to disk."""
        self.states |= set(self.cuts())
        if name == "container":  # within it the package writes beside the path, and renames
            half = args[0].parent / ".tmp0123"
            half.write_bytes(b"half of it")
            self.states |= set(self.cuts())
            half.unlink()
        if name == "fsync":
            path = os.path.realpath(f"/proc/self/fd/{args[0]}")
            if os.path.isdir(path) and "folder" not in self.deaf_to:
                here = os.path.relpath(path, self.root)
                self.names[here] = self.now()[here]
            elif not os.path.isdir(path) and "file" not in self.deaf_to:
                number = os.stat(args[0]).st_ino
                self.now()
                self.bytes[number] = self.read(number)

    def cuts(self):
        """Yield each state that a power cut could leave now, as `((path, bytes), …)`."""
        now = self.now()
        either = [
            [(folder, name, way.get(folder, {}).get(name, "none")) for way in ways]
            for folder in now
            for name in {**now[folder], **self.names.get(folder, {})}
            for ways in [[now, self.names]]
        ]
        for chosen in itertools.product(*(dict.fromkeys(ways) for ways in either)):
            kept = {(folder, name): number for folder, name, number in chosen if number != "none"}
            files = [
                (os.path.normpath(os.path.join(folder, name)), number)
                for (folder, name), number in kept.items()
                if number is not None and self.reached(folder, kept)
            ]
            for contents in itertools.product(*(self.contents(number) for _, number in files)):
                yield tuple(sorted(zip((path for path, _ in files), contents, strict=True)))

    def reached(self, folder, kept):
        path = Path(folder)
        return path == Path(".") or ((str(path.parent), path.name) in kept and self.reached(str(path.parent), kept))

    def contents(self, number):
        whole, flushed = self.read(number), self.bytes.get(number, b"")
        if whole == flushed:
            return [whole]
        return list(dict.fromkeys([flushed, whole, whole[: len(whole) // 2], bytes(len(whole))]))


def rebuilt(state, folder):
    """Put what a power cut left into a folder of its own."""
    for path, content in state:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def value(path):
    """What a checkpoint holds, or why it holds nothing."""
    try:
        return fp.load(path).params["a"].item()
    except FileNotFoundError:
        return "none"
    except CheckpointError:
        return "damaged"


def is_whole(path):
    try:
        return bool(fp.load(path))
    except CheckpointError:
        return False


def outcomes(states, path, folder):
    return {value(rebuilt(state, folder / str(i)) / path) for i, state in enumerate(states)}


def cut_short(root, path, *, deaf_to=()):
    """Save over a checkpoint; return what a power cut can leave before the call returns, and after."""
    disk = Disk(root, deaf_to)
    with watched(disk.before):
        fp.save(path, opt_state={"m": mx.arange(9_000)})({"a": mx.array(2)})
    return disk.states, set(disk.cuts())


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads the names of open files from /proc")


@LINUX
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_power_cut_leaves_the_old_or_the_new_and_after_the_call_the_new(suffix, tmp_path):
    root, path = tmp_path / "disk", f"a{suffix}"
    fp.save(root / path)({"a": mx.array(1)})
    during, after = cut_short(root, root / path)
    assert len(during) >= 10
    assert outcomes(during, path, tmp_path / "during") == {1, 2}
    assert outcomes(after, path, tmp_path / "after") == {2}


@LINUX
@pytest.mark.parametrize("path", ["a.safetensors", "new/a.safetensors", "new/deep/a.safetensors"])
def test_a_first_checkpoint_and_its_folders_are_on_disk_when_the_call_returns(path, tmp_path):
    root = tmp_path / "disk"
    root.mkdir()
    during, after = cut_short(root, root / path)
    assert outcomes(during, path, tmp_path / "during") == {"none", 2}
    assert outcomes(after, path, tmp_path / "after") == {2}


@LINUX
def test_the_model_of_a_power_cut_sees_a_missing_flush(tmp_path):
    for name, damage in {"file": {"damaged", 1, 2}, "folder": {1, 2}}.items():
        root = tmp_path / name
        fp.save(root / "a")({"a": mx.array(1)})
        _, after = cut_short(root, root / "a.safetensors", deaf_to=(name,))
        assert outcomes(after, "a.safetensors", tmp_path / f"{name}-after") == damage - (
            {1} if name == "file" else set()
        )


@LINUX
@pytest.mark.parametrize("template", [NUMBERED, CONSTANT, LATEST])
def test_a_power_cut_during_a_run_loses_nothing_acknowledged(template, tmp_path):
    (tmp_path / "disk").mkdir()
    disk, acked, seen = Disk(tmp_path / "disk"), [0], []

    def before(*call):
        disk.states = set()
        disk.before(*call)
        seen.append((acked[-1], disk.states))

    with watched(before):
        train(tmp_path / "disk" / "run", template, told=lambda event: acked.append(event.step))
    seen.append((acked[-1], set(disk.cuts())))
    known = {}
    for least, states in seen:
        for state in states:
            files = [content for path, content in state if not any(map(is_left, Path(path).parts))]
            for content in files:
                if content not in known:
                    (tmp_path / "one.safetensors").write_bytes(content)
                    known[content] = fp.load(tmp_path / "one").metadata["step"]
            assert max((known[content] for content in files), default=0) >= least
            latest = [known[content] for path, content in state if Path(path).name == "latest.safetensors"]
            assert template != LATEST or max(latest, default=0) >= least
    assert acked == [0, 2, 4, 6]
    assert set(known.values()) == {2, 4, 6}


# failing writes


def failing(point, number):
    """A watcher that fails one call."""
    points = itertools.count()

    def before(name, *args):
        if next(points) == point:
            where = () if isinstance(args[0], int) else (os.fspath(args[0]),)
            raise OSError(number, os.strerror(number), *where)

    return before


def failed(work, point, number):
    """Do some work in which one call fails, and return the error that it ends in, if it does."""
    try:
        with watched(failing(point, number)):
            work()
    except OSError as error:
        return error
    return None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failing_call_is_an_error_that_says_where_and_leaves_a_whole_file_alone(suffix, number, tmp_path):
    path = tmp_path / f"a{suffix}"
    old, new = ({"a": mx.full((3000,), n)} for n in (1, 2))
    fp.save(path)(old)
    calls = counted(lambda: fp.save(path)(new))
    replace, own = calls.index("replace"), calls.index("mkdir", 1)
    for point, call in enumerate(calls):
        fp.save(path)(old)
        error = failed(lambda: fp.save(path)(new), point, number)
        if call in ("rmdir", "mkdir") and point != own:  # the folder is there, or stays, whatever the call says
            assert error is None
        elif error is not None or point <= replace:
            assert (error.errno, error.filename) == (number, str(path)), call
        replaced = error is None or point > replace
        assert bits(fp.load(path).params) == bits(new if replaced else old), call
        assert [name for name in names(tmp_path) if not is_left(name)] == [path.name], call
        if is_left(names(tmp_path)[0]):
            assert point > replace, call
            fp.save(path)(old)
            assert names(tmp_path) == [path.name], "the next save sweeps it"
    assert len(calls) >= 8


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
@pytest.mark.parametrize("template", [NUMBERED, LATEST])
def test_after_a_failing_call_a_run_goes_on_to_the_same_end(template, number, tmp_path):
    alone = train(tmp_path / "alone", template)
    calls = counted(lambda: train(tmp_path / "counted", template))
    for point, call in enumerate(calls):
        folder = tmp_path / str(point)
        error = failed(lambda folder=folder: train(folder, template), point, number)
        assert error is None or (error.errno == number and error.filename), call
        again = train(folder, template, resume="latest")
        assert_same_bits(again.params, alone.params)
        assert_same_bits(again.opt_state, alone.opt_state)
        assert_same_files(names(folder), names(tmp_path / "alone"))


def narrow(folder):
    """Save with less and less room for a file, and print what came of it."""
    import resource

    tree = {"a": mx.arange(5_000)}
    for suffix in SUFFIXES:
        path = fp.save(Path(folder) / f"a{suffix}")({"a": mx.array(1)})
        size = fp.save(Path(folder) / f"whole{suffix}")(tree).stat().st_size
        for room in [0, 1, 7, 4096, 8192, size // 2, size - 4096, size - 1, size]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
            try:
                fp.save(path)(tree)
                told = None
            except OSError as error:
                told = error.errno, error.filename == str(path)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            print(json.dumps([room == size, told, fp.load(path).params["a"].size, names(folder)]))


@POSIX
def test_a_file_that_finds_no_room_is_an_error_and_the_old_one_stays(tmp_path):
    printed = run_call(__file__, f"narrow({str(tmp_path)!r})")
    lines = [json.loads(line) for line in printed.splitlines()]
    assert len(lines) == 18
    for enough, told, size, left in lines:
        assert (told, size) == ((None, 5_000) if enough else ([errno.EFBIG, True], 1))
        assert not [name for name in left if is_left(name)]


PAGE, ROOM = 4096, 64


def filled(folder):
    """Save to a small disk with one more page free each time, until there is room, and print what came of it."""
    mounted = ["mount", "-t", "tmpfs", "-o", f"size={PAGE * ROOM}", "none", folder]
    subprocess.run(mounted, check=True)
    tree, filler = {"a": mx.arange(20_000)}, Path(folder) / ".filler"
    for suffix in SUFFIXES:
        path = fp.save(Path(folder) / f"a{suffix}")(tree)
        needed = -(-path.stat().st_size // PAGE)
        fp.save(path)({"a": mx.array(1)})
        for free in range(needed + 1):
            filler.write_bytes(b"")
            space = os.statvfs(folder)
            filler.write_bytes(bytes((space.f_bfree - free) * PAGE))
            try:
                fp.save(path)(tree)
                told = None
            except OSError as error:
                told = error.errno, error.filename == str(path)
            left = [name for name in names(folder) if name != filler.name]
            print(json.dumps([needed, free, told, fp.load(path).params["a"].size, left == [path.name]]))
        filler.unlink()
        path.unlink()


@LINUX
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a mount of its own")
def test_a_disk_that_is_full_at_any_page_is_an_error_and_the_old_file_stays(tmp_path):
    apart = ["unshare", "--mount", "--map-root-user"]
    tried = f"mount -t tmpfs none {tmp_path}"
    may = subprocess.run([*apart, "sh", "-c", tried], capture_output=True, text=True, check=False)
    if may.returncode:
        pytest.skip(f"no disk may be mounted here: {may.stderr.strip()}")
    printed = run_call(__file__, f"filled({str(tmp_path)!r})", within=apart)
    lines = [json.loads(line) for line in printed.splitlines()]
    assert len([told for _, _, told, _, _ in lines if told]) >= 40
    for needed, free, told, size, alone in lines:
        assert (told, size) == ((None, 20_000) if free == needed else ([errno.ENOSPC, True], 1)), free
        assert alone


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_in_the_way_of_the_file_is_named(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.mkdir()
    with pytest.raises(OSError, match="directory|exists|denied") as caught:
        fp.save(path)({"a": mx.array(1)})
    assert caught.value.filename == str(path)
    assert names(tmp_path) == [path.name]


@POSIX
@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root writes anywhere")
def test_a_folder_that_takes_no_files_is_an_error_with_the_path(tmp_path):
    path = fp.save(tmp_path / "a")({"a": mx.array(1)})
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError) as caught:
            fp.save(path)({"a": mx.array(2)})
    finally:
        tmp_path.chmod(0o700)
    assert caught.value.filename == str(path)
    assert value(path) == 1


# what a stranger made


def test_a_packed_archive_is_refused_before_it_fills_the_memory(tmp_path):
    packed = io.BytesIO()
    np.save(packed, np.zeros(50_000_000, np.uint8))
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__mlx_fp__.manifest.npy", packed.getvalue())
    del packed
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"a\.npz .*packed"):
            fp.load(path)
        assert peek(path) is None
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def taken(work):
    """The bytes that some work takes at most, on top of what is there."""
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] + mx.get_peak_memory() - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("unit", [b"[", b'{"a":', b'{"a', b'{"a":1,', b'{"a":"\xf0\x9f\x98\x80'])
def test_a_file_that_is_all_header_takes_no_more_than_three_times_its_size(unit, tmp_path):
    path, size = tmp_path / "a.safetensors", 2_000_000
    text = unit * (size // len(unit)) if unit.isascii() else unit + b"a" * (size - len(unit))
    path.write_bytes(len(text).to_bytes(8, "little") + text)

    def work():
        with pytest.raises(CheckpointError, match="header"):
            fp.load(path)

    assert taken(work) < 3.05 * size


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_loading_takes_the_arrays_and_little_more_of_an_archive_and_three_times_the_file_otherwise(suffix, tmp_path):
    params = {str(i): mx.random.normal((100_000,)) for i in range(10)}
    size = fp.save(tmp_path / f"a{suffix}")(params).stat().st_size
    assert taken(lambda: fp.load(tmp_path / f"a{suffix}")) < (1.25 if suffix == ".npz" else 3.05) * size


@pytest.mark.parametrize("shape", [[0, 2**31], [0, 2**62], [2**40, 0]])
def test_a_shape_that_mlx_has_no_room_for_is_an_error_of_the_file(shape, tmp_path):
    path = fp.save(tmp_path / "a")({"a": mx.zeros((0, 111))})
    entries, metadata, _ = header_of(path)
    assert fp.load(forged(path, entries, manifest=metadata["manifest"])).params["a"].shape == (0, 111)
    entries["a"]["shape"] = shape
    with pytest.raises(CheckpointError, match="a.safetensors"):
        fp.load(forged(path, entries, manifest=metadata["manifest"]))


# damage to the newest of several


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_bit_in_the_newest_file_is_passed_over_with_a_warning(suffix, tmp_path, caplog):
    train(tmp_path, NUMBERED + suffix)
    newest, before = (tmp_path / f"ep-{epoch}{suffix}" for epoch in (2, 0))
    content, draw = newest.read_bytes(), random.Random(0)
    wrong = []
    for where in draw.sample(range(8 * len(content)), 300):
        damaged = bytearray(content)
        damaged[where // 8] ^= 1 << where % 8
        newest.write_bytes(damaged)
        if is_whole(newest):
            continue  # a bit of an archive that says nothing
        caplog.clear()
        try:
            report = train(tmp_path, NUMBERED + suffix, resume="latest", epochs=1)
        except (CheckpointError, LookupError) as error:
            wrong.append((where, repr(error)))
        else:
            if report.resume_from != str(before) or newest.name not in caplog.text:
                wrong.append((where, report.resume_from))
    assert wrong == []
