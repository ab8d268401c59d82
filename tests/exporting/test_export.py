"""Functions and training steps in files: the same bits as before, trees in and out, clear refusals."""

import json

import mlx.core as mx
import mlx.nn as mlx_nn
import numpy as np
import pytest
from helpers import PLAIN, assert_close, assert_same_bits, cross_entropy, mean_square, run_python, visible
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.core._exporting import exporting

OPTIMIZER = pipe(optim.adamw(optim.cosine_decay(1e-2, 100)), optim.clip_norm(1.0), optim.ema(0.9))


def net(**parts):
    """Return a model from 3 numbers to 2 with a buffer and with draws. Each parameter has a gradient."""
    first = nn.linear(3, 8, bias=False)
    return nn.sequential(enc=first, norm=nn.batch_norm(8), drop=nn.dropout(0.3), **parts, head=nn.linear(8, 2))


def labelled(rows=8, seed=0):
    """Return rows of 3 numbers, each with the label of the smaller one of the first two."""
    x = mx.random.normal((rows, 3), key=mx.random.key(seed))
    return x, mx.argmin(x[:, :2], axis=1)


def after_steps(step, state, batches, count=10):
    """Return the parameters, the state and the logs after some steps."""
    logs = {}
    for i in range(count):
        *state, logs = step(*state, batches[i % len(batches)])
    return {"params": state[0], "state": state[1], "logs": logs}


def assert_same_steps(step, file, batches, *, compile=False):
    """Assert that ten steps from a file have the bits of the plain step, and are near those of the step itself."""
    start = step.init(0)
    from_file = after_steps(fp.imported(file, compile=compile), start, batches)
    assert_same_bits(from_file, after_steps(exporting(step), start, batches))
    near = {"rtol": 0, "atol": 1e-6} if PLAIN else {"rtol": 1e-3, "atol": 1e-5}
    assert_close(from_file, after_steps(step, start, batches), **near)


@pytest.mark.slow
def test_a_whole_step_with_several_batch_shapes_is_one_file(tmp_path):
    step = fp.train_step(net(act=nn.gelu), cross_entropy, OPTIMIZER, metrics=[fp.accuracy()])
    batches = [labelled(), labelled(5, 1)]
    file = fp.export(tmp_path / "step.mlxfn", step, batches)
    assert visible(tmp_path) == ["step.mlxfn"]
    assert_same_steps(step, file, batches, compile=True)


@pytest.mark.parametrize(
    "options",
    [
        {"parts": 2},
        {"dtype": mx.bfloat16},
        {"measure": True},
        {"trainable": "head"},
    ],
    ids=str,
)
@pytest.mark.usual("{'trainable': 'head'}")
def test_options_of_a_step_are_in_its_file(options, tmp_path):
    model = nn.sequential(enc=nn.linear(3, 8), head=nn.linear(8, 2))
    step = fp.train_step(model, cross_entropy, OPTIMIZER, compile=False, **options)
    assert_same_steps(step, fp.export(tmp_path / "step", step, labelled()), [labelled()])


def test_a_step_that_has_run_is_exported_without_its_custom_functions(tmp_path):
    """A compiled trace would hold them."""
    step = fp.train_step(net(act=nn.remat(nn.sequential(nn.linear(8, 8), nn.dropout(0.5)))), cross_entropy, OPTIMIZER)
    step(*step.init(0), labelled())
    file = fp.export(tmp_path / "step", step, labelled())
    step(*step.init(0), labelled())
    assert step.traces == 1
    assert_same_steps(step, file, [labelled()])


