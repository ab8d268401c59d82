"""A function gets what it names, whatever way it names it, and a misfit is told when the pipeline is built."""

from __future__ import annotations

import functools

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.core._batch_call import call_with_batch
from mlx_fp.core._context import with_context
from mlx_fp.core._signature import arguments, name_of

OFFERS = ("epoch", "index", "kind")
CONTEXT = {"epoch": 3, "index": 5, "kind": "train"}


def positional_only(row, epoch, kind, /):
    return row, epoch, kind


def positional_only_after_a_default(row, rate=0.5, epoch=None, /):
    return row, rate, epoch


def positional_only_and_extras(row, epoch, /, **rest):
    return row, epoch, rest


def mixed(row, epoch, /, index, *, kind="none", rate=0.5):
    return row, epoch, index, kind, rate


FITS = {
    "nothing but the value": (lambda row: row, "row"),
    "positional or keyword": (lambda row, index: (row, index), ("row", 5)),
    "another order": (lambda row, kind, epoch: (row, kind, epoch), ("row", "train", 3)),
    "keyword only": (lambda row, *, epoch, rate=2: (row, epoch, rate), ("row", 3, 2)),
    "positional only": (positional_only, ("row", 3, "train")),
    "positional only after a default": (positional_only_after_a_default, ("row", 0.5, 3)),
    "positional only and the rest": (positional_only_and_extras, ("row", 3, {"index": 5, "kind": "train"})),
    "mixed": (mixed, ("row", 3, 5, "train", 0.5)),
    "default kept": (lambda row, rate=0.5: (row, rate), ("row", 0.5)),
    "default on offer is filled": (lambda row, epoch=0: (row, epoch), ("row", 3)),
    "kwargs": (lambda row, **rest: (row, rest), ("row", CONTEXT)),
    "kwargs beside a name": (lambda row, epoch, **rest: (row, epoch, rest), ("row", 3, {"index": 5, "kind": "train"})),
    "args": (lambda *rows: rows, ("row",)),
    "args beside a name": (lambda *rows, epoch: (rows, epoch), (("row",), 3)),
    "no argument at all": (lambda: "nothing", "nothing"),
    "context without the value": (lambda *, epoch: epoch, 3),
    "partial": (functools.partial(lambda rate, row, epoch: (rate, row, epoch), 0.1), (0.1, "row", 3)),
    "builtin": (str, "row"),
}


@pytest.mark.parametrize("case", FITS, ids=str)
def test_named_gives_what_is_named(case):
    fn, expected = FITS[case]
    assert with_context(fn, offers=OFFERS)("row", **CONTEXT) == expected


def test_named_takes_a_builtin_without_a_signature():
    assert with_context(max, offers=OFFERS)([1, 3, 2], **CONTEXT) == 3


def test_named_takes_bound_methods_and_callable_objects():
    class Scale:
        name = "scale"

        def __call__(self, row, epoch):
            return row * epoch

        def shift(self, row, *, index):
            return row + index

    assert with_context(Scale(), offers=OFFERS)(2, **CONTEXT) == 6
    assert with_context(Scale().shift, offers=OFFERS)(2, **CONTEXT) == 7


def test_named_with_no_value_is_a_factory():
    call = functools.partial(with_context, offers=("epoch", "kind"), values=0)
    given = {"epoch": 1, "kind": "train"}
    assert call(list)(**given) == []
    assert call(lambda epoch: epoch)(**given) == 1
    assert call(lambda kind, /, epoch: (kind, epoch))(**given) == ("train", 1)
    assert call(lambda **kw: kw)(**given) == given


def test_named_leaves_out_the_last_values_that_have_no_room():
    assert with_context(lambda memory: memory, offers=(), values=2)("memory", "event") == "memory"
    assert with_context(lambda memory, event: (memory, event), offers=(), values=2)("memory", "event") == (
        "memory",
        "event",
    )
    assert with_context(lambda *values: values, offers=(), values=2)("memory", "event") == ("memory", "event")


@pytest.mark.parametrize("fn", [lambda row, epohc: row, lambda row, *, epohc: row, lambda row, epohc, /: row])
def test_named_refuses_a_required_name_when_built(fn):
    with pytest.raises(TypeError, match=r"map function '<lambda>' requires 'epohc'.*'epoch'.*epoch, index, kind"):
        with_context(fn, offers=OFFERS, what="map function")


def test_named_says_when_nothing_is_on_offer():
    with pytest.raises(TypeError, match=r"requires 'shard'.*it may name: nothing"):
        with_context(lambda shard: shard, offers=(), values=0)


def test_an_error_inside_comes_out_as_itself():
    thrown = TypeError("mine")

    def broken(row, epoch):
        raise thrown

    with pytest.raises(TypeError) as caught:
        with_context(broken, offers=OFFERS)("row", **CONTEXT)
    assert caught.value is thrown


