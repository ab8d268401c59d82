"""Models in ONNX files, against onnxruntime at batch sizes that no trace had."""

import mlx.core as mx
import mlx.nn as mlx_nn
import numpy as np
import pytest
from helpers import visible

import mlx_fp as fp
from mlx_fp import nn

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")


def normal(*shape):
    """Return a function that draws so many rows of a shape."""
    return lambda rows: mx.random.normal((rows, *shape), key=mx.random.key(rows))


def tokens(rows):
    """Draw rows of 8 tokens below 50."""
    return mx.random.randint(0, 50, (rows, 8), key=mx.random.key(rows))


def flattened(h):
    """Return rows of one axis."""
    return h.reshape(h.shape[0], -1)


IMAGES, SEQUENCES, VECTORS = normal(16, 16, 3), normal(8, 32), normal(16)

CAUSAL = nn.define(
    lambda m, x: m.head(m.encoder(m.table(x), mlx_nn.MultiHeadAttention.create_additive_causal_mask(x.shape[1]))),
    table=nn.embedding(50, 32),
    encoder=nn.lift(mlx_nn.TransformerEncoder, 1, 32, 4),
    head=nn.linear(32, 50),
)

MODELS = {
    "MLP": (
        nn.sequential(nn.linear(16, 32), nn.batch_norm(32), nn.gelu, nn.layer_norm(32), nn.linear(32, 5)),
        VECTORS,
    ),
    "CNN": (
        nn.sequential(nn.conv2d(3, 8, 3, padding=1), nn.relu, nn.max_pool2d(2), nn.conv2d(8, 8, 3), flattened),
        IMAGES,
    ),
    "pooling with overlap": (
        nn.sequential(nn.conv2d(3, 4, 3), nn.max_pool2d(3, stride=2, padding=1), nn.avg_pool2d(3, stride=1)),
        IMAGES,
    ),
    "transformer encoder": (
        nn.define(lambda m, x: m.encoder(x, None), encoder=nn.lift(mlx_nn.TransformerEncoder, 2, 32, 4)),
        SEQUENCES,
    ),
    "causal LM": (CAUSAL, tokens),
    "LSTM": (nn.sequential(nn.lstm(32, 16), lambda hidden, cell: hidden[:, -1]), SEQUENCES),
    "GRU": (nn.sequential(nn.gru(32, 16), lambda hidden: hidden[:, -1]), SEQUENCES),
    "group norm": (nn.sequential(nn.conv2d(3, 8, 3), nn.group_norm(4, 8), nn.upsample(2.0)), IMAGES),
    "linear upsampling": (nn.upsample(2.0, mode="linear"), IMAGES),
    "transposed convolution": (
        nn.sequential(
            nn.conv_transpose2d(3, 4, 3, stride=2, padding=1),
            nn.conv_transpose2d(4, 2, 2, stride=2, output_padding=1),
        ),
        IMAGES,
    ),
    "further activations": (
        nn.sequential(nn.instance_norm(3), nn.rms_norm(3), nn.softplus, nn.mish, nn.elu, nn.hardswish),
        IMAGES,
    ),
    "rope": (
        nn.define(
            lambda m, x: m.mixed(m.turned(x), m.turned(x), x),
            mixed=nn.lift(mlx_nn.MultiHeadAttention, 32, 4),
            turned=nn.lift(mlx_nn.RoPE, 32),
        ),
        SEQUENCES,
    ),
}


def predictor(model):
    """Return a model with drawn parameters as a function."""
    return nn.predictor(nn.init(0)(model))(model)


def results(path, *arrays):
    """Return the results of a file in onnxruntime."""
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, {name: np.array(array) for name, array in zip(names, arrays, strict=True)})


@pytest.mark.parametrize("name", MODELS)
def test_a_model_gives_the_same_numbers_at_any_batch_size(name, tmp_path):
    model, draw = MODELS[name]
    predict = predictor(model)
    path = fp.to_onnx(predict, draw(3), tmp_path / "model.onnx")
    assert visible(tmp_path) == ["model.onnx"]
    for rows in (1, 9):
        (result,), expected = results(path, draw(rows)), np.array(predict(draw(rows)))
        assert np.max(np.abs(result - expected) / np.maximum(1, np.abs(expected))) < 2e-6


