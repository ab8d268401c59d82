"""Checkpoints come back bit for bit, whole or not at all, and never a damaged one."""

from __future__ import annotations

import builtins
import os
import random
import subprocess
import sys

import mlx.core as mx
import mlx.nn
import mlx.utils
import numpy as np
import pytest
from drawn import examples
from helpers import child_env, run_python
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.core._errors import CheckpointError
from mlx_fp.core._tensors import DTYPES, as_tensor

SUFFIXES = (".safetensors", ".npz")


def made(dtype, kind):
    """An array of a dtype: of each rank, empty, and with strides that are not its own."""
    base = (mx.arange(24) % 2 if dtype == mx.bool_ else mx.arange(24)).astype(dtype)
    return {
        "1-d": lambda: base,
        "2-d": lambda: base.reshape(4, 6),
        "0-d": lambda: base[7],
        "empty": lambda: base[:0].reshape(0, 3),
        "transposed": lambda: base.reshape(4, 6).T,
        "strided": lambda: base[1::3],
        "broadcast": lambda: mx.broadcast_to(base[5], (2, 3)),
    }[kind]()


def same(a, b):
    """Whether two trees have one structure and the same bits."""
    if isinstance(a, mx.array):
        one, other = as_tensor(a), as_tensor(b)
        return (one.dtype, one.shape, bytes(one.data)) == (other.dtype, other.shape, bytes(other.data))
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)


KINDS = ["1-d", "2-d", "0-d", "empty", "transposed", "strided", "broadcast"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_and_stride_comes_back_bit_for_bit(name, suffix, tmp_path):
    with mx.stream(mx.cpu):
        tree = {kind: made(DTYPES[name], kind) for kind in KINDS}
        assert same(fp.load(fp.save(tmp_path / f"a{suffix}")(tree)).params, tree)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_odd_bits_come_back(suffix, tmp_path):
    bits = mx.array([0x7FC00001, 0xFF800001, 0x80000000, 0x00000001, 0x7F800000], mx.uint32)
    tree = {"f32": bits.view(mx.float32), "bf16": mx.array([0x7FC1, 0x8000], mx.uint16).view(mx.bfloat16)}
    assert same(fp.load(fp.save(tmp_path / f"a{suffix}")(tree)).params, tree)


KEYS = st.one_of(st.text(max_size=6), st.sampled_from(["a.b", "0", "a", "__metadata__", "", "ä", "\0", "file", "a/b"]))
LEAVES = st.one_of(
    st.integers(0, 3).map(lambda n: mx.arange(n, dtype=mx.int32)),
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(st.integers(-3, 3), inner, max_size=2),
    ),
    max_leaves=8,
)


@examples(80)
@given(TREES, TREES, st.sampled_from(SUFFIXES))
def test_any_tree_comes_back_as_it_was(tmp_path_factory, params, state, suffix):
    path = fp.save(tmp_path_factory.mktemp("any") / f"a{suffix}", opt_state=state)(params)
    back = fp.load(path)
    assert same(back.params, params)
    assert same(back.opt_state, state)


def test_metadata_come_back_with_their_odd_numbers(tmp_path):
    told = {"epoch": 3, "best": float("nan"), "cursor": [1, 2], "name": "x", "none": None, "big": 2**63}
    back = fp.load(fp.save(tmp_path / "a", metadata=told)({})).metadata
    assert same(dict(back), told)


def test_other_tools_read_the_parameters(tmp_path):
    model = nn.sequential(nn.linear(3, 4), nn.batch_norm(4), nn.linear(4, 2))
    params = nn.init(0)(model)
    state = optim.adam(1e-3).init(params)
    path = fp.save(tmp_path / "a", opt_state=state)(params)
    with safe_open(path, framework="np") as file:
        assert file.metadata()["format"] == "mlx_fp"
        for name, array in fp.flat(params).items():
            assert np.array_equal(file.get_tensor(name), np.array(array))
    module = mlx.nn.Sequential(mlx.nn.Linear(3, 4), mlx.nn.BatchNorm(4), mlx.nn.Linear(4, 2))
    module.load_weights(str(path), strict=False)
    assert same(dict(mlx.utils.tree_flatten(module.parameters())), fp.flat(params))
    loaded = mx.load(str(path))
    assert same(loaded["layers.0.weight"], params["layers"][0]["weight"])


def test_a_name_without_a_suffix_is_a_safetensors_file_and_is_found_first(tmp_path):
    fp.save(tmp_path / "run.npz")({"a": mx.array(1)})
    assert fp.load(tmp_path / "run").params["a"].item() == 1
    assert fp.save(tmp_path / "run")({"a": mx.array(2)}).name == "run.safetensors"
    assert fp.load(tmp_path / "run").params["a"].item() == 2
    assert fp.save(tmp_path / "ep-0.25")({}).name == "ep-0.25.safetensors"
    with pytest.raises(FileNotFoundError, match=r"none.safetensors or .*none.npz"):
        fp.load(tmp_path / "none")
    with pytest.raises(ValueError, match=r"ends in .safetensors or .npz; got 'a.pkl'"):
        fp.save(tmp_path / "a.pkl")({})