def test_an_update_in_the_backward_pass_is_one_at_its_end_in_a_file(tmp_path):
    model = nn.sequential(nn.linear(3, 8), nn.remat(nn.sequential(nn.linear(8, 8), nn.gelu)), nn.linear(8, 2))
    step = fp.train_step(model, cross_entropy, optim.adamw(1e-2), update="in_backward", compile=False)
    assert_same_steps(step, fp.export(tmp_path / "step", step, labelled()), [labelled()])


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.usual("False-mean")
def test_a_head_in_chunks_is_exported_with_the_derivative_of_mlx(reduction, frozen, tmp_path):
    def loss(model, x, y):
        head = model.params["head"]
        options = {"bias": head["bias"], "chunk": 3, "reduction": reduction, "frozen": frozen}
        return nn.losses.linear_cross_entropy(model.enc(x), head["weight"], y, **options).mean()

    model = nn.sequential(enc=nn.linear(3, 8), head=nn.linear(8, 2))
    step = fp.train_step(model, loss, optim.adamw(1e-2), compile=False)
    file = fp.export(tmp_path / "step", step, labelled())
    assert_same_steps(step, file, [labelled()])
    if frozen:
        before, (after, *_) = step.init(0)[0], fp.imported(file)(*step.init(0), labelled())
        assert_close(after["head"], optim.adamw(1e-2).update(*zeros_like(before["head"]))[0])


def zeros_like(params):
    """Return gradients of zero, the first state of AdamW, and the parameters."""
    return fp.restore_like(params, {k: mx.zeros_like(v) for k, v in fp.flat(params).items()}), *(
        optim.adamw(1e-2).init(params),
        params,
    )


