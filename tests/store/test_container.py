"""The bytes of a checkpoint: what the digest covers, what the header may hold, and what no reader may take."""

from __future__ import annotations

import hashlib
import io
import json
import tracemalloc
import zipfile
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers import forged, header_of

import mlx_fp as fp
from mlx_fp.core import _container as container
from mlx_fp.core._errors import CheckpointError
from mlx_fp.store import _npz as npz
from mlx_fp.store._checkpoint import peek
from mlx_fp.store._folder_lock import Lock

GOLDEN = Path(__file__).parent / "golden"
TREE = {"b": mx.array([1.5, -2.0], mx.bfloat16), "a": {"c": mx.arange(6).reshape(2, 3)}}
PLACES = '{"params": {"dict": [["a", {"array": "a"}], ["b", {"array": "b"}]]}, "opt_state": {"value": null}, '
PLACES += '"metadata": {"dict": []}, "left_out": []}'


def entry(start, end, dtype="U8"):
    return {"dtype": dtype, "shape": [end - start], "data_offsets": [start, end]}


def pair():
    return {"a": entry(0, 4), "b": entry(4, 8)}


def test_the_digest_stands_in_the_metadata_and_is_made_of_all_that_the_file_holds(tmp_path):
    path = fp.save(tmp_path / "a", opt_state={"m": mx.zeros((0, 3))}, metadata={"epoch": 3})(TREE)
    entries, metadata, payload = header_of(path)
    assert metadata.keys() == {"format", "schema", "sha256", "manifest"}
    assert (metadata["format"], metadata["schema"]) == ("mlx_fp", "3")
    again = header_of(forged(tmp_path / "b.safetensors", entries, payload, metadata["manifest"]))
    assert again[1] == metadata


def changed(entries, metadata, payload, kind):
    """The parts of a file with one of them changed, all of it well formed."""
    if kind == "name":
        entries["d"] = entries.pop("b")
        metadata["manifest"] = metadata["manifest"].replace('"array": "b"', '"array": "d"')
    elif kind == "dtype":
        entries["b"]["dtype"] = "F16"
    elif kind == "shape":
        entries["a.c"]["shape"] = [3, 2]
    elif kind == "bytes":
        payload = payload[:-1] + bytes([payload[-1] ^ 1])
    elif kind == "manifest":
        metadata["manifest"] = metadata["manifest"].replace('"value": 3', '"value": 4')
    return entries, metadata, payload


@pytest.mark.parametrize("kind", ["nothing", "name", "dtype", "shape", "bytes", "manifest"])
def test_no_part_can_change_under_its_digest(kind, tmp_path):
    path = fp.save(tmp_path / "a", metadata={"epoch": 3})(TREE)
    entries, metadata, payload = changed(*header_of(path), kind)
    head = json.dumps({"__metadata__": metadata, **entries}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + payload)
    if kind == "nothing":
        assert fp.load(path).metadata["epoch"] == 3
    else:
        with pytest.raises(CheckpointError, match="its digest differs"):
            fp.load(path)


def test_the_file_is_written_and_read_by_the_package(tmp_path, monkeypatch):
    import safetensors

    used = []
    for name in ("serialize_file", "deserialize"):
        call = getattr(safetensors, name)
        monkeypatch.setattr(safetensors, name, lambda *a, name=name, call=call: used.append(name) or call(*a))
    fp.load(fp.save(tmp_path / "a")(TREE))
    assert used == ["serialize_file", "deserialize"]


def twice(made):
    """A header in which the last key stands twice."""
    text = json.dumps(made)
    return text[:-1] + ', "b": ' + json.dumps(made["b"]) + "}"


