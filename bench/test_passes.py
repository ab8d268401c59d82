"""Passes and steps in turn against the same computation by hand, as ratios of interleaved turns."""

import mlx.core as mx
import mlx.nn
import mlx.optimizers
from mlx.utils import tree_flatten, tree_map
from paired import note, paired

import mlx_fp as fp
from mlx_fp import nn, optim, passes

WIDTH, ROWS, CLASSES = 64, 32, 10
RATE, RHO, CLIP = 0.05, 0.05, 1.0

X = mx.random.normal((ROWS, WIDTH), key=mx.random.key(0))
Y = mx.random.randint(0, CLASSES, (ROWS,), key=mx.random.key(1))


def perceptron(out):
    return nn.sequential(nn.linear(WIDTH, WIDTH), nn.relu, nn.linear(WIDTH, WIDTH), nn.relu, nn.linear(WIDTH, out))


MODEL = perceptron(CLASSES)


def loss(model, x, y):
    return nn.losses.cross_entropy(model(x), y, reduction="mean")


def value(params, x, y):
    h = x
    for i in (0, 2, 4):
        layer = params["layers"][i]
        h = mx.addmm(layer["bias"], h, layer["weight"].T)
        h = mx.maximum(h, 0) if i < 4 else h
    return mlx.nn.losses.cross_entropy(h, y, reduction="mean")


def updated(params, grads):
    return tree_map(lambda p, g: p - RATE * g, params, grads)


def length(grads):
    return mx.sqrt(sum(mx.square(g).sum() for _, g in tree_flatten(grads)))


def stepper(*verbs, model=MODEL):
    """Return a function that takes a step of the library on a state of its own, and waits for it."""
    step = fp.train_step(model, loss, optim.sgd(RATE), through=verbs)
    state = list(step.init(0))

    def take():
        state[0], state[1], logs = step(*state, (X, Y))
        mx.eval(state, logs)

    return take


def by_hand(take):
    """Return a function that takes a compiled step by hand on parameters of its own, and waits for it."""
    compiled, state = mx.compile(take), [MODEL.init(mx.random.key(0))]

    def call():
        state[0], logged = compiled(state[0], X, Y)
        mx.eval(state, logged)

    return call


def sam_by_hand(params, x, y):
    logged, grads = mx.value_and_grad(value)(params, x, y)
    scale = RHO / (length(grads) + 1e-12)
    uphill = tree_map(lambda p, g: p + scale * g, params, grads)
    return updated(params, mx.grad(value)(uphill, x, y)), logged


def private_by_hand(params, x, y):
    """Loop over the rows, without noise."""
    total, losses = tree_map(mx.zeros_like, params), []
    for i in range(ROWS):
        logged, grads = mx.value_and_grad(value)(params, x[i : i + 1], y[i : i + 1])
        share = mx.minimum(CLIP / (length(grads) + 1e-12), 1.0)
        total = tree_map(lambda t, g, s=share: t + s * g, total, grads)
        losses.append(logged)
    return updated(params, tree_map(lambda t: t / ROWS, total)), mx.stack(losses).mean()


def test_sam(benchmark):
    """A step with `sam` against one by hand, and against a plain step, which computes half as many passes."""
    functions = {"by hand": by_hand(sam_by_hand), "sam": stepper(passes.sam(RHO)), "plain": stepper()}
    note(benchmark, paired(functions, turns=60, calls=5, warm_up=5), "by hand")
    benchmark.pedantic(functions["sam"], rounds=5, iterations=5)


def test_private(benchmark):
    """A step with `private` against a compiled loop over rows, and against a plain step."""
    functions = {
        "loop": by_hand(private_by_hand),
        "private": stepper(passes.private(CLIP, 0)),
        "with noise": stepper(passes.private(CLIP, 1.0)),
        "plain": stepper(),
    }
    note(benchmark, paired(functions, turns=40, calls=2, warm_up=3), "loop")
    benchmark.pedantic(functions["private"], rounds=5, iterations=5)


PAIR = nn.branch(dis=perceptron(1), gen=perceptron(WIDTH))


def d_loss(model, x, y):
    return (model.dis(x) - 1).square().mean() + model.dis(model.gen(x)).square().mean()


def g_loss(model, x, y):
    return (model.dis(model.gen(x)) - 1).square().mean()


def members():
    d = fp.train_step(PAIR, d_loss, optim.adam(1e-4), trainable="dis")
    return {"d": d, "g": fp.train_step(PAIR, g_loss, optim.adam(1e-4), trainable="gen")}


def turns_in_one_call(**options):
    step = fp.in_turn(**members(), **options)
    state = list(step.init(0))

    def take():
        state[0], state[1], logs = step(*state, (X, Y))
        mx.eval(state, logs)

    return take


def turns_in_two_calls():
    steps = members()
    params, _ = steps["d"].init(0)
    state = [params, *(step.init(params)[1] for step in steps.values())]

    def take():
        logs = {}
        for i, (name, step) in enumerate(steps.items(), 1):
            state[0], state[i], logs[name] = step(state[0], state[i], (X, Y))
        mx.eval(state, logs)

    return take


def test_in_turn(benchmark):
    """One call of two members against two separate compiled calls, and with a turn of the second at each fifth step."""
    functions = {
        "two calls": turns_in_two_calls(),
        "in_turn": turns_in_one_call(),
        "every 5th": turns_in_one_call(every={"g": 5}),
    }
    note(benchmark, paired(functions, turns=60, calls=5, warm_up=5), "two calls")
    benchmark.pedantic(functions["in_turn"], rounds=5, iterations=5)
