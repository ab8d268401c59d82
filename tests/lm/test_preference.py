"""Tasks of preferences, against the formulas in NumPy, on a tiny model of mlx-lm."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from helpers import assert_close, assert_same_bits, assert_same_run, bits, changed
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.tuner.utils import linear_to_lora_layers
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, lm, nn, optim

PAIRS, VOCABULARY = 4, 24
SIZES = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCABULARY,
}


def module(adapters=False):
    mx.random.seed(3)
    made = Model(ModelArgs.from_dict(SIZES))
    if adapters:
        made.freeze()
        linear_to_lora_layers(made, 1, {"rank": 2, "scale": 4.0, "dropout": 0.0})
    mx.eval(made.parameters())
    return made


LLAMA, BEGUN = nn.split(module())
MODEL = nn.with_frozen(reference=(LLAMA, BEGUN))(LLAMA)


def moved(params, by=0.3):
    """Return parameters near the given ones."""
    return {path: leaf + by * mx.random.normal(leaf.shape, key=mx.random.key(i)) * mx.abs(leaf).mean()
            for i, (path, leaf) in enumerate(fp.flat(params).items())}  # fmt: skip


NOW = fp.restore_like(BEGUN, moved(BEGUN))
BATCH = {
    "chosen": mx.random.randint(0, VOCABULARY, (PAIRS, 7), key=mx.random.key(1)),
    "rejected": mx.random.randint(0, VOCABULARY, (PAIRS, 5), key=mx.random.key(2)),
    "chosen_mask": mx.array(
        [[0, 0, 1, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0, 0]]
    ),
    "rejected_mask": mx.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 1, 0, 0]]),
}


def log_probs(params, tokens, mask, layer=LLAMA):
    """Return the sum of the log-probabilities of the tokens of each completion, row by row, and their number."""
    logits = np.array(nn.predictor(params)(layer)(tokens), np.float64)
    logits = logits - logits.max(axis=-1, keepdims=True)
    logits = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    tokens, mask = np.array(tokens), np.array(mask)
    sums = [
        sum(logits[i, t - 1, tokens[i, t]] for t in range(1, tokens.shape[1]) if mask[i, t]) for i in range(len(tokens))
    ]
    return np.array(sums), mask[:, 1:].sum(axis=1)


def both(params, batch=BATCH, layer=LLAMA):
    return [log_probs(params, batch[name], batch[f"{name}_mask"], layer) for name in ("chosen", "rejected")]


def as_arrays(figures):
    return {name: mx.array(np.float32(value)) for name, value in figures.items()}


def step_of(loss, model=MODEL, rate=0.1, **options):
    return fp.train_step(model, loss, optim.sgd(rate), **options)


def log_sigmoid(x):
    return -np.logaddexp(0, -x)


DPO = {
    "sigmoid": lambda h, beta: -log_sigmoid(beta * h),
    "ipo": lambda h, beta: (h - 1 / (2 * beta)) ** 2,
    "hinge": lambda h, beta: np.maximum(0, 1 - beta * h),
    "smoothed": lambda h, beta: -0.9 * log_sigmoid(beta * h) - 0.1 * log_sigmoid(-beta * h),
}


# against the formulas --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DPO)
@pytest.mark.parametrize("beta", [0.1, 0.7])
@pytest.mark.usual("0.1-hinge", "0.7-ipo", "0.7-hinge", "0.7-smoothed")
def test_dpo_is_the_formula(kind, beta):
    options = {"label_smoothing": 0.1} if kind == "smoothed" else {"loss": kind}
    step = step_of(lm.dpo(beta=beta, **options).loss)
    _, _, logs = step(*step.init({**NOW, "reference": BEGUN}), BATCH)
    (chosen, _), (rejected, _) = both(NOW)
    (chosen_before, _), (rejected_before, _) = both(BEGUN)
    better, worse = chosen - chosen_before, rejected - rejected_before
    figures = {
        "loss": DPO[kind](better - worse, beta).mean(),
        "accuracy": (better > worse).mean(),
        "margin": beta * (better - worse).mean(),
        "chosen_reward": beta * better.mean(),
        "rejected_reward": beta * worse.mean(),
    }
    assert_close(logs, {name: as_arrays(figures)[name] for name in logs}, rtol=2e-4, atol=2e-5)


def test_orpo_is_the_formula():
    step = step_of(lm.orpo(beta=0.4).loss, LLAMA)
    _, _, logs = step(*step.init(NOW), BATCH)
    (chosen, n), (rejected, m) = both(NOW)
    chosen, rejected = chosen / n, rejected / m
    odds = [np.exp(each) / (1 - np.exp(each)) for each in (chosen, rejected)]
    ratio = np.log(odds[0] / odds[1])
    figures = {
        "loss": (-chosen - 0.4 * log_sigmoid(ratio)).mean(),
        "accuracy": (ratio > 0).mean(),
        "log_odds_ratio": ratio.mean(),
        "chosen_log_prob": chosen.mean(),
        "rejected_log_prob": rejected.mean(),
    }
    assert_close(logs, {name: as_arrays(figures)[name] for name in logs}, rtol=2e-4, atol=2e-5)


def plain_dpo(model, chosen, rejected, chosen_mask, rejected_mask):
    """Compute DPO with two calls for each model, in plain MLX."""

    def total(run, tokens, mask):
        logits = run(tokens[:, :-1])
        logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        picked = mx.take_along_axis(logits, tokens[:, 1:, None], axis=-1).squeeze(-1)
        return (picked * mask[:, 1:]).sum(axis=-1)

    before = [
        mx.stop_gradient(total(model.reference, *side)) for side in ((chosen, chosen_mask), (rejected, rejected_mask))
    ]
    now = [total(model, *side) for side in ((chosen, chosen_mask), (rejected, rejected_mask))]
    return -mx.log(mx.sigmoid(0.1 * ((now[0] - before[0]) - (now[1] - before[1])))).mean()


def plain_orpo(model, chosen, rejected, chosen_mask, rejected_mask):
    """Compute ORPO with two calls of the model, in plain MLX."""

    def average(tokens, mask):
        logits = model(tokens[:, :-1])
        logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        picked = mx.take_along_axis(logits, tokens[:, 1:, None], axis=-1).squeeze(-1)
        return (picked * mask[:, 1:]).sum(axis=-1) / mask[:, 1:].sum(axis=-1)

    p, q = average(chosen, chosen_mask), average(rejected, rejected_mask)
    odds = [mx.exp(each) / (1 - mx.exp(each)) for each in (p, q)]
    return (-p - 0.1 * mx.log(mx.sigmoid(mx.log(odds[0] / odds[1])))).mean()


@pytest.mark.parametrize(
    ("task", "plain", "model"), [(lm.dpo(), plain_dpo, MODEL), (lm.orpo(), plain_orpo, LLAMA)], ids=["dpo", "orpo"]
)
@pytest.mark.usual("dpo")
def test_the_gradient_is_that_of_two_calls_in_plain_mlx(task, plain, model):
    start = {**NOW, "reference": BEGUN} if model is MODEL else NOW
    results = []
    for loss in (task.loss, plain):
        step = step_of(loss, model)
        results.append(step(*step.init(start), BATCH))
    assert_close(results[0][2]["loss"], results[1][2]["loss"], rtol=1e-5)
    assert_close(results[0][0], results[1][0], rtol=1e-4, atol=2e-6)


# masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "model"), [(lm.dpo(), MODEL), (lm.orpo(), LLAMA)], ids=["dpo", "orpo"])
@pytest.mark.usual("dpo")
def test_padding_and_pairs_that_do_not_count_change_nothing(task, model):
    step = step_of(task.loss, model)
    params, state = step.init({**NOW, "reference": BEGUN} if model is MODEL else NOW)
    first = step(params, state, BATCH)
    longer = {name: mx.pad(rows, [(0, 0), (0, 4)]) for name, rows in BATCH.items()}
    more = {name: mx.concatenate([rows, rows[:2]]) for name, rows in BATCH.items()}
    counted = {**more, "mask": mx.array([1, 1, 1, 1, 0, 0])}
    keep = {"chosen_mask": [1, 1, 1, 1, 0, 1], "rejected_mask": [1, 1, 1, 1, 1, 0]}
    empty = {**more, **{name: more[name] * mx.array(keep[name])[:, None] for name in keep}}
    for batch in (longer, counted, empty):
        other = step(params, state, batch)
        assert_close(other[2], first[2], rtol=1e-5, atol=1e-5)
        assert_close(other[0], first[0], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_every_cutting_of_a_batch_gives_one_update():
    results = []
    for options in ({}, {"parts": 2}):
        step = step_of(lm.dpo().loss, **options)
        results.append(step(*step.init({**NOW, "reference": BEGUN}), BATCH))
    assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-6)
    assert_close(results[0][2], results[1][2], rtol=1e-5)


def test_a_certain_token_leaves_the_odds_finite():
    certain = nn.fn(lambda tokens: 200.0 * mx.eye(4)[(tokens + 1) % 4])
    model = nn.define(lambda m, tokens: m.certain(tokens) * m.scale, certain=certain, scale=nn.param((), init=1.0))
    step = step_of(lm.orpo().loss, model)
    batch = {"chosen": mx.array([[0, 1, 2, 3]]), "rejected": mx.array([[0, 2, 1, 3]])}
    params, _, logs = step(*step.init(0), batch)
    assert np.isfinite(logs["loss"].item())
    assert np.isfinite(params["scale"].item())


# the reference ---------------------------------------------------------------------------------------------------


def test_the_first_loss_is_log_2_and_the_weights_exist_once():
    step = step_of(lm.dpo().loss)
    params, state = step.init({**BEGUN, "reference": BEGUN})
    begun = bits(BEGUN)
    for i in range(3):
        params, state, logs = step(params, state, BATCH)
        if i == 0:
            assert_close(logs["loss"], mx.array(np.float32(np.log(2))))
    assert bits(params["reference"]) == bits(BEGUN) == begun
    assert logs["margin"].item() > 0
    assert step.traces == 1


def test_adapters_switched_off_are_the_reference_and_need_no_second_copy():
    layer, params = nn.split(module(adapters=True))
    base, _ = nn.split(module())
    step = step_of(lm.dpo(reference=nn.without_adapters).loss, layer, rate=1.0)
    beside = step_of(lm.dpo().loss, nn.with_frozen(reference=(base, BEGUN))(layer), rate=1.0)
    one, other = step.init(params), beside.init({**params, "reference": BEGUN})
    assert fp.size(one[0]) < fp.size(other[0])
    for i in range(4):
        *one, logs = step(*one, BATCH)
        *other, others = beside(*other, BATCH)
        assert_close(logs, others, rtol=2e-4, atol=2e-5)
        if i == 0:
            assert_close(logs["loss"], mx.array(np.float32(np.log(2))))
    assert logs["margin"].item() > 0.01
    assert {path.rpartition(".")[2] for path in changed(params, one[0])} == {"lora_a", "lora_b"}


def test_adapters_that_zero_does_not_switch_off_are_refused():
    with pytest.raises(ValueError, match="no adapter is there"):
        nn.without_adapters(BEGUN)
    made = Model(ModelArgs.from_dict(SIZES))
    made.freeze()
    linear_to_lora_layers(made, 1, {"rank": 2, "scale": 4.0, "dropout": 0.0}, use_dora=True)
    with pytest.raises(ValueError, match="magnitude"):
        nn.without_adapters(nn.split(made)[1])


# runs ------------------------------------------------------------------------------------------------------------


def test_a_run_prefers_the_chosen_and_resumes_to_the_bit_without_the_reference_in_the_file(tmp_path):
    train = pipe(data.arrays(**BATCH), data.shuffle(seed=5), data.batch(2))

    def fit(*verbs, **options):
        target = pipe(fp.trainer(MODEL, lm.dpo()), fp.with_optimizer(optim.adam(1e-2)), *verbs)
        start = {**BEGUN, "reference": BEGUN}
        return pipe(target, fp.fit(train, validation=train, epochs=3, quiet=True, params=start, **options))

    alone = fit()
    saved = fit(fp.checkpoints(tmp_path / "{step}", every_steps=1, trainable_only=True))
    assert set(fp.load(saved.checkpoints[-1]).left_out) == {f"reference.{path}" for path in fp.flat(BEGUN)}
    assert_same_run(fit(resume=tmp_path / "3"), alone)
    assert_same_bits(alone.params["reference"], BEGUN)
    assert alone.rows[-1].val_accuracy == 1.0
    assert alone.rows[-1].val_margin > alone.rows[0].val_margin
    assert not [path for path in fp.flat(alone.opt_state) if "reference" in path]


def test_a_run_of_orpo_prefers_the_chosen():
    train = pipe(data.arrays(**BATCH), data.batch(PAIRS))
    trainer = pipe(fp.trainer(LLAMA, lm.orpo()), fp.with_optimizer(optim.adam(1e-2)))
    report = pipe(trainer, fp.fit(train, validation=train, epochs=8, quiet=True, params=BEGUN))
    assert report.rows[-1].val_accuracy == 1.0
    assert report.rows[-1].val_chosen_log_prob > report.rows[0].val_chosen_log_prob


def test_options_and_batches_that_fit_nothing_are_refused():
    for options, text in (
        ({"beta": 0}, "beta of dpo is a finite number above 0; got 0"),
        ({"loss": "logistic"}, "one of 'sigmoid', 'hinge', 'ipo'; got 'logistic'"),
        ({"label_smoothing": 0.1, "loss": "ipo"}, "label_smoothing of dpo is for the loss 'sigmoid'"),
    ):
        with pytest.raises(ValueError, match=text):
            lm.dpo(**options)
    with pytest.raises(ValueError, match="beta of orpo"):
        lm.orpo(beta=-1)
    step = step_of(lm.dpo().loss, LLAMA)
    with pytest.raises(ValueError, match="calls the frozen layer 'reference'"):
        step(*step.init(BEGUN), BATCH)
    step = step_of(lm.orpo().loss, LLAMA)
    with pytest.raises(ValueError, match=r"of one n; they are \(4, 7\) and \(2, 5\)"):
        step(*step.init(BEGUN), {"chosen": BATCH["chosen"], "rejected": BATCH["rejected"][:2]})
    with pytest.raises(ValueError, match=r"rejected_mask has the shape of rejected, \(4, 5\); it is \(4, 7\)"):
        step(*step.init(BEGUN), {**BATCH, "rejected_mask": BATCH["chosen_mask"]})
