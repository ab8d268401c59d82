"""Everything public in mlx.nn and mlx.optimizers has a counterpart here: same parameters, same results."""

from __future__ import annotations

import inspect
import math
import re

import mlx.core as mx
import mlx.nn as mlx_nn
import mlx.nn.init as mlx_init
import mlx.nn.losses as mlx_losses
import mlx.optimizers as mlx_optimizers
import numpy as np
import pytest
from helpers import assert_close

from mlx_fp import nn, optim
from mlx_fp.nn import initializers, losses
from mlx_fp.tree._paths import flat

# --- The one place for differences -----------------------------------------------------------------------------------

WITHOUT_COUNTERPART = {
    mlx_nn: {
        "Module": "a model is a Layer here; modules come in by lift and split, and out by lower",
        "value_and_grad": "train_step differentiates; a Layer is a function, mx.value_and_grad takes it",
        "quantize": "changes a module in place; quantized is the verb, and split takes a module that was quantised",
        "average_gradients": "data parallel training is not part of a layer",
        "fully_shard": "changes a module in place; split takes a module that was sharded",
    },
    mlx_losses: {},
    mlx_init: {},
    mlx_optimizers: {"Optimizer": "the base class; optim.Optimizer is the record, optim.lift takes any subclass"},
}

UNDER_ANOTHER_NAME = {
    mlx_nn: {},
    mlx_losses: {},
    mlx_init: {},
    mlx_optimizers: {"MultiOptimizer": "groups", "clip_grad_norm": "clip_norm"},
}

ONLY_HERE = {
    nn: {
        "Layer": "the record that every model is",
        "Summary": "the record that summary gives",
        "add": "a combinator",
        "branch": "a combinator",
        "buffer": "an array that never trains, for define",
        "concat": "a combinator",
        "define": "a layer as a function over named parts",
        "dora": "adapters of low rank, as mlx-lm has them",
        "fn": "a callable as a layer",
        "freeze": "Module.freeze, as a verb",
        "frozen": "frozen, and in evaluation mode always",
        "init": "makes parameters of a key",
        "initializers": "the module of mlx.nn.init, as `init` is a verb here",
        "layer": "the constructor of Layer",
        "lift": "the way in from mlx.nn",
        "lora": "adapters of low rank, as mlx-lm has them",
        "losses": "the module of mlx.nn.losses",
        "lower": "the way out to mlx.nn",
        "merged": "adapters in the weights",
        "method": "another method of a lifted module",
        "param": "an array that trains, for define",
        "predictor": "a plain function of arrays",
        "pretrained": "parameters that init returns",
        "quantized": "mlx.nn.quantize, as a verb",
        "remat": "mlx.nn.utils.checkpoint, with the same random numbers",
        "repeat": "a combinator",
        "replaced": "other parts at chosen paths",
        "residual": "a combinator",
        "segment_mask": "attention within the segments of packed rows",
        "shapes": "paths and shapes without computing",
        "share": "a combinator",
        "split": "the way in from a module",
        "stack": "a combinator",
        "summary": "what a model is made of",
        "unfreeze": "Module.unfreeze, as a verb",
        "wide": "a part in float32 within a narrow step",
        "with_frozen": "frozen layers beside a model, which a loss calls",
        "without_adapters": "the parameters with adapters switched off",
    },
    losses: {"linear_cross_entropy": "of the inputs of a head, without the whole logits"},
    initializers: {},
    optim: {
        "Optimizer": "the record that every optimiser is",
        "averaged": "reads what ema keeps",
        "clip_value": "a verb",
        "ema": "a verb",
        "lift": "the way in from mlx.optimizers",
        "lookahead": "a verb",
        "master": "a verb",
        "reading": "reads what a wrapper keeps",
        "scale_rates": "changes every learning rate in a state",
        "scaled": "a verb",
        "schedule_free": "a verb",
        "sharded": "a verb",
        "skip_nonfinite": "a verb",
        "state_dtype": "a verb",
        "stochastic_rounding": "a verb",
        "one_cycle": "a schedule with its warm-up",
        "projected": "a verb",
        "quantized": "a verb",
        "warmup_cosine": "a schedule with its warm-up",
        "wsd": "a schedule with its warm-up",
    },
}

