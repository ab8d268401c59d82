"""Long lists among metadata are bytes of their own, encoded once; what is wrong with them is told by name."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
import zlib
from array import array

import mlx.core as mx
import pytest
from helpers import forged, header_of
from hypothesis import given
from hypothesis import strategies as st

import mlx_fp as fp
from mlx_fp.core._errors import CheckpointError
from mlx_fp.store import _packed as packed
from mlx_fp.store._checkpoint import peek
from mlx_fp.store._packed import Encoder, Floats, Rows

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=3) | st.integers(), inner)
    ),
    max_leaves=6,
)


def loaded(path, **lists):
    """What lists come back as from a file."""
    return fp.load(fp.save(path, metadata=lists)({"w": mx.array(1)})).metadata


@given(st.lists(PLAIN, max_size=80))
def test_any_plain_values_come_back(values):
    assert repr(list(Encoder()("a", tuple(values)))) == repr(values)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 200])
def test_lists_come_back_from_a_file_as_lists(tmp_path, suffix, count):
    rows = [{"epoch": i, "pair": (i, None), "odd": float("nan")} for i in range(count)]
    numbers = [i / 7 for i in range(count)]
    found = loaded(
        tmp_path / f"a{suffix}", rows=Encoder()("rows", tuple(rows)), some=Floats(array("d", numbers).tobytes())
    )
    assert repr(found["rows"]) == repr(rows)
    assert found["some"] == numbers


def test_the_header_is_as_long_for_many_rows_as_for_few(tmp_path):
    sizes = []
    for count in (100, 10_000):
        rows = Encoder()("rows", tuple({"epoch": i, "loss": 1 / (i + 1)} for i in range(count)))
        path = fp.save(tmp_path / str(count), metadata={"epoch": 3, "rows": rows})({"w": mx.array(1)})
        sizes.append(int.from_bytes(path.read_bytes()[:8], "little"))
        assert peek(path) == {"epoch": 3, "rows": None}
    assert sizes[1] - sizes[0] < 50


def test_a_chunk_is_encoded_once(monkeypatch):
    encoded, chunk = [], packed._pack_chunk
    monkeypatch.setattr(packed, "_pack_chunk", lambda values: encoded.append(len(values)) or chunk(values))
    encoder, rows = Encoder(), tuple([i] for i in range(1000))
    assert list(encoder("a", rows)) == list(rows)
    encoded.clear()
    assert encoder("a", rows) == encoder("a", rows)
    assert encoded == []
    more = (*rows, [1000])
    assert list(encoder("a", more)) == list(more)
    changed = (*more[:100], [0], *more[101:])
    assert list(encoder("a", changed)) == list(changed)
    assert list(encoder("a", changed[:50])) == list(changed[:50])
    assert list(encoder("a", changed[1:])) == list(changed[1:])
    assert encoded[:3] == [1000 % 32 + 1, 32, 50 % 32]
    assert list(encoder("b", rows)) == list(rows), "another list is another"


def test_values_that_are_equal_and_not_the_same_are_encoded_again():
    encoder = Encoder()
    assert repr(list(encoder("a", (1, 0.0)))) == "[1, 0.0]"
    assert repr(list(encoder("a", (True, -0.0)))) == "[True, -0.0]"


def test_a_row_with_an_array_is_refused_as_it_is_encoded():
    with pytest.raises(TypeError, match="a row holds an array at 'w'"):
        Encoder()("a", ({"w": mx.array(1)},))


def test_rows_that_pack_too_well_are_kept_unpacked(tmp_path):
    rows = [{"text": "a" * 100_000}] * 3
    kept = Encoder()("rows", tuple(rows))
    assert sum(map(len, kept.chunks)) > 300_000
    assert loaded(tmp_path / "a", rows=kept)["rows"] == rows


def written(path, content, kind="rows", dtype="U8"):
    """A file with a right digest and one list, of given bytes."""
    manifest = {"params": {"dict": []}, "opt_state": {"value": None}, "left_out": []}
    manifest["metadata"] = {"dict": [["rows", {kind: "t"}]]}
    entries = {"t": {"dtype": dtype, "shape": [len(content)], "data_offsets": [0, len(content)]}}
    return forged(path, entries, content, json.dumps(manifest))


def framed(chunk):
    return len(chunk).to_bytes(4, "little") + chunk


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\5\0\0\0abc", "its rows are truncated"),
        (b"\5", "its rows are"),
        (framed(b"no zlib"), "not valid compressed data"),
        (framed(zlib.compress(b"[]")[:-1]), "its rows are truncated"),
        (framed(zlib.compress(b"[]") + b"x"), "its rows are truncated"),
        (framed(zlib.compress(b"{}")), "its rows are not a list"),
        (framed(zlib.compress(b"[")), "can be read"),
        (framed(zlib.compress(b"[3]")), "its manifest is invalid"),
        (framed(zlib.compress(b'[{"array": "w"}]')), "its rows refer to the array 'w'"),
        (framed(zlib.compress(b'[{"rows": "t"}]')), "its manifest has an invalid 'rows'"),
        (framed(zlib.compress(b"[" * 100_000)), "far more memory|nested too deep"),
    ],
)
def test_what_is_wrong_with_rows_under_a_right_digest_is_told(tmp_path, content, words):
    path = written(tmp_path / "a.safetensors", content)
    with pytest.raises(CheckpointError, match=words):
        fp.load(path)


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [("floats", bytes(7), "can be read"), ("others", bytes(8), "has an invalid 'others'")],
)
def test_other_bytes_than_a_kind_has_are_refused(tmp_path, kind, content, words):
    with pytest.raises(CheckpointError, match=words):
        fp.load(written(tmp_path / "a.safetensors", content, kind))
    with pytest.raises(CheckpointError, match="has an invalid 'rows'"):
        fp.load(written(tmp_path / "b.safetensors", bytes(8), dtype="I8"))


def test_a_small_file_never_fills_the_memory(tmp_path):
    path = written(tmp_path / "a.safetensors", framed(zlib.compress(b" " * 300_000_000, 9)))
    assert path.stat().st_size < 400_000
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="far more memory than the file"):
        fp.load(path)
    assert tracemalloc.get_traced_memory()[1] < 40_000_000
    tracemalloc.stop()


def test_the_digest_of_rows_is_that_of_their_bytes_however_the_list_has_changed():
    encoder, rows = Encoder(), tuple([i] for i in range(200))
    changes = (rows[:10], rows[:64], rows[:65], rows, (*rows[:40], [0], *rows[41:]), rows[:33], (), rows[5:], rows)
    for values in changes:
        tensor = encoder("a", values).tensor
        assert tensor.sha256 == hashlib.sha256(tensor.data).hexdigest()
        assert list(encoder("a", values)) == list(values)


def test_lists_are_of_the_digest(tmp_path):
    path = fp.save(tmp_path / "a", metadata={"rows": Encoder()("rows", ({"a": 1},))})({"w": mx.array(1)})
    entries, _, payload = header_of(path)
    start, _ = entries["__mlx_fp__.metadata.rows"]["data_offsets"]
    content = bytearray(path.read_bytes())
    content[len(content) - len(payload) + start + 8] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="its digest differs"):
        fp.load(path)
    assert Rows(()).tensor.shape == (0,)
