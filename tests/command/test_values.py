"""Settings of a command line and of TOML files: literals, kinds, paths, and the nearest right one."""

from __future__ import annotations

import pytest
from commands import called, refused, write_experiment

from mlx_fp.command._loading import loaded_experiment
from mlx_fp.command._values import changes_of, grid_of


@pytest.fixture(autouse=True)
def _project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_experiment(tmp_path)


@pytest.fixture
def sums():
    with loaded_experiment("train.py") as target:
        yield target


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("optimizer.learning_rate=1e-5", 1e-5),
        ("optimizer.momentum=-1", -1),
        ("steps=None", None),
        ("steps= 30", 30),
        ("model.activation=tanh", "tanh"),
        ("model.activation='tanh'", "tanh"),
        ("model.activation=3", "3"),
        ("model.activation=", ""),
        ("model.sizes=[1, 2]", [1, 2]),
        ("model.sizes=a=b", "a=b"),
        ("data.shuffle=False", False),
        ("model.dropout=0", 0),
    ],
)
def test_a_value_is_a_python_literal_or_else_text(sums, word, value):
    path = word.partition("=")[0]
    found = changes_of(sums, [word], [])[path]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("epohcs=3", "unknown setting 'epohcs': did you mean 'epochs'? known: epochs, steps, seed, "),
        ("optimizer.lr=0.1", "unknown setting 'optimizer.lr': did you mean 'optimizer.learning_rate'?"),
        ("epochs", "a setting is given as path=value; got 'epochs'"),
        ("epochs=three", "epochs is a number, 2 by default; got 'three'"),
        ("epochs=True", "epochs is a number, 2 by default; got True"),
        ("data.shuffle=yes", "data.shuffle is True or False, True by default; got 'yes': did you mean True?"),
        ("data.shuffle=0", "data.shuffle is True or False, True by default; got 0: did you mean False?"),
        ("data.shuffle=5", "data.shuffle is True or False, True by default; got 5"),
        (
            "epochs=2.5",
            "the experiment cannot be built with epochs=2.5: epochs of a run is a count, 0 or more, or None",
        ),
        ("data.batch_size=0", "the experiment cannot be built with data.batch_size=0: the n of batch(n) must be"),
        ("optimizer.learning_rate=-1", "the experiment cannot be built with optimizer.learning_rate=-1: learning_rate"),
        ("early_stop.patience=-3", "the experiment cannot be built with early_stop.patience=-3: "),
        ("with_options.log_every=0", "the experiment cannot be built with with_options.log_every=0: log_every of"),
        ("model.dropout=2", "the experiment cannot be built with model.dropout=2: "),
        (
            "model.activation=gelo",
            "the experiment cannot be built with model.activation='gelo': unknown name in mlx_fp.nn 'gelo': "
            "did you mean 'gelu'? known: ",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_with_the_nearest_right_one(word, text):
    assert refused("run", "train.py", word, "--out", "nowhere").startswith(text)


def test_a_toml_file_has_tables_or_paths_and_words_take_precedence(tmp_path, sums):
    one, other = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text('epochs = 3\nseed = 4\n[model]\nactivation = "tanh"\nwidth = 8\n[data]\nshuffle = false\n')
    other.write_text('"optimizer.learning_rate" = 1e-3\nmodel.width = 16\nepochs = 5\n')
    assert changes_of(sums, ["epochs=7"], [one, other]) == {
        "epochs": 7,
        "seed": 4,
        "model.activation": "tanh",
        "model.width": 16,
        "data.shuffle": False,
        "optimizer.learning_rate": 1e-3,
    }


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("epochs = ", "over.toml is no TOML file: Invalid value (at end of document)"),
        ("[model]\nwitdh = 3", "over.toml: unknown setting 'model.witdh': did you mean 'model.width'?"),
        ("[modle]\nwidth = 3", "over.toml: unknown setting 'modle': did you mean 'model.width'?"),
        ("epochs = 'x'", "over.toml: epochs is a number, 2 by default; got 'x'"),
    ],
)
def test_a_wrong_toml_file_is_one_line(tmp_path, content, text):
    (tmp_path / "over.toml").write_text(content)
    assert refused("settings", "train.py", "-c", "over.toml").startswith(text)
    assert refused("settings", "train.py", "-c", "ovr.toml") == (
        "there is no file 'ovr.toml': did you mean 'over.toml'?"
    )


def test_commas_divide_the_values_of_a_grid(sums):
    grid = grid_of(sums, ["model.width=4,8", "model.sizes=[1,2],None,(3,4)", "model.activation=tanh,'relu'"])
    assert grid == {
        "model.width": [4, 8],
        "model.sizes": [[1, 2], None, (3, 4)],
        "model.activation": ["tanh", "relu"],
    }


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "a sweep needs the values of a setting"),
        (["model.witdh=4,8"], "unknown setting 'model.witdh': did you mean 'model.width'?"),
        (["model.width=4,wide"], "model.width is a number, 4 by default; got 'wide'"),
        (["seed=1", "seed=2"], "seed comes twice: give its values in one word, seed=a,b"),
        (["data.batch_size=16,0"], "the experiment cannot be built with data.batch_size=0"),
    ],
)
def test_a_wrong_grid_is_one_line(words, text):
    assert refused("sweep", "train.py", *words).startswith(text)


def test_settings_are_a_table_of_paths_values_and_types():
    ended = called("settings", "train.py", "model.width=8")
    assert ended.row("early_stop.patience") == ["early_stop.patience", "50", "int"]
    assert ended.status == 0
    assert ended.lines[0].split() == ["setting", "value", "type"]
    assert ended.row("epochs") == ["epochs", "2", "int"]
    assert ended.row("steps") == ["steps", "None", "int", "|", "None"]
    assert ended.row("model.width") == ["model.width", "8", "int"]
    assert ended.row("model.dropout") == ["model.dropout", "0.0", "float"]
    assert ended.row("model.activation") == ["model.activation", "'relu'", "str"]
    assert ended.row("model.sizes") == ["model.sizes", "None", "tuple[int,", "...]", "|", "None"]
    assert ended.row("optimizer.learning_rate")[:4] == ["optimizer.learning_rate", "0.1", "float", "|"]