OURS = {mlx_nn: nn, mlx_losses: losses, mlx_init: initializers, mlx_optimizers: optim}


# --- The inventory ---------------------------------------------------------------------------------------------------


def surface(module):
    """The public classes and functions that a module of mlx defines, or passes on from inside its package."""
    inside = "mlx.nn" if module is mlx_nn else module.__name__

    def is_ours(value):
        home = getattr(value, "__module__", None) or ""
        return home.startswith(inside) or (module is mlx_nn and isinstance(value, type(mlx_nn.gelu)))

    names = [n for n in dir(module) if not n.startswith("_") and not inspect.ismodule(getattr(module, n))]
    return [n for n in names if is_ours(getattr(module, n)) and callable(getattr(module, n))]


def squashed(name):
    return name.replace("_", "").lower()


def counterpart(module, name):
    """The name here of `name` in a module of mlx, or None."""
    other = UNDER_ANOTHER_NAME[module].get(name)
    return other or next((n for n in OURS[module].__all__ if squashed(n) == squashed(name) and n == n.lower()), None)


ALL = [(module, name) for module in OURS for name in surface(module)]


def test_the_inventory_reads_mlx():
    counts = {module.__name__: len(surface(module)) for module in OURS}
    assert counts["mlx.nn"] >= 100
    assert counts["mlx.nn.losses"] >= 14
    assert counts["mlx.nn.init"] >= 10
    assert counts["mlx.optimizers"] >= 18
    assert "gelu" in surface(mlx_nn)
    assert "Callable" not in surface(mlx_optimizers)


@pytest.mark.parametrize(("module", "name"), ALL, ids=[f"{m.__name__}.{n}" for m, n in ALL])
def test_each_name_has_a_counterpart(module, name):
    found = counterpart(module, name)
    if name in WITHOUT_COUNTERPART[module]:
        assert found is None or (module, name) == (mlx_optimizers, "Optimizer")
        return
    assert found, f"{module.__name__}.{name} has no counterpart: add one, or a reason to WITHOUT_COUNTERPART"
    assert callable(getattr(OURS[module], found))


@pytest.mark.parametrize("ours", ONLY_HERE, ids=lambda m: m.__name__)
def test_each_name_that_exists_only_here_is_listed(ours):
    module = next(m for m, mine in OURS.items() if mine is ours)
    taken = {counterpart(module, name) for name in surface(module)}
    assert set(ours.__all__) - taken == set(ONLY_HERE[ours])


def test_no_difference_is_listed_that_is_none():
    for table in (WITHOUT_COUNTERPART, UNDER_ANOTHER_NAME):
        for module, names in table.items():
            assert set(names) <= set(surface(module))
    assert all(reason for table in (*WITHOUT_COUNTERPART.values(), *ONLY_HERE.values()) for reason in table.values())


def test_losses_and_initialisers_are_mlx_s_own():
    for module in (mlx_losses, mlx_init):
        for name in surface(module):
            if name not in ("cross_entropy", "nll_loss"):  # ours keep labels within bounds; tests/nn/test_bounds.py
                assert getattr(OURS[module], name) is getattr(module, name)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("cosine_decay", (0.1, 10)),
        ("exponential_decay", (0.1, 0.9)),
        ("linear_schedule", (0.0, 0.1, 5)),
        ("step_decay", (0.1, 0.5, 3)),
        ("join_schedules", ([mlx_optimizers.linear_schedule(0.0, 0.1, 5), mlx_optimizers.cosine_decay(0.1, 10)], [5])),
    ],
)
def test_schedules_give_mlx_s_own_rates(name, args):
    ours, theirs = getattr(optim, name)(*args), getattr(mlx_optimizers, name)(*args)
    assert inspect.signature(getattr(optim, name)) == inspect.signature(getattr(mlx_optimizers, name))
    for step in range(20):
        assert mx.array_equal(mx.array(ours(mx.array(step))), mx.array(theirs(mx.array(step))))