@pytest.mark.parametrize("odd", [object(), np.ones(2), {1.5: mx.array(1)}, b"bytes", {3}])
def test_what_cannot_be_kept_is_refused_before_anything_is_written(odd, tmp_path):
    with pytest.raises(TypeError, match=r"x"):
        fp.save(tmp_path / "deep" / "a")({"x": odd})
    assert list(tmp_path.iterdir()) == []


def test_what_was_loaded_owes_nothing_to_the_file(tmp_path):
    for suffix in SUFFIXES:
        path = fp.save(tmp_path / f"a{suffix}")({"a": mx.arange(1000)})
        back = fp.load(path).params
        path.write_bytes(b"\0" * path.stat().st_size)
        path.unlink()
        assert mx.array_equal(back["a"], mx.arange(1000))


def damaged(content, draw):
    """A file with one thing wrong."""
    where = draw.randrange(len(content))
    kind = draw.choice(["flip", "cut", "zero", "shift", "grow", "swap"])
    if kind == "flip":
        return content[:where] + bytes([content[where] ^ (1 << draw.randrange(8))]) + content[where + 1 :]
    if kind == "cut":
        return content[:where]
    if kind == "zero":
        end = min(where + draw.randrange(1, 64), len(content))
        return content[:where] + b"\0" * (end - where) + content[end:]
    if kind == "shift":
        return content[:where] + b"\1" + content[where:]
    if kind == "grow":
        return content + bytes(draw.randrange(1, 64))
    other = draw.randrange(len(content))
    one, two = sorted((where, other))
    return content[:one] + content[two:] + content[one:two]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.usual(".safetensors")
def test_no_damage_is_loaded_in_silence(suffix, tmp_path):
    tree = {"weight": mx.random.normal((8, 8)), "bias": mx.zeros((8,)), "deep": [{"a": mx.array(1.0)}]}
    path = fp.save(tmp_path / f"a{suffix}", opt_state={"step": mx.array(7)}, metadata={"epoch": 3})(tree)
    content, draw, silent = path.read_bytes(), random.Random(0), 0
    before = fp.load(path)
    for _ in range(400):
        bad = damaged(content, draw)
        path.write_bytes(bad)
        try:
            back = fp.load(path)
        except CheckpointError as error:
            silent += str(path) not in str(error)
            continue
        intact = same([back.params, back.opt_state, back.metadata], [before.params, before.opt_state, before.metadata])
        silent += not intact
    assert silent == 0


