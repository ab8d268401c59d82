"""`mlx-fp show`: the arrays and the metadata of a file, ours or not."""

from __future__ import annotations

import mlx.core as mx
import pytest
from commands import called, refused, write_experiment

import mlx_fp as fp


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


PARAMS = {"head": {"weight": mx.zeros((3, 2), mx.bfloat16), "bias": mx.zeros((3,))}, "count": mx.array(7)}


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_checkpoint_is_a_table_of_arrays_and_metadata(suffix):
    state = {"step": mx.array(2, mx.uint64)}
    fp.save(f"model{suffix}", opt_state=state, metadata={"epoch": 3, "words": "x" * 200})(PARAMS)
    ended = called("show", f"model{suffix}")
    assert ended.status == 0
    assert ended.lines[0].split() == [f"model{suffix}", "shape", "dtype", "bytes"]
    assert ended.row("head.weight") == ["head.weight", "3×2", "bfloat16", "12"]
    assert ended.row("head.bias") == ["head.bias", "3", "float32", "12"]
    assert ended.row("count") == ["count", "()", "int32", "4"]
    assert ended.row("__mlx_fp__.opt_state.step") == ["__mlx_fp__.opt_state.step", "()", "uint64", "8"]
    assert "3 arrays of parameters with 10 elements, 28 B; 1 other array, 8 B" in ended.lines
    assert ended.row("epoch") == ["epoch", "3"]
    assert len(ended.row("words")[1]) == 100


def test_the_suffix_may_be_missing_and_a_file_of_others_is_shown_too():
    mx.save_safetensors("weights.safetensors", {"w": mx.ones((2, 2), mx.float16)})
    ended = called("show", "weights")
    assert ended.row("w") == ["w", "2×2", "float16", "8"]
    assert ended.lines[-1] == "1 array of parameters with 4 elements, 8 B"


def test_of_a_run_the_newest_checkpoint_is_shown(tmp_path):
    write_experiment(tmp_path)
    called("run", "train.py", "-q", "--out", "here")
    ended = called("show", "here")
    assert ended.lines[0].split()[0] == "here/step-8.safetensors"
    assert ended.row("step") == ["step", "8"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("modle.safetensors", "there is no checkpoint 'modle.safetensors': did you mean 'model.safetensors'?"),
        ("empty", "the folder 'empty' has no checkpoint: no file ends in .safetensors or .npz"),
        ("notes.txt", "notes.txt is no checkpoint: the name of one ends in .safetensors or .npz"),
        ("bad.safetensors", "bad.safetensors cannot be shown: its header should have "),
        ("bad.npz", "bad.npz cannot be shown: "),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, path, text):
    fp.save("model.safetensors")(PARAMS)
    (tmp_path / "empty").mkdir()
    for name in ("notes.txt", "bad.safetensors", "bad.npz"):
        (tmp_path / name).write_text("no arrays at all")
    assert refused("show", path).startswith(text)