# --- The layers ------------------------------------------------------------------------------------------------------


def x(*shape, seed=0):
    return mx.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


IDS = mx.array([[1, 2, 0], [3, 1, 4]])
ONE_D, TWO_D, THREE_D = x(2, 6, 4), x(2, 6, 6, 4), x(2, 4, 4, 4, 2)
MASK = mlx_nn.MultiHeadAttention.create_additive_causal_mask(3)

LAYERS = {
    "ALiBi": ((), {}, (x(1, 2, 3, 3),)),
    "AllToShardedLinear": ((4, 3), {}, (x(2, 4),)),
    "AvgPool1d": ((2,), {}, (ONE_D,)),
    "AvgPool2d": ((2,), {"stride": 1}, (TWO_D,)),
    "AvgPool3d": ((2,), {}, (THREE_D,)),
    "BatchNorm": ((4,), {}, (ONE_D,)),
    "Bilinear": ((4, 3, 2), {}, (x(5, 4), x(5, 3, seed=1))),
    "Conv1d": ((4, 3, 2), {}, (ONE_D,)),
    "Conv2d": ((4, 6, 3), {"padding": 1, "groups": 2}, (TWO_D,)),
    "Conv3d": ((2, 3, 2), {"bias": False}, (THREE_D,)),
    "ConvTranspose1d": ((4, 3, 2), {}, (ONE_D,)),
    "ConvTranspose2d": ((4, 3, 2), {"stride": 2}, (TWO_D,)),
    "ConvTranspose3d": ((2, 3, 2), {}, (THREE_D,)),
    "Dropout": ((0.5,), {}, (ONE_D,)),
    "Dropout2d": ((0.5,), {}, (TWO_D,)),
    "Dropout3d": ((0.5,), {}, (THREE_D,)),
    "Embedding": ((5, 4), {}, (IDS,)),
    "FullyShardedModule": ((mlx_nn.Linear(4, 3),), {}, (x(2, 4),)),
    "GRU": ((4, 3), {}, (ONE_D,)),
    "GroupNorm": ((2, 4), {}, (ONE_D,)),
    "Identity": ((3,), {"unused": 1}, (ONE_D,)),
    "InstanceNorm": ((4,), {"affine": True}, (ONE_D,)),
    "LSTM": ((4, 3), {"bias": False}, (ONE_D,)),
    "LayerNorm": ((4,), {}, (ONE_D,)),
    "Linear": ((4, 3), {}, (x(2, 4),)),
    "MaxPool1d": ((2,), {}, (ONE_D,)),
    "MaxPool2d": ((2,), {"padding": 1}, (TWO_D,)),
    "MaxPool3d": ((2,), {}, (THREE_D,)),
    "MultiHeadAttention": ((4, 2), {"bias": True}, (x(2, 3, 4), x(2, 3, 4, seed=1), x(2, 3, 4, seed=2), MASK)),
    "QQLinear": ((64, 32), {}, (x(1, 64),)),
    "QuantizedAllToShardedLinear": ((64, 32), {}, (x(2, 64),)),
    "QuantizedEmbedding": ((5, 64), {}, (IDS,)),
    "QuantizedLinear": ((64, 32), {"bits": 8, "group_size": 32}, (x(2, 64),)),
    "QuantizedShardedToAllLinear": ((64, 32), {}, (x(2, 64),)),
    "RMSNorm": ((4,), {"eps": 1e-3}, (ONE_D,)),
    "RNN": ((4, 3), {}, (ONE_D,)),
    "RoPE": ((4,), {"traditional": True}, (x(2, 3, 4),)),
    "ShardedToAllLinear": ((4, 3), {"bias": False}, (x(2, 4),)),
    "SinusoidalPositionalEncoding": ((4,), {}, (mx.arange(3),)),
    "Transformer": (
        (4, 2, 1, 1, 8),
        {"dropout": 0.1},
        (x(2, 3, 4), x(2, 3, 4, seed=1), mx.zeros((3, 3)), MASK, mx.zeros((3, 3))),
    ),
    "TransformerDecoder": ((2, 4, 2, 8), {}, (x(2, 3, 4), x(2, 3, 4, seed=1), MASK, mx.zeros((3, 3)))),
    "TransformerDecoderLayer": ((4, 2, 8), {"dropout": 0.1}, (x(2, 3, 4), x(2, 3, 4, seed=1), MASK, MASK)),
    "TransformerEncoder": ((2, 4, 2, 8), {"norm_first": True}, (x(2, 3, 4), MASK)),
    "TransformerEncoderLayer": ((4, 2, 8), {"dropout": 0.1}, (x(2, 3, 4), MASK)),
    "Upsample": ((2,), {"mode": "linear"}, (TWO_D,)),
}
ACTIVATIONS = {
    "CELU": {"alpha": 0.5},
    "ELU": {"alpha": 0.5},
    "GELU": {"approx": "fast"},
    "GLU": {"axis": 0},
    "HardShrink": {"lambd": 0.3},
    "HardTanh": {"min_val": -0.3},
    "Hardswish": {},
    "LeakyReLU": {"negative_slope": 0.5},
    "LogSigmoid": {},
    "LogSoftmax": {"axis": 0},
    "Mish": {},
    "PReLU": {"init": 0.5},
    "ReLU": {},
    "ReLU2": {},
    "ReLU6": {},
    "SELU": {},
    "SiLU": {},
    "Sigmoid": {},
    "Softmax": {"axis": 0},
    "Softmin": {"axis": 0},
    "Softplus": {},
    "Softshrink": {"lambd": 0.3},
    "Softsign": {},
    "Step": {"threshold": 0.2},
    "Tanh": {},
}