@given(st.lists(st.sampled_from([*OFFERS, "a", "b"]), unique=True), st.booleans())
def test_named_agrees_with_python_for_any_signature(names, keyword_only):
    """Names on offer are filled, others keep their default."""
    text = ", ".join(f"{n}=-1" for n in names)
    text = f"row, {'*, ' if keyword_only and names else ''}{text}"
    fn = eval(f"lambda {text}: (row, dict({', '.join(f'{n}={n}' for n in names)}))")
    assert with_context(fn, offers=OFFERS)("row", **CONTEXT) == ("row", {n: CONTEXT.get(n, -1) for n in names})


def test_arguments_lets_what_fits_pass():
    assert arguments(lambda dims, bias=True: None, (3,), {}) == {"dims": 3, "bias": True}
    assert arguments(lambda dims, **kw: None, (3,), {"anything": 1}) == {"dims": 3, "anything": 1}
    assert arguments(lambda *xs: None, (1, 2, 3), {}) == {}
    assert arguments(max, (1,), {"anything": 1}) == {}


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((3,), {"bais": False}, "scale: unknown option 'bais': did you mean 'bias'. known: dims, bias"),
        ((), {}, r"scale: missing a required argument: 'dims'; it takes \(dims, bias=True\)"),
        ((1, 2, 3), {}, r"scale: too many positional arguments; it takes \(dims, bias=True\)"),
        ((1,), {"dims": 2}, "scale: multiple values for argument 'dims'"),
    ],
)
def test_arguments_names_what_does_not_fit(args, kwargs, words):
    def scale(dims, bias=True):
        """Never called."""

    with pytest.raises(TypeError, match=words):
        arguments(scale, args, kwargs)


def test_spread_by_name_by_position_and_whole():
    assert call_with_batch(lambda model, x, *, y: (model, x, y), "m", {"y": 2, "x": 1}) == ("m", 1, 2)
    assert call_with_batch(lambda model, x, y: (model, x, y), "m", (1, 2)) == ("m", 1, 2)
    assert call_with_batch(lambda model, x, y: (model, x, y), "m", [1, 2]) == ("m", 1, 2)
    assert call_with_batch(lambda model, batch: (model, batch), "m", 1) == ("m", 1)
    assert call_with_batch(lambda model, x, /, y=5: (model, x, y), "m", (1,)) == ("m", 1, 5)
    assert call_with_batch(lambda model, *rest: (model, rest), "m", (1, 2, 3)) == ("m", (1, 2, 3))
    assert call_with_batch(lambda model, x, **rest: (model, x, rest), "m", {"x": 1, "y": 2}) == ("m", 1, {"y": 2})
    assert call_with_batch(lambda model, x=0, y=0: (model, x, y), "m", {"y": 2}) == ("m", 0, 2)
    assert call_with_batch(max, [1, 5], ([3, 4],)) == [3, 4]


@pytest.mark.parametrize(
    ("fn", "batch", "words"),
    [
        (lambda model, x, y: 0, {"x": 1}, r"takes \(x, y\) but the batch has keys \(x\): no key fills 'y'"),
        (lambda model, x, *, y: 0, {"x": 1, "z": 2}, r"takes \(x, y\).*keys \(x, z\): no key fills 'y'; no param.*'z'"),
        (lambda model, x: 0, {"x": 1, "model": 2}, "no parameter takes 'model'"),
        (lambda model, x, /: 0, {"x": 1}, "no parameter takes 'x'"),
        (lambda model, **kw: 0, {"x y": 1, "z": 2}, r"batch key 'x y' is not an identifier.*keys \(x y, z\)"),
        (lambda model, **kw: 0, {0: 1}, r"batch key 0 is not an identifier.*keys \(0\)"),
        (lambda model, x, y: 0, (1,), r"takes \(x, y\) but the batch has 1 value;"),
        (lambda model, x: 0, (1, 2), r"takes \(x\) but the batch has 2 values;"),
        (lambda model, x, *, y: 0, (1, 2), r"takes \(x, y\) but the batch has 2 values; a dict batch fills .* by name"),
        (lambda model: 0, mx.array(1), r"takes \(\) but the batch has 1 value;"),
    ],
)
def test_spread_names_both_sides(fn, batch, words):
    with pytest.raises(TypeError, match="metric '<lambda>'.*" + words):
        call_with_batch(fn, "m", batch, "metric")


def test_a_dict_batch_reaches_a_keyword_only_loss_through_the_compiled_step():
    step = fp.train_step(
        nn.linear(2, 1), lambda m, *, x, y, scale=2.0: scale * ((m(x) - y) ** 2).mean(), optim.sgd(0.1)
    )
    params, state = step.init(0)
    x, y = mx.ones((4, 2)), mx.zeros((4, 1))
    expected = 2 * (step.computation.model.apply(params, x)[0] ** 2).mean()
    _, _, logs = step(params, state, {"y": y, "x": x})
    assert logs["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    with pytest.raises(TypeError, match=r"loss '<lambda>' takes \(x, y, scale\).*keys \(x\): no key fills 'y'"):
        step(params, state, {"x": x})
    with pytest.raises(TypeError, match="'pixel values' is not an identifier"):
        step(params, state, {"pixel values": x})


def test_name_of():
    class Named:
        name = "given"

    assert [name_of(f) for f in (len, Named, Named(), functools.partial(len))] == ["len", "Named", "given", "partial"]
