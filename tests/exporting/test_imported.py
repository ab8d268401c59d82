"""Functions that are read from files, and files that are none."""

import mlx.core as mx
import pytest

import mlx_fp as fp
from mlx_fp.core._errors import CheckpointError


@pytest.fixture
def read(tmp_path):
    """Return a function of a dict, from a file with two shapes."""
    return fp.imported(fp.export(tmp_path / "f", lambda x: x["a"] + 1, [({"a": mx.ones((n, 2))},) for n in (1, 4)]))


def test_each_shape_of_the_examples_works(read):
    assert [read({"a": mx.zeros((n, 2))}).shape for n in (4, 1, 4)] == [(4, 2), (1, 2), (4, 2)]
    assert "imported(" in repr(read)


def test_another_shape_or_dtype_is_named(read):
    with pytest.raises(ValueError, match=r"2 examples.*0.a is float32\(3, 2\), not float32\(1, 2\)"):
        read({"a": mx.zeros((3, 2))})
    with pytest.raises(ValueError, match=r"float16\(4, 2\), not float32"):
        read({"a": mx.zeros((4, 2), mx.float16)})


def test_another_structure_is_named(read):
    with pytest.raises(ValueError, match="argument 0 is dict of b, and was dict of a"):
        read({"b": mx.zeros((1, 2))})
    with pytest.raises(ValueError, match="argument 0 is not there, and was dict of a"):
        read(x={"a": mx.zeros((1, 2))})


def test_files_that_are_no_functions_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        fp.imported(tmp_path / "absent")
    (tmp_path / "text").write_text("text" * 100)
    with pytest.raises(CheckpointError, match="no function that MLX"):
        fp.imported(tmp_path / "text")
    mx.export_function(str(tmp_path / "bare"), mx.sin, mx.ones(2))
    with pytest.raises(CheckpointError, match="no layout"):
        fp.imported(tmp_path / "bare")


def test_half_a_file_is_refused(tmp_path):
    weight = mx.ones((100, 100))
    file = fp.export(tmp_path / "f", lambda x: x @ weight, mx.ones((1, 100)))
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="no function that MLX"):
        fp.imported(file)