MODELS = {
    "conv": (
        nn.sequential(nn.conv2d(3, 4, 3), nn.relu, nn.max_pool2d(2), lambda h: h.mean(axis=(1, 2)), nn.linear(4, 2)),
        mx.random.normal((2, 8, 8, 3), key=mx.random.key(0)),
    ),
    "transformer": (
        nn.define(lambda m, x: m.enc(x, None), enc=nn.lift(mlx_nn.TransformerEncoder, 1, 8, 2)),
        mx.random.normal((2, 4, 8), key=mx.random.key(0)),
    ),
    "lstm": (
        nn.sequential(nn.lstm(8, 4), lambda hidden, cell: hidden),
        mx.random.normal((2, 4, 8), key=mx.random.key(0)),
    ),
    "tokens": (nn.sequential(nn.embedding(20, 8), nn.rms_norm(8), nn.linear(8, 20)), mx.array([[1, 2, 3]])),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usual("conv")
def test_models_of_all_kinds_go_into_a_file(name, tmp_path):
    model, x = MODELS[name]
    step = fp.train_step(model, mean_square, optim.adamw(1e-3), compile=False)
    assert_same_steps(step, fp.export(tmp_path / "step", step, (x,)), [(x,)])
    params = nn.init(1)(model)
    predict = nn.predictor(params)(model)
    file = fp.export(tmp_path / "model", predict, [x, mx.concatenate([x, x])])
    read = fp.imported(file, compile=False)
    assert_same_bits({"y": read(x)}, {"y": predict(x)})
    assert read(mx.concatenate([x, x])).shape[0] == 2 * x.shape[0]


def test_a_compiled_predictor_is_exported(tmp_path):
    model = nn.linear(3, 2)
    predict = nn.predictor(nn.init(0)(model), compile=True)(model)
    x = labelled()[0]
    before = predict(x)
    assert_close({"y": fp.imported(fp.export(tmp_path / "model", predict, x))(x)}, {"y": before})


def test_a_function_takes_and_returns_trees(tmp_path):
    def double(x, *, mask=None, mode="sum"):
        return ({"x": [2 * x["a"], mode]}, None if mask is None else mask)

    example = {"x": {"a": mx.ones((2,)), "b": mx.zeros((1,))}, "mask": mx.array([True]), "mode": "mean"}
    read = fp.imported(fp.export(tmp_path / "f", lambda **kw: double(**kw), example))
    values, mask = read(mode="mean", mask=np.array([False]), x={"b": mx.zeros((1,)), "a": np.float32([1, 3])})
    assert values["x"][0].tolist() == [2, 6]
    assert values["x"][1] == "mean"
    assert mask.tolist() == [False]


def test_a_file_of_a_lazy_closure_holds_its_values(tmp_path):
    weight = mx.random.normal((50, 50), key=mx.random.key(0))
    file = fp.export(tmp_path / "f", lambda x: x @ weight, mx.ones((1, 50)))
    assert file.stat().st_size > 10_000


def test_plain_mlx_reads_a_file(tmp_path):
    step = fp.train_step(nn.linear(3, 2), cross_entropy, optim.sgd(0.1))
    params, _ = step.init(0)
    file = fp.export(tmp_path / "step.mlxfn", step, {"x": labelled()[0], "y": labelled()[1]})
    fp.save(tmp_path / "start.safetensors")(params)
    code = """
import json, sys
import mlx.core as mx
run, metadata = mx.import_function(sys.argv[1], return_metadata=True)
names = json.loads(metadata)
given = dict(mx.load(sys.argv[2]), **{"batch.y": mx.zeros((8,), mx.uint32)})
kinds = zip(names["inputs"], names["cases"][0])
inputs = [given[path] if path in given else mx.zeros(shape, getattr(mx, dtype)) for path, (dtype, shape) in kinds]
print(dict(zip(names["outputs"], run(*inputs)))["logs.loss"].item())
assert "mlx_fp" not in sys.modules
"""
    assert float(run_python(code, str(file), str(tmp_path / "start.safetensors"))) > 0
    assert json.loads(mx.import_function(str(file), return_metadata=True)[1])["inputs"][:2] == [
        "params.weight",
        "params.bias",
    ]


def test_an_evaluation_step_is_a_function(tmp_path):
    step = fp.eval_step(net(), cross_entropy, metrics=[fp.accuracy()])
    params = nn.init(0)(net())
    read = fp.imported(fp.export(tmp_path / "eval", step, (params, step.init(), labelled())))
    assert_same_bits(read(params, step.init(), labelled())[1], exporting(step)(params, step.init(), labelled())[1])


def test_the_start_of_a_step_may_be_parameters(tmp_path):
    step = fp.train_step(net(), cross_entropy, OPTIMIZER)
    params, opt_state = step.init(3)
    read = fp.imported(fp.export(tmp_path / "step", step, labelled(), start=params))
    assert read(params, opt_state, labelled())[2]["loss"].item() > 0


def ones(x):
    """Return the sum with ones."""
    return x + 1


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda at: fp.export(at, ones, mx.ones(2), shapeless=True), ValueError, "shapeless=True is refused.*addmm"),
        (lambda at: fp.export(at, net(), mx.ones(2)), TypeError, "nn.predictor"),
        (lambda at: fp.export(at, 3, mx.ones(2)), TypeError, "takes a step or a function"),
        (lambda at: fp.export(at, ones, []), ValueError, "one example or more"),
        (lambda at: fp.export(at, lambda x: object(), mx.ones(2)), TypeError, "a tree holds arrays"),
        (lambda at: fp.export(at, lambda x: mx.random.normal(x.shape), mx.ones(2)), ValueError, "without a key"),
        (lambda at: fp.export(at, lambda x: x[0], [({"a": mx.ones(2)},), ([mx.ones(2)],)]), ValueError, "argument 0"),
        (lambda at: fp.export(at, mx.checkpoint(mx.sin), mx.ones(2)), ValueError, "mx.checkpoint"),
    ],
    ids=["shapeless", "layer", "number", "no example", "no tree", "draws", "structures", "checkpoint"],
)
def test_a_refused_function_leaves_no_file(call, error, words, tmp_path):
    stream = mx.random.state[0].tolist()
    with pytest.raises(error, match=words):
        call(tmp_path / "f")
    assert visible(tmp_path) == []
    assert mx.random.state[0].tolist() == stream


def test_a_failure_at_a_later_example_leaves_the_old_file(tmp_path):
    def square(x):
        if x.shape[0] == 3:
            raise RuntimeError("three")
        return x * x

    file = fp.export(tmp_path / "f", square, mx.ones((2,)))
    before = file.read_bytes()
    with pytest.raises(RuntimeError, match="three"):
        fp.export(file, square, [mx.ones((2,)), mx.ones((3,))])
    assert file.read_bytes() == before
    assert visible(tmp_path) == ["f"]