SEALED = {
    "a hole between tensors": ({"a": entry(0, 4), "b": entry(5, 9)}, 9, PLACES, None),
    "an overlap": ({"a": entry(0, 5), "b": entry(4, 8)}, 8, PLACES, None),
    "bytes at the end": (pair(), 9, PLACES, None),
    "bytes missing": (pair(), 7, PLACES, None),
    "a key twice": (pair(), 8, PLACES, twice),
    "an array without a place": ({**pair(), "c": entry(8, 8)}, 8, PLACES, None),
    "a place without an array": ({"a": entry(0, 8)}, 8, PLACES, None),
    "a dtype of others": ({"a": entry(0, 4), "b": entry(4, 8, "F8_E4M3")}, 8, PLACES, None),
    "more in an entry": ({"a": entry(0, 4), "b": {**entry(4, 8), "c": 1}}, 8, PLACES, None),
    "no list of what was left out": (pair(), 8, PLACES.replace("[]}", '["a", 3]}'), None),
}


def test_a_file_that_is_made_by_hand_loads(tmp_path):
    found = fp.load(forged(tmp_path / "a.safetensors", pair(), bytes(range(8)), PLACES))
    assert {name: array.tolist() for name, array in found.params.items()} == {"a": [0, 1, 2, 3], "b": [4, 5, 6, 7]}


@pytest.mark.parametrize("name", SEALED)
def test_what_is_wrong_is_refused_though_the_digest_is_right(name, tmp_path):
    entries, size, manifest, text = SEALED[name]
    path = forged(tmp_path / "a.safetensors", entries, bytes(range(size)), manifest, text=text)
    with pytest.raises(CheckpointError, match=r"a\.safetensors is no checkpoint that can be read"):
        fp.load(path)


def test_what_is_wrong_is_said(tmp_path):
    path = forged(tmp_path / "a.safetensors", {"a": entry(0, 4), "b": entry(4, 8, "F8_E4M3")}, bytes(8), PLACES)
    with pytest.raises(CheckpointError, match="tensor 'b' in its header has the unknown dtype 'F8_E4M3'"):
        fp.load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="its header should have .* bytes, more than there are"):
        fp.load(path)


def test_metadata_of_more_than_a_checkpoint_has_are_refused(tmp_path):
    def more(made):
        return json.dumps({**made, "__metadata__": {**made["__metadata__"], "sha256 ": "0"}})

    with pytest.raises(
        CheckpointError, match="the metadata in its header are format, manifest, schema, sha256, sha256 "
    ):
        fp.load(forged(tmp_path / "a.safetensors", pair(), bytes(8), PLACES, text=more))


@pytest.mark.parametrize("schema", [0, 4])
def test_a_schema_that_there_is_not_is_refused_by_its_number(schema, tmp_path):
    path = forged(tmp_path / "a.safetensors", pair(), bytes(8), PLACES, schema)
    with pytest.raises(CheckpointError, match=f"its schema is {schema}, and this version of mlx_fp reads 1, 2"):
        fp.load(path)


def test_a_digest_of_schema_1_that_is_not_in_its_place_is_refused(tmp_path):
    content = (GOLDEN / "schema-1.safetensors").read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    head = content[8:end].replace(b'"sha256":"', b'"sha256": "')
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + content[end:])
    with pytest.raises(CheckpointError, match="its digest is not where it should be"):
        fp.load(path)


@pytest.mark.parametrize("where", [9, 300, -1])
def test_damage_to_a_file_of_schema_1_is_seen(where, tmp_path):
    content = bytearray((GOLDEN / "schema-1.safetensors").read_bytes())
    content[where] ^= 1
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        fp.load(path)


# limits


def test_a_header_of_a_million_tensors_is_refused_at_once(tmp_path):
    each = ",".join(f'"{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(1_000_000))
    text = f'{{"__metadata__":{{"format":"mlx_fp"}},{each}}}'.encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(CheckpointError, match=r"a\.safetensors .* more than 100,000 tensors, and that is the limit"):
        fp.load(path)
    assert peek(path) is None


def test_a_header_of_names_alone_is_refused_at_once(tmp_path):
    text = ("{" + ",".join(f'"{i}" : {{}}' for i in range(300_000)) + "}").encode() + b" " * 10
    text = text.replace(b"}}", b"}," + b",".join(b'"x%d":1' % i for i in range(300_000)) + b"}")
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(CheckpointError, match="more names than 100,000 tensors have"):
        fp.load(path)


def test_the_limit_of_tensors_is_named_when_they_are_saved_and_holds_when_they_are_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "MOST_TENSORS", 3)
    path = fp.save(tmp_path / "a", metadata={"data_offsets": '"data_offsets"'})([mx.array(i) for i in range(3)])
    assert len(fp.load(path).params) == 3
    with pytest.raises(ValueError, match="at most 3 arrays; got 4"):
        fp.save(path)([mx.array(i) for i in range(4)])
    assert len(fp.load(path).params) == 3
    monkeypatch.setattr(container, "MOST_TENSORS", 2)
    with pytest.raises(CheckpointError, match="more than 2 tensors"):
        fp.load(path)