NOT_ON_CPUS = {"QQLinear"} if mx.default_device().type == mx.DeviceType.cpu else set()
"""What MLX computes in training mode on GPUs only."""

MODULES = [n for n in surface(mlx_nn) if inspect.isclass(getattr(mlx_nn, n)) and n not in ("Module", "Sequential")]


def test_every_layer_and_activation_is_tried():
    assert sorted({*LAYERS, *ACTIVATIONS}) == sorted(MODULES)


def same(ours, theirs, exact=False):
    if isinstance(theirs, (tuple, list)):
        assert len(ours) == len(theirs)
        return all(same(a, b, exact) for a, b in zip(ours, theirs, strict=True))
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    return mx.array_equal(ours, theirs) if exact else mx.allclose(ours, theirs, rtol=1e-5, atol=1e-6).item()


def same_tree(ours, theirs):
    ours, theirs = flat(ours), flat(theirs)
    assert list(ours) == list(theirs)
    return all(same(ours[path], theirs[path], exact=True) for path in theirs)


def match(pattern, shape, sizes):
    """Compare a written shape with the shape of an array; a name has one size, an ellipsis is any number of axes."""
    names = [name.strip().removesuffix(" / devices") for name in pattern.split(",")]
    open_axes = [i for i, name in enumerate(names) if "…" in name]
    for i in open_axes:
        count = len(shape) - len(names) + 1
        assert count >= 0, (pattern, shape)
        shape = (*shape[:i], tuple(shape[i : i + count]), *shape[i + count :])
    assert len(names) == len(shape), (pattern, shape)
    for name, size in zip(names, shape, strict=True):
        assert sizes.setdefault(name, size) == size, (pattern, shape, sizes)