HOSTILE = {
    "empty": b"",
    "a huge length": (2**63 - 1).to_bytes(8, "little") + b"{}",
    "a deep header": (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "no object": (2).to_bytes(8, "little") + b"[]",
    "a shape that wraps": None,
    "negative": None,
    "an overlap": None,
    "a key twice": None,
    "a foreign file": None,
}
HEADERS = {
    "a shape that wraps": '{"a":{"dtype":"F32","shape":[4294967300],"data_offsets":[0,16]}}',
    "negative": '{"a":{"dtype":"F32","shape":[-2,-2],"data_offsets":[0,16]}}',
    "an overlap": '{"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]},'
    '"b":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}}',
    "a key twice": '{"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]},'
    '"a":{"dtype":"I8","shape":[16],"data_offsets":[0,16]}}',
    "a foreign file": '{"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_name(name, tmp_path):
    text = HEADERS.get(name, "").encode()
    content = HOSTILE[name] if text == b"" else len(text).to_bytes(8, "little") + text + b"\0" * 16
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="a.safetensors"):
        fp.load(tmp_path / "a")


class Bomb:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_nothing_is_ever_unpickled(tmp_path, monkeypatch):
    import pickle

    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(pickle.dumps(Bomb()))
    np.savez(tmp_path / "b.npz", x=np.array([Bomb()], dtype=object))
    np.save(tmp_path / "c.npy", np.array([Bomb()], dtype=object))
    (tmp_path / "c.npy").rename(tmp_path / "c.npz")
    for name in ("a.safetensors", "b.npz", "c.npz"):
        with pytest.raises(CheckpointError, match=name):
            fp.load(name)
    assert not (tmp_path / "executed").exists()


def test_it_works_where_pickle_raises(tmp_path):
    code = f"""
import sys, builtins
import numpy, mlx.core as mx, mlx_fp as fp
fp.save, fp.load
sys.modules["pickle"].loads = sys.modules["pickle"].load = sys.modules["pickle"].dumps = lambda *a, **k: 1 / 0
for suffix in (".safetensors", ".npz"):
    path = fp.save({str(tmp_path)!r} + "/a" + suffix)({{"a": mx.arange(3)}})
    print(fp.load(path).params["a"].tolist())
"""
    assert run_python(code, timeout=60).split("\n")[:2] == ["[0, 1, 2]"] * 2


def test_a_newer_schema_is_refused_by_its_number(tmp_path, monkeypatch):
    from mlx_fp.store import _checkpoint as checkpoint

    monkeypatch.setattr(checkpoint, "SCHEMA", 99)
    paths = [fp.save(tmp_path / f"a{suffix}")({"a": mx.array(1)}) for suffix in SUFFIXES]
    monkeypatch.undo()
    for path in paths:
        with pytest.raises(CheckpointError, match="its schema is 99, and this version of mlx_fp reads 1, 2"):
            fp.load(path)


# the order of arguments, and what is left out


@pytest.mark.parametrize(
    "call",
    [
        lambda path: fp.save(path, {"a": mx.array(1)}),
        lambda path: fp.save(path, {"a": mx.array(1)}, opt_state={}),
        lambda path: fp.save({"a": mx.array(1)}),
        lambda path: fp.save({"a": mx.array(1)}, path),
    ],
)
def test_the_old_order_of_arguments_is_an_error_with_the_remedy(call, tmp_path):
    with pytest.raises(TypeError, match=r"save\(path\)\(params\): the parameters come last, in a call of their own"):
        call(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_one_definition_saves_several_trees_one_after_the_other(tmp_path):
    write = fp.save(tmp_path / "a", metadata={"epoch": 3})
    for n in range(2):
        assert fp.load(write({"a": mx.array(n)})).params["a"].item() == n


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_not_selected_is_left_out_and_named(suffix, tmp_path):
    params = {"body": [{"weight": mx.ones((100, 100))}, {}], "head": {"weight": mx.ones((2,)), "bias": mx.zeros(2)}}
    path = fp.save(tmp_path / f"a{suffix}", select=fp.under("head"))(params)
    assert path.stat().st_size < 4_000
    held = fp.load(path)
    assert held.left_out == ("body.0.weight",)
    assert list(fp.flat(held.params)) == ["head.weight", "head.bias"]
    whole = fp.merge(held.params, fp.partition(list(held.left_out))(params)[0])
    assert same(whole, params)
    assert fp.load(fp.save(path)(params)).left_out == ()


def test_a_path_that_begins_with_a_tilde_is_in_the_home_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert fp.save("~/runs/a")({"a": mx.array(1)}) == tmp_path / "runs" / "a.safetensors"
    assert fp.load("~/runs/a").path == tmp_path / "runs" / "a.safetensors"
    path = fp.save_bundle("~/run.json", checkpoint="~/runs/a.safetensors")({"rows": []})
    assert path == tmp_path / "run.json"
    assert fp.read_bundle("~/run.json")["checkpoint"]["path"] == "runs/a.safetensors"
    assert fp.read_bundle("~/run.json")["folder"] == str(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["run.json", "runs"]


@pytest.mark.parametrize("name", ["x.pkl", "x", "x.pt"])
def test_a_file_that_is_there_and_of_another_kind_is_said_to_be_so(name, tmp_path):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(
        CheckpointError, match=rf"{name} is no checkpoint: the name of one ends in .safetensors or .npz"
    ):
        fp.load(tmp_path / name)
    fp.save(tmp_path / f"{name}.npz")({"a": mx.array(1)})
    assert fp.load(tmp_path / name).params["a"].item() == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_the_system_cannot_read_is_no_damaged_one(suffix, tmp_path, monkeypatch):

    path = fp.save(tmp_path / f"a{suffix}")({"a": mx.array(1)})

    def broken(name, *args):
        raise OSError(5, "Input/output error", str(name))

    monkeypatch.setattr(os, "open", broken)
    with pytest.raises(OSError, match="Input/output error") as caught:
        fp.load(path)
    assert not isinstance(caught.value, CheckpointError)


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = fp.save(tmp_path / "a")({"a": mx.array(1)})
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match="No space left") as caught:
                fp.save(path)({"a": mx.array(2)})
            assert caught.value.errno == 28
            assert caught.value.filename == str(path)
    assert fp.load(path).params["a"].item() == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_two_thousand_loads_hold_no_files(tmp_path):
    import resource

    path = fp.save(tmp_path / "a")({"a": mx.arange(3)})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        kept = [fp.load(path) for _ in range(600)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(kept) == 600
    assert builtins.sum(one.params["a"][1].item() for one in kept) == 600


def test_a_reader_never_sees_a_torn_file_while_one_writes(tmp_path):
    path = fp.save(tmp_path / "a")({"a": mx.zeros((20_000,)), "n": mx.array(0)})
    code = f"""
import mlx.core as mx, mlx_fp as fp
for n in range(1, 60):
    fp.save({str(path)!r})({{"a": mx.full((20_000,), n), "n": mx.array(n)}})
"""
    writer = subprocess.Popen([sys.executable, "-c", code], env=child_env())
    seen = []
    while writer.poll() is None:
        params = fp.load(path).params
        assert mx.all(params["a"] == params["n"]).item()
        seen.append(params["n"].item())
    assert writer.returncode == 0
    assert seen == sorted(seen)
    assert len(set(seen)) > 1