def test_the_limit_of_a_header_is_named_when_it_is_saved_and_when_it_is_read(tmp_path, monkeypatch):
    path = fp.save(tmp_path / "a", metadata={"text": '"' * 3_000})({})
    monkeypatch.setattr(container, "LONGEST_HEADER", 2_000)
    with pytest.raises(ValueError, match="in at most 2,000 bytes; these take"):
        fp.save(path, metadata={"text": '"' * 900})({})
    with pytest.raises(CheckpointError, match="its header has .* bytes, and the limit is 2000"):
        fp.load(path)


MANY = ",".join(["[]"] * 2_000_001)
DEEP = {
    "lists in a header": (f'{{"a":[{MANY}]}}', None),
    "values in a header": ('{"a":[' + "1," * 4_000_001 + "1]}", None),
    "lists in a manifest": (None, f'{{"params":[{MANY}]}}'),
    "lists in a manifest that hides them": (None, '{"params":[' + MANY.replace("[", "HIDDEN") + "]}"),
}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.usual("lists in a header", "values in a header")
def test_a_text_of_too_many_parts_is_refused_before_it_fills_the_memory(name, tmp_path):
    text, manifest = DEEP[name]
    path = tmp_path / "a.safetensors"
    if manifest is None:
        path.write_bytes(len(text).to_bytes(8, "little") + text.encode())
    else:
        hidden = manifest.replace("HIDDEN", "[")
        forged(path, {}, manifest=hidden, text=lambda made: json.dumps(made).replace("[", "\\u005b"))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="more than .* (lists and dicts|values) describe it, and that is the"):
            fp.load(path)
        assert peek(path) is None
        assert tracemalloc.get_traced_memory()[1] < 6 * path.stat().st_size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_description_of_too_many_parts_is_refused_when_it_is_saved(suffix, tmp_path):
    with pytest.raises(ValueError, match="more than 2,000,000 lists and dicts describe it"):
        fp.save(tmp_path / f"a{suffix}", metadata={"text": "[" * 2_000_001})({})
    assert list(tmp_path.iterdir()) == []


NAMES = ["ä", "层.0.重", "\U0001f600", 'a"b', "a\\", "é" * 100]


def test_names_of_any_script_are_kept_and_read_by_others(tmp_path):
    params = {name: mx.array([i]) for i, name in enumerate(NAMES)}
    path = fp.save(tmp_path / "a")(params)
    assert {name: array.item() for name, array in fp.load(path).params.items()} == dict(
        zip(NAMES, range(6), strict=True)
    )
    assert mx.load(str(path))["层.0.重"].item() == 1


def test_a_name_of_many_wide_characters_is_no_name(tmp_path):
    text = '{"' + "\U0001f600" * 300 + '":1}'
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text.encode()).to_bytes(8, "little") + text.encode())
    with pytest.raises(CheckpointError, match="a name longer than any that mlx_fp writes"):
        fp.load(path)


