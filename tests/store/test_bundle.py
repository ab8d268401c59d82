"""A run in one JSON file: what goes in comes out, and what is damaged is refused by name."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn
from mlx_fp.store._bundle import SCHEMA, is_bundle

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["nan", "inf", "-inf", "=nan"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bundles")


def report(*verbs, **options):
    x = mx.random.normal((8, 4), key=mx.random.key(3))
    pair = (x, (x[:, 0] > 0).astype(mx.int32))
    target = pipe(fp.trainer(nn.linear(4, 2), fp.classification()), *verbs)
    return fp.fit([pair], **{"validation": [pair], "epochs": 2, "quiet": True, **options})(target)


def written(path, **changes):
    """A bundle on disk with other parts; None leaves a part out."""
    made = {**fp.bundle({"rows": []}), **changes}
    path.write_text(json.dumps({name: part for name, part in made.items() if part is not ...}))
    return path


# round trips


def test_a_report_comes_back(tmp_path):
    made = report()
    path = fp.save_bundle(tmp_path / "deep" / "run.json", settings={"seed": 0}, user={"note": "first"})(made)
    read = fp.read_bundle(path)
    assert read["report"] == made.to_dict()
    assert (read["settings"], read["user"], read["checkpoint"]) == ({"seed": 0}, {"note": "first"}, None)
    assert read["schema"] == SCHEMA == "mlx_fp.bundle/2"


@given(st.dictionaries(st.text(max_size=5), PLAIN, max_size=4))
def test_any_plain_values_come_back(folder, user):
    read = fp.read_bundle(fp.save_bundle(folder / "run.json", user=user)({"rows": []}))
    assert repr(read["user"]) == repr(user)  # as nan is not equal to itself


def test_numbers_that_are_not_finite_survive_and_the_file_is_strict_json(tmp_path):
    numbers = [math.inf, -math.inf, math.nan]
    path = fp.save_bundle(tmp_path / "run.json", user={"best": math.inf})({"rows": [], "losses": numbers})

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    read = fp.read_bundle(path)
    assert repr(read["report"]["losses"]) == repr(numbers)
    assert read["user"] == {"best": math.inf}


def test_words_that_look_like_numbers_stay_words(tmp_path):
    words = ["nan", "inf", "-inf", "=inf", "==nan", "infinite"]
    path = fp.save_bundle(tmp_path / "run.json", user={"words": words})({"rows": []})
    assert fp.read_bundle(path)["user"]["words"] == words


def test_tuples_become_lists_and_paths_text(tmp_path):
    path = fp.save_bundle(tmp_path / "run.json", settings={"to": Path("runs") / "a"}, user={"t": (1, 2)})({"rows": ()})
    read = fp.read_bundle(path)
    assert (read["report"]["rows"], read["settings"]["to"], read["user"]["t"]) == ([], str(Path("runs/a")), [1, 2])


def test_the_environment_says_where_it_ran():
    found = fp.bundle({"rows": []})["environment"]
    assert found.keys() == {"mlx_fp", "mlx", "python", "platform", "processor", "device", "blas", "kernels"}
    assert (found["python"], found["mlx"], found["device"]) == (platform.python_version(), mx.__version__, "cpu")


@pytest.mark.parametrize(
    ("parts", "place"),
    [
        ({"user": {"rates": [1, {"x": mx.array(1.0)}]}}, r"bundle\.user\.rates\.1\.x is array"),
        ({"user": {"fn": print}}, r"bundle\.user\.fn is builtin_function_or_method"),
        ({"user": {"s": {1, 2}}}, r"bundle\.user\.s is set"),
    ],
)
def test_what_json_has_no_form_for_is_named_and_nothing_is_written(tmp_path, parts, place):
    with pytest.raises(TypeError, match=place):
        fp.save_bundle(tmp_path / "run.json", **parts)({"rows": []})
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_takes_copies():
    settings = {"seed": 0}
    made = fp.bundle({"rows": []}, settings=settings)
    settings["seed"] = 1
    assert made["settings"] == {"seed": 0}


@pytest.mark.parametrize(
    "call",
    [
        lambda path, made: fp.save_bundle(path, made),
        lambda path, made: fp.save_bundle(made, path),
        lambda path, made: fp.save_bundle(made)(path),
        lambda path, made: fp.save_bundle(path)(path),
        lambda path, made: fp.save_bundle(path, checkpoint=None)(None),
    ],
)
def test_arguments_in_another_order_are_an_error_with_the_remedy(call, tmp_path):
    with pytest.raises(TypeError, match=r"save_bundle\(path\)\(report\): the path comes first, and the report last"):
        call(tmp_path / "run.json", {"rows": []})
    assert list(tmp_path.iterdir()) == []


# the checkpoint


def test_a_checkpoint_is_named_by_its_path_from_the_bundle_and_its_sha_256(tmp_path):
    weights = tmp_path / "weights" / "ep-1.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    path = fp.save_bundle(tmp_path / "runs" / "run.json", checkpoint=weights)({"rows": []})
    found = fp.read_bundle(path)["checkpoint"]
    assert found == {"path": "../weights/ep-1.safetensors", "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert (path.parent / found["path"]).read_bytes() == b"weights"


def test_a_checkpoint_beside_the_bundle_of_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ep-1.npz").write_bytes(b"weights")
    assert fp.read_bundle(fp.save_bundle("run.json", checkpoint="ep-1.npz")({"rows": []}))["checkpoint"]["path"] == (
        "ep-1.npz"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="links to folders need a privilege")
@pytest.mark.parametrize("linked", ["runs", "weights", "both"])
def test_a_run_goes_on_from_a_bundle_in_folders_that_are_links(tmp_path, monkeypatch, linked):
    monkeypatch.chdir(tmp_path)
    for name in ("runs", "weights"):
        if linked in (name, "both"):
            Path("real", "deep", name).mkdir(parents=True)
            Path(name).symlink_to(Path("real", "deep", name))
    first = report(fp.checkpoints("weights/ep-{epoch}"))
    path = fp.save_bundle("runs/run.json", checkpoint=first.checkpoints[-1])(first)
    again = report(epochs=3, resume=path)
    assert (again.start_epoch, again.rows[:2], again.losses) == (2, first.rows, report(epochs=3).losses)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege")
def test_a_checkpoint_that_is_a_link_keeps_its_name(tmp_path):
    (tmp_path / "blob").write_bytes(b"weights")
    (tmp_path / "ep-1.npz").symlink_to("blob")
    path = fp.save_bundle(tmp_path / "run.json", checkpoint=tmp_path / "ep-1.npz")({"rows": []})
    assert fp.read_bundle(path)["checkpoint"]["path"] == "ep-1.npz"


@pytest.mark.parametrize("name", ["run.json", "run.bundle", "run", "v1.5-best", "ep-1", "run.npz"])
def test_a_run_goes_on_from_a_bundle_of_any_name(tmp_path, name):
    first = report(fp.checkpoints(tmp_path / "ep-{epoch}"))
    path = fp.save_bundle(tmp_path / name, checkpoint=first.checkpoints[0])(first)
    again = report(epochs=3, resume=path)
    assert (again.start_epoch, again.resume_from) == (1, first.checkpoints[0])


def test_a_file_of_tensors_is_no_bundle_though_it_begins_as_json(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(ord("{").to_bytes(8, "little") + b'{"w":')
    assert not is_bundle(path)
    assert not is_bundle(fp.save(tmp_path / "a.npz")({"weight": mx.ones((3,))}))


@pytest.mark.parametrize("name", ["gone.json", "gone"])
def test_a_bundle_that_is_not_there_is_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=name):
        report(resume=tmp_path / name)


def test_a_checkpoint_that_is_not_there_is_an_error_and_nothing_is_written(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.npz"):
        fp.save_bundle(tmp_path / "run.json", checkpoint=tmp_path / "gone.npz")({"rows": []})
    assert list(tmp_path.iterdir()) == []


# what is refused


@pytest.mark.parametrize("schema", ["mlx_fp.bundle/3", "other/1", None, 1, ...])
def test_another_schema_is_refused_by_name(tmp_path, schema):
    path = written(tmp_path / "run.json", schema=schema)
    shown = None if schema is ... else schema
    with pytest.raises(ValueError, match=rf"run\.json is no run bundle of schema 'mlx_fp\.bundle/2'; .* is {shown!r}"):
        fp.read_bundle(path)


@pytest.mark.parametrize("part", ["report", "settings", "environment", "user"])
@pytest.mark.parametrize("damage", [[], None, "text", ...])
def test_a_part_that_is_not_there_or_no_dict_is_named(tmp_path, part, damage):
    with pytest.raises(ValueError, match=rf"run\.json is a run bundle without a proper '{part}'"):
        fp.read_bundle(written(tmp_path / "run.json", **{part: damage}))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"not json", b'{"schema": ', b"[" * 100_000],
    ids=["empty", "cut", "bytes", "text", "half", "deep"],
)
def test_damaged_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.json is no run bundle"):
        fp.read_bundle(path)


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = fp.save_bundle(tmp_path / "run.json")({"rows": []})
    whole = path.read_bytes()
    for end in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"run\.json"):
            fp.read_bundle(path)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"'])
def test_json_of_another_kind_is_refused_with_its_kind(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"its schema is '{type(json.loads(content)).__name__}'"):
        fp.read_bundle(path)


def test_a_file_that_is_not_there_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        fp.read_bundle(tmp_path / "run.json")


@pytest.mark.parametrize("damage", [3, "ep-1.npz", {}, {"path": "ep-1.npz"}, {"path": 1, "sha256": "a"}])
def test_a_checkpoint_without_path_and_digest_is_refused(tmp_path, damage):
    with pytest.raises(ValueError, match=r"run\.json is a run bundle whose checkpoint has no path and SHA-256"):
        fp.read_bundle(written(tmp_path / "run.json", checkpoint=damage))


def test_a_bundle_that_does_not_name_a_checkpoint_has_none(tmp_path):
    assert fp.read_bundle(written(tmp_path / "run.json", checkpoint=...))["checkpoint"] is None


def test_functions_among_settings_are_given_by_their_names(tmp_path):
    path = fp.save_bundle(tmp_path / "run.json", settings={"rate": len, "seed": 0})({"rows": []})
    assert fp.read_bundle(path)["settings"] == {"rate": "len", "seed": 0}


# older schemas

GOLDEN = Path(__file__).parent / "golden" / "bundles"
PINNED = {
    "schema-1.json": "ff9fc89a969943d4f6a77758a873b4b98876564a8212159b08468395aa1cbe26",
    "schema-2.json": "9d2e512b49c6b42786a9ebc18f782e61722d73fdfe31bda213a0f1be826d06a4",
}
"""The files of each schema, written once when it was new, and their SHA-256."""


@pytest.mark.parametrize("name", PINNED)
def test_a_bundle_of_every_schema_is_the_one_that_was_written_then_and_is_read(name):
    assert hashlib.sha256((GOLDEN / name).read_bytes()).hexdigest() == PINNED[name]
    read = fp.read_bundle(GOLDEN / name)
    assert (read["schema"], read["settings"]) == (SCHEMA, {"seed": 3, "rate": "len"})
    assert (read["user"]["note"], read["user"]["odd"]) == ("ä", [math.inf, "nan"])
    assert (read["report"]["monitor_name"], read["report"]["best_value"], len(read["report"]["rows"])) == (
        "val_accuracy",
        0.5,
        2,
    )
    assert (
        hashlib.sha256((GOLDEN / read["checkpoint"]["path"]).read_bytes()).hexdigest() == read["checkpoint"]["sha256"]
    )
    setup = read["report"]["setup"]
    assert setup is None if name == "schema-1.json" else setup["options"]["seed"] == 3


def test_every_golden_bundle_is_pinned():
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(PINNED)


def test_a_run_goes_on_from_a_bundle_of_an_older_schema(tmp_path):
    first = report(fp.checkpoints(tmp_path / "ep-{epoch}"))
    path = fp.save_bundle(tmp_path / "run.json", checkpoint=first.checkpoints[-1])(first)
    older = json.loads(path.read_text())
    del older["report"]["setup"]
    path.write_text(json.dumps({**older, "schema": "mlx_fp.bundle/1"}))
    again = report(epochs=3, resume=path)
    assert (again.start_epoch, again.losses) == (2, report(epochs=3).losses)