@pytest.mark.parametrize("name", [name for name in LAYERS if name not in {"FullyShardedModule", *NOT_ON_CPUS}])
def test_a_layer_has_the_shapes_that_its_docstring_says(name):
    args, kwargs, inputs = LAYERS[name]
    make = getattr(nn, counterpart(mlx_nn, name))
    written = re.search(r": `(.*) -> (.*)`\.$", make.__doc__.splitlines()[0]).groups()
    arguments = inspect.signature(make).bind(*args, **kwargs)
    arguments.apply_defaults()
    sizes = {option: value for option, value in arguments.arguments.items() if type(value) is int}
    layer = make(*args, **kwargs)
    outputs = nn.predictor(nn.init(0)(layer))(layer)(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for text, arrays in zip(written, (inputs, outputs), strict=True):
        for pattern, array in zip(re.findall(r"\((.*?)\)", text), arrays, strict=False):
            match(pattern, array.shape, sizes)


@pytest.mark.parametrize(
    "name", ["linear", "conv2d", "layer_norm", "relu", "leaky_relu", "softmax", "adamw", "sgd", "muon"]
)
def test_help_shows_mlx_s_signature_and_its_page(name):
    module, ours = (nn, "Layer") if hasattr(nn, name) else (optim, "Optimizer")
    fn = getattr(module, name)
    is_activation = type(fn).__name__ == "Activation"
    source = getattr(mlx_nn, name) if is_activation else fn.__wrapped__
    shown = inspect.signature(fn)
    assert shown.parameters == inspect.signature(fn.__wrapped__).parameters
    assert shown.return_annotation == ("Array | Layer" if is_activation else ours)
    assert f".{source.__name__}.html." in fn.__doc__
    assert inspect.cleandoc(source.__doc__) in fn.__doc__


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_starts_and_computes_as_mlx_s_own(name):
    args, kwargs, inputs = LAYERS[name]
    layer = getattr(nn, counterpart(mlx_nn, name))(*args, **kwargs)
    params = nn.init(5)(layer)
    mx.random.seed(5)
    module = getattr(mlx_nn, name)(*args, **kwargs)
    assert same_tree(params, module.parameters())
    trained = set(flat(module.trainable_parameters()))
    assert {path for path, leaf in flat(params).items() if layer.trainable(params)(path, leaf)} == trained

    module.train()
    mx.random.seed(6)
    expected = module(*inputs)
    y, after = layer.apply(params, *inputs, train=True, key=6)
    assert name in NOT_ON_CPUS or same(y, expected)
    assert_close(after, module.parameters(), atol=1e-8)

    module.eval()
    expected = module(*inputs)
    y, last = layer.apply(after, *inputs)
    assert same(y, expected)
    assert same_tree(last, after)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_a_function_a_layer_and_a_layer_with_options(name):
    array, options = TWO_D[0, 0], ACTIVATIONS[name]
    ours = getattr(nn, counterpart(mlx_nn, name))
    lower = counterpart(mlx_nn, name)
    function = getattr(mlx_nn, lower)
    module = getattr(mlx_nn, name)()
    plain = nn.sequential(ours)
    assert same(plain.apply(nn.init(0)(plain), array)[0], module(array))
    made = ours()
    assert same_tree(nn.init(0)(made), module.parameters())
    assert same(made.apply(nn.init(0)(made), array)[0], module(array))
    if name != "PReLU":
        assert same(ours(array), function(array))
    with_options = ours(**options)
    y = with_options.apply(nn.init(0)(with_options), array)[0]
    if name == "GELU":
        assert same(y, mlx_nn.gelu_fast_approx(array))
    elif name == "PReLU":
        assert same(y, mlx_nn.prelu(array, mx.array(0.5)))
        assert same(ours(array, mx.array(0.5)), y)
    else:
        assert same(y, function(array, **options))
        assert same(ours(array, **options), y)


@pytest.mark.parametrize("name", ["softmax", "softmin", "log_softmax", "glu"])
def test_an_axis_may_come_by_position(name):
    layer = getattr(nn, name)(0)
    assert same(layer.apply({}, TWO_D[0, 0])[0], getattr(mlx_nn, name)(TWO_D[0, 0], axis=0))


@pytest.mark.parametrize("name", ["gelu_approx", "gelu_fast_approx"])
def test_activations_without_a_class_are_functions_and_entries(name):
    array = TWO_D[0, 0]
    assert same(getattr(nn, name)(array), getattr(mlx_nn, name)(array))
    assert same(nn.sequential(getattr(nn, name)).apply({"layers": [{}]}, array)[0], getattr(mlx_nn, name)(array))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_an_activation_refuses_an_unknown_option(name):
    with pytest.raises(TypeError, match="unknown option 'slope'"):
        getattr(nn, counterpart(mlx_nn, name))(slope=1)


def test_a_recurrent_layer_takes_its_hidden_state_by_name():
    layer = nn.lstm(4, 3)
    params = nn.init(0)(layer)
    (hidden, cell), _ = layer.apply(params, ONE_D[:, :3])
    (rest, _), _ = layer.apply(params, ONE_D[:, 3:], hidden=hidden[:, -1], cell=cell[:, -1])
    (whole, _), _ = layer.apply(params, ONE_D)
    assert same(rest, whole[:, 3:])


def test_sequential_has_the_paths_of_mlx_s_own():
    layer = nn.sequential(nn.linear(4, 3), nn.relu, nn.linear(3, 2))
    mx.random.seed(3)
    module = mlx_nn.Sequential(mlx_nn.Linear(4, 3), mlx_nn.ReLU(), mlx_nn.Linear(3, 2))
    params = nn.init(3)(layer)
    assert same_tree(params, module.parameters())
    assert same(layer.apply(params, x(2, 4))[0], module(x(2, 4)))


# --- The optimisers --------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "AdaDelta": ((0.1,), {}),
    "Adafactor": ((), {"learning_rate": 0.1, "relative_step": False}),
    "Adagrad": ((0.1,), {}),
    "Adam": ((0.1,), {"bias_correction": True}),
    "AdamW": ((0.1,), {"weight_decay": 0.1}),
    "Adamax": ((0.1,), {}),
    "Lion": ((0.01,), {}),
    "Muon": ((0.1,), {}),
    "RMSprop": ((0.1,), {}),
    "SGD": ((mlx_optimizers.cosine_decay(0.1, 5),), {"momentum": 0.9, "nesterov": True}),
}