# archives


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archived(path, parts):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def test_an_archive_that_is_packed_anew_loads(tmp_path):
    path = fp.save(tmp_path / "a.npz")(TREE)
    assert fp.load(archived(path, members(path))).params["a"]["c"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_member_by_columns_is_refused(tmp_path):
    path = fp.save(tmp_path / "a.npz")(TREE)
    parts = members(path)
    parts["a.c.npy"] = parts["a.c.npy"].replace(b"'fortran_order': False", b"'fortran_order': True ")
    with pytest.raises(CheckpointError, match="tensor 'a.c' is no I32"):
        fp.load(archived(path, parts))


def test_a_member_that_no_tensor_names_is_refused(tmp_path):
    path = fp.save(tmp_path / "a.npz")(TREE)
    with pytest.raises(CheckpointError, match="members without a name"):
        fp.load(archived(path, {**members(path), "more.npy": b""}))


def listing(path, found):
    """An archive of one small member and of what is listed of tensors."""
    info = json.dumps({"schema": 2, "sha256": "", "tensors": found})
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {npz._MANIFEST: PLACES, npz._INFO: info, "a": "a"}.items():
            npz._write_member(archive, name, np.frombuffer(text.encode(), np.uint8))
    return path


@pytest.mark.parametrize("found", [[["U8", "a", "a"], ["U8", "a", "b"]], [["U8", "a", "a"]] * 300_000])
@pytest.mark.usual("found0")
def test_a_member_is_read_for_one_tensor_alone(found, tmp_path, monkeypatch):
    path, read = listing(tmp_path / "a.npz", found), []
    whole = zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, name: read.append(name) or whole(self, name))
    with pytest.raises(CheckpointError, match="members without a name, or with several names"):
        fp.load(path)
    assert len(read) == 2


def test_an_archive_of_more_members_than_a_checkpoint_has_tensors_is_refused(tmp_path, monkeypatch):
    path = fp.save(tmp_path / "a.npz")([mx.array(i) for i in range(5)])
    monkeypatch.setattr(npz, "MOST_TENSORS", 4)
    with pytest.raises(CheckpointError, match="it has more than 4 tensors, and that is the limit"):
        fp.load(path)
    assert peek(path) is None


def test_members_that_stand_for_one_another_are_refused_before_they_fill_the_memory(tmp_path):
    count, array = 50, io.BytesIO()
    np.save(array, np.zeros(10_000, np.uint8))
    told = json.dumps(
        {
            "params": {"list": [{"array": str(i)} for i in range(count)]},
            "opt_state": {"value": None},
            "metadata": {"dict": []},
            "left_out": [],
        }
    )
    digest = hashlib.sha256(told.encode())
    for i in range(count):
        digest.update(f"\0{i}\0U8\0(10000,)\0".encode() + bytes(10_000))
    listed = [["U8", "a", str(i)] for i in range(count)]
    info = json.dumps({"schema": 2, "sha256": digest.hexdigest(), "tensors": listed})
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {npz._MANIFEST: told, npz._INFO: info}.items():
            npz._write_member(archive, name, np.frombuffer(text.encode(), np.uint8))
        archive.writestr("a.npy", array.getvalue())
        archive.filelist += [archive.getinfo("a.npy")] * (count - 1)
    assert path.stat().st_size < 30_000
    with pytest.raises(CheckpointError, match="one stands for another"):
        fp.load(path)


# the lock


def test_the_lock_says_who_holds_it_and_nothing_of_who_held_it_before(tmp_path):
    (tmp_path / ".mlx_fp.lock").write_text("process 123456789 on a host of a very long name, and more")
    one, other = Lock(tmp_path), Lock(tmp_path)
    one.take()
    with pytest.raises(BlockingIOError) as caught:
        other.take()
    assert "very long" not in str(caught.value)
    one.give_back()


@pytest.mark.parametrize("offsets", [[0, 5], [-1, 3], [3, 2], [0], "ab", [0.0, 1.0], None], ids=repr)
def test_the_place_of_a_tensor_lies_within_its_file(offsets):
    def file(places):
        header = json.dumps({"a": {"dtype": "U8", "shape": [4], "data_offsets": places}}).encode()
        return io.BytesIO(len(header).to_bytes(8, "little") + header + b"abcd"), 8 + len(header)

    whole, start = file([0, 4])
    assert container.read_places(whole) == ({}, {"a": range(start, start + 4)})
    with pytest.raises(ValueError, match="tensor 'a' in its header has the offsets"):
        container.read_places(file(offsets)[0])
