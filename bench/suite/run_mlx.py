"""MLX in three ways: its eager idiom, its compiled idiom, and this library's step."""

from contextlib import ExitStack
from functools import cache, partial

import mlx.core as mx
import mlx.nn
import mlx.optimizers
import mlx.utils

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.core.backend import device_backend

from . import fp_models, mlx_models
from .cases import ADAMW

OPTIONS = {
    "learning_rate": ADAMW.rate,
    "betas": list(ADAMW.betas),
    "eps": ADAMW.eps,
    "weight_decay": ADAMW.decay,
    "bias_correction": True,
}


def adamw():
    """Our optimiser, with the numbers of the suite."""
    return optim.adamw(**OPTIONS)


def versions():
    return {"mlx": mx.__version__, "mlx_fp": fp.__version__}


STREAMS = 2
"""The number of parts of a batch that the way `streams` computes at the same time."""


def prepare(way, case, mode, weights, batch):
    """A function that takes one step, or runs one forward pass, waits for all of it, and returns loss or output."""
    inputs, target = (mlx.utils.tree_map(mx.array, part) for part in batch)
    if way == "core":
        _core()
    if way in ("ours", "lifted", "core", "streams"):
        model = nn.lift(mlx_models.module, case) if way == "lifted" else fp_models.layer(case)
        params = fp.restore_like(model.init(0), {path: mx.array(leaf) for path, leaf in weights.items()})
        streams = STREAMS if way == "streams" else 1
        step = partial(_our_step, streams=streams) if mode == "train" else _our_forward
        return step(case, model, params, inputs, target)
    module = mlx_models.module(case)
    module.load_weights([(path, mx.array(leaf)) for path, leaf in weights.items()])
    mx.eval(module.parameters(), inputs, target)
    return (raw_step if mode == "train" else _raw_forward)(case, module, inputs, target, way == "compiled")


@cache
def _core():
    """Keep the process on one core from now on."""
    CONTEXTS.enter_context(fp.cpu.one_core())


CONTEXTS = ExitStack()


def raw_step(case, module, inputs, target, compiled):
    """Return a function that takes a step of a module, as MLX's documentation, "Compiling training graphs", has it.

    Module and optimiser are the state of the compiled step. The function waits for all of it, and returns the loss.
    """
    optimizer = mlx.optimizers.AdamW(**OPTIONS)
    optimizer.init(module.trainable_parameters())
    value_and_grad = mlx.nn.value_and_grad(module, lambda xs, y: mlx_models.loss(case, module(*xs), y))
    state = [module.state, optimizer.state]

    def step(xs, y):
        loss, grads = value_and_grad(xs, y)
        optimizer.update(module, grads)
        return loss

    take = mx.compile(step, inputs=state, outputs=state) if compiled else step

    def run():
        loss = take(list(inputs), target)
        mx.eval(loss, module.state, optimizer.state)
        return loss

    return run


def _raw_forward(case, module, inputs, target, compiled):
    call = mx.compile(lambda *xs: module(*xs), inputs=module.state) if compiled else module

    def run():
        output = call(*inputs)
        mx.eval(output)
        return output

    return run


def _our_step(case, model, params, inputs, target, streams):
    loss = fp_models.loss
    step = fp.train_step(model, lambda forward, xs, y: loss(case, forward(*xs), y), adamw(), streams=streams)
    CONTEXTS.enter_context(device_backend().tuned(step.parameter_bytes))
    held = [step.carry(*step.init(params))]
    batch = (inputs, target)
    del params

    def run():
        held[0], ((logs, *_),) = step.advance(held[0], [batch])
        mx.eval(held[0].arrays, logs)
        return logs["loss"]

    return run


def _our_forward(case, model, params, inputs, target):
    predict = nn.predictor(params, compile=True)(model)

    def run():
        output = predict(*inputs)
        mx.eval(output)
        return output

    return run
