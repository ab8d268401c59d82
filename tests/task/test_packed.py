"""Language modeling on packed rows: the loss and the gradients are those of the sequences one by one."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from helpers import assert_close, assert_packed_as_single, packed_batches
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim

WORDS, DIMS = 60, 8


def decoder(layers=1, wrap=lambda block: block):
    """A transformer with learned positions, written by hand."""

    def block(m, x, mask=None):
        x = x + m.attention(y := m.norm(x), y, y, mask)
        return x + m.feed(x)

    def forward(m, tokens, mask=None, positions=None):
        places = mx.arange(tokens.shape[1]) if positions is None else positions
        causal = nn.segment_mask(mx.ones_like(tokens)) if mask is None else mask
        x = m.embed(tokens) + m.places(places)
        for i in range(layers):
            x = getattr(m, f"block{i}")(x, causal)
        return m.head(x)

    def new():
        part = nn.define(
            block, norm=nn.layer_norm(DIMS), attention=nn.multi_head_attention(DIMS, 2), feed=nn.linear(DIMS, DIMS)
        )
        return wrap(part)

    blocks = {f"block{i}": new() for i in range(layers)}
    head = nn.linear(DIMS, WORDS)
    return nn.define(forward, embed=nn.embedding(WORDS, DIMS), places=nn.embedding(16, DIMS), head=head, **blocks)


def test_packed_sequences_train_a_transformer_as_the_sequences_one_by_one():
    assert_packed_as_single(decoder(), decoder())


@pytest.mark.parametrize("wrap", [nn.remat, nn.wide])
@pytest.mark.usual("remat")
def test_parts_of_the_transformer_may_be_wrapped(wrap):
    assert_packed_as_single(wrap(decoder(wrap=wrap)), decoder(), compile=False)


def test_a_model_may_make_its_mask_of_the_segments():
    inner = decoder()

    def forward(m, tokens, segments=None, positions=None):
        return m.inner(tokens, None if segments is None else nn.segment_mask(segments), positions)

    model = nn.define(forward, inner=inner)
    assert_packed_as_single(model, model, compile=False)


@pytest.mark.parametrize("how", ["best_fit", "first_fit", "concat"])
def test_no_token_depends_on_another_segment(how):
    model, task = decoder(), fp.language_modeling()
    params = nn.init(0)(model)
    (batch,) = packed_batches(how, rows=9)
    other = dict(batch, tokens=mx.where(batch["segments"] == 1, (batch["tokens"] + 1) % WORDS, batch["tokens"]))
    one, two = (
        model.apply(params, shaped["x"], nn.segment_mask(shaped["segments"]), shaped["positions"])[0]
        for shaped in map(task.collate, (batch, other))
    )
    outside = (batch["segments"][:, :-1] != 1)[..., None]
    assert_close(one * outside, two * outside)
    assert mx.abs(one - two).max().item() > 1e-3


def test_the_labels_are_the_next_tokens_of_the_segment_that_the_mask_counts():
    tokens = mx.array([[5, 6, 7, 8, 9, 0]])
    segments, mask = mx.array([[1, 1, 1, 2, 2, 0]]), mx.array([[0, 0, 1, 1, 1, 0]])
    collate = fp.language_modeling().collate
    batch = collate({"tokens": tokens, "segments": segments, "mask": mask})
    assert batch["x"].tolist() == [[5, 6, 7, 8, 9]]
    assert batch["y"].tolist() == [[6, 7, 8, 9, 0]]
    assert batch["mask"].tolist() == [[False, True, False, True, False]]
    assert collate({"tokens": tokens, "mask": mask})["mask"].tolist() == [[False, True, True, True, False]]
    assert "segments" not in collate({"tokens": tokens, "mask": mask})
    numpy = collate({"tokens": np.array(tokens), "segments": np.array(segments), "mask": np.array(mask)})
    assert numpy["mask"].tolist() == batch["mask"].tolist()


def test_a_run_trains_on_packed_rows():
    rows = [[(3 * j + i) % WORDS for j in range(2 + i % 9)] for i in range(40)]
    train = pipe(data.source(rows), data.pack(16), data.shuffle(seed=1), data.batch(4, drop_last=True))
    trainer = pipe(fp.trainer(decoder(), fp.language_modeling()), fp.with_optimizer(optim.adam(1e-2)))
    report = fp.fit(train, validation=train, epochs=2, quiet=True)(trainer)
    assert report.rows[-1].epoch_loss < report.rows[0].epoch_loss
    assert report.rows[0].val_perplexity > report.rows[-1].val_perplexity


@pytest.mark.parametrize(
    "model",
    [
        nn.sequential(nn.embedding(WORDS, WORDS)),
        nn.sequential(nn.embedding(WORDS, WORDS), lambda x, mask=None: x),
        nn.sequential(nn.define(lambda m, x, mask=None: m.e(x), e=nn.embedding(WORDS, WORDS)), lambda x, mask=None: x),
        nn.define(lambda m, tokens, **rest: m.embed(tokens), embed=nn.embedding(WORDS, WORDS)),
    ],
    ids=["no attention", "a later part", "two parts", "any keyword"],
)
def test_segments_that_a_model_cannot_take_are_an_error(model):
    step = fp.train_step(model, fp.language_modeling().loss, optim.sgd(0.1), compile=False)
    batch = fp.language_modeling().collate(packed_batches()[0])
    with pytest.raises(ValueError, match="takes neither `mask` nor `segments`, so tokens would attend other sequences"):
        step(*step.init(0), batch)
    batch = {name: column for name, column in batch.items() if name != "segments"}
    assert step(*step.init(0), batch)[2]["loss"].item() > 0


def test_columns_of_different_shapes_are_refused():
    tokens = mx.zeros((2, 5), mx.int32)
    for other in (mx.zeros((2, 4), mx.int32), mx.zeros((2,), mx.int32)):
        with pytest.raises(ValueError, match=r"arrays \(n, tokens \+ 1\) of one shape; mask is"):
            fp.language_modeling().collate({"tokens": tokens, "mask": other})