def test_every_optimiser_is_tried():
    classes = {n for n in surface(mlx_optimizers) if inspect.isclass(getattr(mlx_optimizers, n))}
    assert set(OPTIMIZERS) == classes - {"Optimizer", "MultiOptimizer"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_moves_parameters_as_mlx_s_own(name):
    args, kwargs = OPTIMIZERS[name]
    ours = getattr(optim, counterpart(mlx_optimizers, name))(*args, **kwargs)
    theirs = getattr(mlx_optimizers, name)(*args, **kwargs)
    params = {"layers": [{"weight": x(4, 3), "bias": x(3, seed=1)}]}
    expected, state = params, ours.init(params)
    for seed in range(3):
        grads = {"layers": [{"weight": x(4, 3, seed=seed + 2), "bias": x(3, seed=seed + 7)}]}
        expected = theirs.apply_gradients(grads, expected)
        params, state = ours.update(grads, state, params)
    assert_close(params, expected)
    assert same(state["learning_rate"], theirs.learning_rate)


def test_clipping_and_groups_are_mlx_s_own():
    params, grads = {"w": x(3), "v": x(3, seed=1)}, {"w": 9 * x(3, seed=2), "v": 9 * x(3, seed=3)}
    clipped, norm = mlx_optimizers.clip_grad_norm(grads, 1.0)
    multi = mlx_optimizers.MultiOptimizer(
        [mlx_optimizers.SGD(0.1), mlx_optimizers.Lion(0.1)], [lambda path, leaf: path == "w"]
    )
    expected = multi.apply_gradients(clipped, params)
    ours = optim.clip_norm(1.0)(optim.groups(("w", optim.sgd(0.1)), (None, optim.lion(0.1))))
    new, state = ours.update(grads, ours.init(params), params)
    assert all(same(new[name], expected[name]) for name in params)
    assert math.isclose(optim.reading("grad_norm")(state).item(), norm.item(), rel_tol=1e-6)
