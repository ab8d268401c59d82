"""The graph of a function, as a picture or as text."""

import shutil
import xml.etree.ElementTree as ElementTree

import mlx.core as mx
import pytest

from mlx_fp import nn, show


@pytest.fixture
def predict():
    """Return a function of rows of 3 numbers."""
    model = nn.sequential(nn.linear(3, 4), nn.relu, nn.linear(4, 2))
    return nn.predictor(nn.init(0)(model))(model)


@pytest.fixture
def no_graphviz(monkeypatch):
    """Let no program be found."""
    monkeypatch.setattr(shutil, "which", lambda name: None)


def test_without_graphviz_the_graph_is_dot(predict, no_graphviz, tmp_path):
    text = show.graph(predict, mx.ones((5, 3)))
    assert text.startswith("digraph {")
    assert text.count('label="AddMM"') == 2
    assert 'label="Maximum"' in text
    assert '-> o0 [label="float32 5×2"]' in text
    path = show.graph(predict, mx.ones((5, 3)), tmp_path / "model.svg")
    assert path == tmp_path / "model.dot"
    assert path.read_text(encoding="utf-8") == text


def test_a_dot_file_contains_dot(predict, tmp_path):
    assert show.graph(predict, mx.ones((5, 3)), tmp_path / "model.dot").read_text().startswith("digraph {")


def test_arguments_and_results_have_their_names(no_graphviz):
    text = show.graph(lambda x, y: {"sum": x + y["a"]}, {"x": mx.ones(2), "y": {"a": mx.ones(2)}})
    assert [name in text for name in ('label="x"', 'label="y.a"', 'label="output.sum"')] == [True] * 3


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
def test_with_graphviz_the_graph_is_a_picture(predict, tmp_path):
    path = show.graph(predict, mx.ones((5, 3)), tmp_path / "model.svg")
    picture = ElementTree.parse(path).getroot()
    assert picture.tag.endswith("svg")
    assert "AddMM" in "".join(picture.itertext())
    assert str(show.graph(predict, mx.ones((5, 3)))).count("<svg") == 1


def test_a_layer_is_no_function():
    with pytest.raises(TypeError, match="nn.predictor"):
        show.graph(nn.linear(3, 2), mx.ones((1, 3)))
