"""The cases that are pairs: a function of this library, and the same work by a reference of its own.

All numbers of a pair come from the same weights and batches. docs/benchmarks.md says which reference each one has.
"""

from functools import partial

import mlx.core as mx
import mlx.nn
import mlx.optimizers
import mlx.utils

import mlx_fp as fp
from mlx_fp import lm, nn

from . import fp_models, mlx_models
from .cases import Case, batch
from .run_mlx import OPTIONS, adamw, raw_step

TRAINER_RATE = 1e-6
"""The rate of Adam in `packed`, so low that the order of the rows does not change their mean loss."""


class Trainer:
    """A function that trains two epochs, and keeps the seconds of the second; in the first all kernels are made."""

    checked = 1
    """The number of calls whose losses are compared with those of the reference."""

    def __init__(self, train):
        """Make it of a function that returns the mean loss of the first epoch, and the seconds of the second."""
        self._train, self.seconds = train, 0.0

    def __call__(self):
        loss, self.seconds = self._train()
        return loss


def prepare(way, case):
    """Return a function that does the work once, waits for it, and returns losses; of our function or the reference."""
    reference, ours = PAIRS[case.name]
    return (ours if way == "ours" else reference)(case.size)


def accumulate_by_hand(s):
    """One compiled function of a batch and the gradients so far, of which the last call updates."""
    case, (batches, params) = _mlp(s), _mlp_inputs(s, s.batches)
    module, optimizer = _module(case, params), mlx.optimizers.AdamW(**OPTIONS)
    optimizer.init(module.trainable_parameters())
    value_and_grad = mlx.nn.value_and_grad(module, lambda x, y: mlx_models.loss(case, module(x), y))
    state = [module.state, optimizer.state]

    @partial(mx.compile, inputs=state, outputs=state)
    def take(x, y, before, is_last):
        loss, grads = value_and_grad(x, y)
        if before is not None:
            grads = mlx.utils.tree_map(mx.add, before, grads)
        if not is_last:
            return loss, grads
        optimizer.update(module, mlx.utils.tree_map(lambda grad: grad / s.batches, grads))
        return loss, None

    def update():
        losses, grads = [], None
        for number, (x, y) in enumerate(batches, 1):
            loss, grads = take(x, y, grads, number == s.batches)
            mx.eval(loss, grads, state)
            losses.append(loss)
        return mx.stack(losses).mean()

    return update


def accumulate(s):
    """`step.accumulate` on the same batches."""
    (batches, params), step = _mlp_inputs(s, s.batches), _step(_mlp(s))
    return stepping(step.accumulate, *step.init(params), batches)


def alone(s, **options):
    """A step of this library, by default without `across`."""
    (batches, params), step = _mlp_inputs(s), _step(_mlp(s), **options)
    return stepping(step, *step.init(params), batches[0])


def across(s):
    """The same with `across` for a world of one process."""
    return alone(s, across=fp.world())


def separate_steps(s):
    """A compiled step of MLX for each model, one after another."""
    case, (((x, y),), _) = _mlp(s), _mlp_inputs(s)
    params = [fp_models.layer(case).init(mx.random.key(seed)) for seed in range(s.members)]
    steps = [raw_step(case, _module(case, each), (x,), y, True) for each in params]
    return lambda: mx.stack([step() for step in steps])


def members(s):
    """One step of all models, stacked."""
    case, (batches, _) = _mlp(s), _mlp_inputs(s)
    params = [fp_models.layer(case).init(mx.random.key(seed)) for seed in range(s.members)]
    many = fp.members(s.members)(_step(case))
    return stepping(many, *many.init(params), batches[0])


def trainer_of_mlx_lm(s):
    """Two epochs of mlx-lm's trainer. It pads rows with 0, and counts the first 0 of each row."""
    from trainers import train_theirs

    rows, steps = _rows(s), s.rows // s.batch

    def train():
        sizes = {"dims": s.dims, "layers": s.layers, "vocabulary": s.vocabulary}
        report = train_theirs(rows, 2 * steps, batch=s.batch, length=s.length, rate=TRAINER_RATE, **sizes)
        weighted = zip(report.losses[:steps], report.tokens[:steps], strict=True)
        loss = sum(loss * tokens for loss, tokens in weighted) / sum(report.tokens[:steps])
        return mx.array(loss), sum(report.seconds[steps:])

    return Trainer(train)


def packed(s):
    """Two epochs of `fit` on packed rows, each with a 0 at its end."""
    from trainers import llama, packed_rows, train_ours

    rows = packed_rows([([*tokens, 0], 0) for tokens, _ in _rows(s)], length=s.length, batch=s.batch)

    def train():
        layer, params = nn.split(llama(dims=s.dims, layers=s.layers, vocabulary=s.vocabulary))
        report = train_ours(lm.packed(layer), params, rows, epochs=2, rate=TRAINER_RATE)
        return mx.array(report.rows[0].loss), report.rows[1].seconds

    return Trainer(train)


PAIRS = {
    "accumulate": (accumulate_by_hand, accumulate),
    "across": (alone, across),
    "members": (separate_steps, members),
    "packed": (trainer_of_mlx_lm, packed),
}
"""The reference and our function of each pair, as functions of its sizes."""


def stepping(step, params, opt_state, batch):
    """Return a function that takes a step, waits for it, and returns the loss; it keeps the state of the last step."""
    state = [params, opt_state]

    def take():
        state[0], state[1], logs = step(*state, batch)
        mx.eval(state, logs)
        return logs["loss"]

    return take


def _mlp(s):
    """Return the case of a perceptron of these sizes."""
    return Case("", "mlp", tuple(vars(s).items()))


def _mlp_inputs(s, batches=1):
    """Return batches `(x, y)` of a perceptron, and its first parameters."""
    (x,), y = batch(_mlp(type(s)(**{**vars(s), "batch": batches * s.batch})))
    pieces = (mx.split(mx.array(array), batches) for array in (x, y))
    return list(zip(*pieces, strict=True)), fp_models.layer(_mlp(s)).init(mx.random.key(0))


def _module(case, params):
    """Return the module of MLX with parameters of a layer of ours."""
    module = mlx_models.module(case)
    module.load_weights(list(fp.flat(params).items()))
    mx.eval(module.parameters())
    return module


def _step(case, **options):
    loss = fp_models.loss
    return fp.train_step(fp_models.layer(case), lambda model, x, y: loss(case, model(x), y), adamw(), **options)


def _rows(s):
    from trainers import mixed_lengths, rows_of

    return rows_of(mixed_lengths(s.rows, s.length - 1), s.vocabulary)
