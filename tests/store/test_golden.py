"""A file of every released schema loads for ever, to the values it was written with.

`golden/schema-N.safetensors` and `golden/schema-N.npz` were written once, when schema N was new, by

    python tests/store/test_golden.py

which never writes over a file. For a new schema, raise NUMBER, run it again, and pin the new file beside the old ones.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import mlx.core as mx
import pytest

import mlx_fp as fp

NUMBER = 3
FOLDER = Path(__file__).parent / "golden"
FILES = {
    "schema-1.safetensors": "cac66d4a10bdf82ece1ac46b35f355c5cc510166d94a5c04371a168c5755d490",
    "schema-1.npz": "c29a088c6c82c9457a67b79f8f8ea16194bde907825da296a893bc749f94bef0",
    "schema-2.safetensors": "f06c4a100b72ea91d7554da03bba3646169aa85ed6caaf61b7144337dc4a7c95",
    "schema-2.npz": "251ad67af6c7f979f4c6d04adccf1269ddd447e19896f16cb38a96549f9cd27c",
    "schema-3.safetensors": "27dbd2470ff1485e3964594c911d984d63c9870d6e712d1f43e13bff0672f6b3",
    "schema-3.npz": "082ac837da3bbd0a0165f697ddf1ab40bb24ed5577d1813f7d21da0880e06b1c",
}
DTYPES = {
    "bool_": "000100",
    "uint8": "0001ff",
    "uint16": "00000100ffff",
    "uint32": "0000000001000000ffffffff",
    "uint64": "00000000000000000100000000000000ffffffffffffffff",
    "int8": "0001ff",
    "int16": "00000100ffff",
    "int32": "0000000001000000ffffffff",
    "int64": "00000000000000000100000000000000ffffffffffffffff",
    "float16": "0080003c017e",
    "bfloat16": "0080803fc17f",
    "float32": "000000800000803f0100c07f",
    "float64": "0000000000000080000000000000f03f010000000000f87f",
    "complex64": "00000080000000000000803f000000000000807f0100c07f",
}
"""Three numbers of each dtype, as bytes: -0.0, 1.0 and a NaN with a payload where there are such."""

METADATA = {
    "epoch": 3,
    "big": 2**70,
    "none": None,
    "flags": (True, False),
    "odd": [float("inf"), float("-inf"), -0.0, 1e-320],
    "texts": {"ä": "\0 \ud7ff \U0001f600", "": "", "empty": {}},
    3: "an integer key",
}


LISTS = {
    "rows": [
        {"epoch": i, "metrics": {"a": i / 3, "table": [[i, None]]}, "odd": (float("nan"), "ä")} for i in range(70)
    ],
    "floats": [0.1, -0.0, float("inf"), float("nan"), 1e-320],
}
"""Long lists, which schema 3 packs."""


def metadata(schema):
    """The metadata that a file of a schema holds."""
    return METADATA if schema < 3 else {**METADATA, "lists": LISTS}


def written():
    """The metadata as this schema is given them."""
    from array import array as numbers

    from mlx_fp.store._packed import Encoder, Floats

    packed = {
        "rows": Encoder()("rows", tuple(LISTS["rows"])),
        "floats": Floats(numbers("d", LISTS["floats"]).tobytes()),
    }
    return {**METADATA, "lists": packed}


def array(name, text):
    """An array of a dtype with given bytes."""
    raw = mx.array(list(bytes.fromhex(text)), mx.uint8)
    return raw.view(getattr(mx, name)) if name != "bool_" else raw != 0


def params():
    return {
        "dtypes": {name: array(name, text) for name, text in DTYPES.items()},
        "layers": [{"weight": mx.array([[1.5, -2.5], [3.5, -4.5]])}, {}, {"weight": mx.array(7)}],
        "pair": (mx.zeros((0, 3)), None, 2.5),
        "a.b": mx.array([1]),
        "a": {"b": mx.array([2])},
        "0": mx.array([3]),
        "": mx.array([4]),
        "ä/..": mx.array([5]),
        "__metadata__": mx.array([6]),
        "file": mx.array([7]),
        "x" * 300: mx.array([8]),
    }


def opt_state():
    return {
        "optimizer": {"step": mx.array(9, mx.uint64), "learning_rate": mx.array(0.1)},
        "rng": mx.array([1, 2], mx.uint32),
    }


def same(a, b):
    """Whether two trees have one structure and the same bits."""
    if isinstance(a, mx.array):
        raw = [one.view(mx.uint8) if one.size and one.ndim else one for one in (a, b)]
        return (a.dtype, a.shape) == (b.dtype, b.shape) and mx.array_equal(*raw).item()
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


@pytest.mark.parametrize("name", FILES)
def test_a_golden_file_loads_to_what_was_written(name):
    found = fp.load(FOLDER / name)
    with mx.stream(mx.cpu):
        assert same(found.params, params())
        assert same(found.opt_state, opt_state())
    assert same(dict(found.metadata), metadata(int(name[len("schema-")])))
    assert found.left_out == ()


@pytest.mark.parametrize("name", FILES)
def test_a_golden_file_is_the_one_that_was_written_then(name):
    assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == FILES[name]


@pytest.mark.parametrize("schema", ["1", "2", "3"])
def test_other_tools_find_the_parameters_of_a_golden_file(schema):
    from safetensors import safe_open

    with safe_open(FOLDER / f"schema-{schema}.safetensors", framework="np") as file:
        assert file.metadata()["schema"] == schema
        assert file.get_tensor("layers.0.weight").tolist() == [[1.5, -2.5], [3.5, -4.5]]


def test_every_golden_file_is_pinned():
    assert sorted(path.name for path in FOLDER.iterdir() if path.is_file()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_what_is_loaded_from_a_golden_file_can_be_written_again(name, tmp_path):
    shutil.copy(FOLDER / name, tmp_path / name)
    one = fp.load(tmp_path / name)
    other = fp.load(fp.save(tmp_path / name, opt_state=one.opt_state, metadata=one.metadata)(one.params))
    with mx.stream(mx.cpu):
        assert same([one.params, one.opt_state, one.metadata], [other.params, other.opt_state, other.metadata])


def main():
    """Write the files of this schema, unless they are there."""
    for suffix in (".safetensors", ".npz"):
        path = FOLDER / f"schema-{NUMBER}{suffix}"
        if path.exists():
            raise FileExistsError(f"{path} is there, and golden files are never written again")
        fp.save(path, opt_state=opt_state(), metadata=written())(params())


if __name__ == "__main__":
    with mx.stream(mx.cpu):
        main()