OPERATIONS = {
    "argmax": lambda x: mx.argmax(x, axis=1),
    "along an axis": lambda x: mx.take_along_axis(x, mx.argmin(x, axis=1, keepdims=True), axis=1),
    "pairs of indices": lambda x: x.reshape(-1, 4, 4)[:, mx.array([0, 1]), mx.array([3, 2])],
    "cumsum": lambda x: mx.cumsum(x, axis=1, reverse=True, inclusive=False),
    "slices": lambda x: mx.concatenate([x[:, ::3], x[:, -2:], mx.pad(x, ((0, 0), (1, 2)))], axis=1),
    "logarithms": lambda x: mx.stack([mx.log2(1 + x * x), mx.log10(1 + x * x), mx.log1p(x * x), mx.expm1(x)]),
    "remainders": lambda x: mx.stack([x % 0.5, x // 0.5, mx.floor(x), mx.sign(x)]),
    "flags": lambda x: mx.all(x > -3, axis=1) & mx.any(x != x, axis=1),
    "softmax over an axis": lambda x: mx.softmax(x.reshape(-1, 4, 4), axis=1) + mx.logsumexp(x, axis=1)[:, None, None],
    "split": lambda x: mx.concatenate(mx.split(x, [3, 9], axis=1)[::-1], axis=1),
    "half": lambda x: x.astype(mx.float16).astype(mx.float32),
    "rsqrt": lambda x: mx.rsqrt(x * x + 1) + mx.sqrt(x * x) ** 3,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_gives_the_same_numbers(name, tmp_path):
    path = fp.to_onnx(OPERATIONS[name], VECTORS(3), tmp_path / "f.onnx")
    (result,) = results(path, VECTORS(6))
    np.testing.assert_allclose(result, np.array(OPERATIONS[name](VECTORS(6))), rtol=1e-6, atol=2e-6)


def test_arguments_and_results_have_names(tmp_path):
    path = fp.to_onnx(
        lambda x, scale: {"sum": x["a"] + x["b"], "scaled": x["a"] * scale},
        {"x": {"a": VECTORS(2), "b": VECTORS(2)}, "scale": mx.array(2.0)},
        tmp_path / "f.onnx",
    )
    session = runtime.InferenceSession(str(path))
    assert [(each.name, each.shape) for each in session.get_inputs()] == [
        ("x.a", ["batch", 16]),
        ("x.b", ["batch", 16]),
        ("scale", []),
    ]
    assert [each.name for each in session.get_outputs()] == ["output.sum", "output.scaled"]


def test_an_input_may_be_an_output(tmp_path):
    assert len(results(fp.to_onnx(lambda x: (x, x + 0, x), VECTORS(2), tmp_path / "f.onnx"), VECTORS(3))) == 3


class Sorted(mlx_nn.Module):
    """A module whose operation ONNX lacks here."""

    def __call__(self, x):
        return mx.sort(x, axis=1)


class Whole(mlx_nn.Module):
    """A module with such a module inside."""

    def __init__(self):
        super().__init__()
        self.body = [mlx_nn.Linear(16, 4), Sorted()]

    def __call__(self, x):
        return self.body[1](self.body[0](x))


@pytest.mark.parametrize(
    ("predict", "error", "words"),
    [
        (predictor(nn.lift(Whole)), NotImplementedError, r"operation Sort .* body.1 \(Sorted\) uses it"),
        (predictor(nn.sequential(nn.linear(16, 4), Sorted())), NotImplementedError, r"layers.1 \(Sorted\) uses it"),
        (lambda x: mx.sort(x), NotImplementedError, "operation Sort has no counterpart in ONNX here: compute"),
        (lambda x: mx.cumprod(x, axis=1), NotImplementedError, "Scan of another kind than a sum"),
        (lambda x: x - x.mean(axis=0), ValueError, "as in a mean over the rows"),
        (lambda x: (x @ x.T).reshape(-1), ValueError, "25 for 5 rows and 49 for 7"),
        (lambda x: x[:-1], ValueError, "a multiple of the batch size"),
        (lambda x: x if x.shape[0] == 5 else x + 1, ValueError, "which operations"),
        (nn.linear(16, 4), TypeError, "nn.predictor"),
    ],
)
def test_a_function_that_onnx_cannot_have_is_refused_and_leaves_no_file(predict, error, words, tmp_path):
    with pytest.raises(error, match=words):
        fp.to_onnx(predict, VECTORS(3), tmp_path / "f.onnx")
    assert visible(tmp_path) == []


def test_without_onnx_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ImportError, match=r"mlx-fp\[onnx\]"):
        fp.to_onnx(mx.sin, VECTORS(3), tmp_path / "f.onnx")
