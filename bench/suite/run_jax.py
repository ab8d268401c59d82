"""JAX: plain functions over a dict of arrays by MLX's paths, `jit`, and optax with donated buffers."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from .cases import ADAMW, dims

FIXED_LAYOUT = ("embed.weight", "places.weight")


def versions():
    return {"jax": jax.__version__, "optax": optax.__version__}


def prepare(way, case, mode, weights, batch):
    """A function that takes one step, or runs one forward pass, waits for all of it, and returns loss or output."""
    params = {path: jnp.array(_layout(path, leaf)) for path, leaf in weights.items()}
    inputs, target = jax.tree.map(jnp.array, batch)
    if mode == "forward":
        call = jax.jit(lambda params, xs: model(case, params, *xs))
        return lambda: jax.block_until_ready(call(params, inputs))
    return _step(case, params, inputs, target)


def _step(case, params, inputs, target):
    optimizer = optax.adamw(ADAMW.rate, *ADAMW.betas, eps=ADAMW.eps, weight_decay=ADAMW.decay)

    def step(params, memory, xs, y):
        value, grads = jax.value_and_grad(lambda params: loss(case, model(case, params, *xs), y))(params)
        updates, memory = optimizer.update(grads, memory, params)
        return optax.apply_updates(params, updates), memory, value

    compiled = jax.jit(step, donate_argnums=(0, 1))
    state = [params, optimizer.init(params)]

    def run():
        state[0], state[1], value = compiled(state[0], state[1], inputs, target)
        jax.block_until_ready((state, value))
        return value

    return run


def _layout(path, leaf):
    """JAX's usual layouts: (in, out) for products, (height, width, in, out) for convolutions."""
    if leaf.ndim == 4:
        return leaf.transpose(1, 2, 3, 0)
    return leaf.T if leaf.ndim == 2 and path not in FIXED_LAYOUT else leaf


def loss(case, output, y):
    """The scalar loss of a case."""
    if case.squared:
        return jnp.mean((output - y) ** 2)
    return optax.softmax_cross_entropy_with_integer_labels(output, y).mean()


def model(case, p, *xs):
    """The output of a case's model."""
    return {"mlp": mlp, "cnn": cnn, "rnn": rnn, "transformer": transformer, "gpt": gpt}[case.family](case, p, *xs)


def mlp(case, p, x):
    last = 2 * (len(dims(case)) - 2)
    for i in range(0, last, 2):
        x = jax.nn.relu(linear(p, f"layers.{i}", x))
    return linear(p, f"layers.{last}", x)


def cnn(case, p, x):
    for name in ("conv1", "conv2"):
        x = lax.conv_general_dilated(x, p[f"{name}.weight"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + p[f"{name}.bias"])
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return linear(p, "head", x.reshape(x.shape[0], -1))


def rnn(case, p, x):
    x = x @ p["rnn.Wxh"] + p["rnn.bias"]

    def cell(hidden, x):
        hidden = jnp.tanh(x + hidden @ p["rnn.Whh"])
        return hidden, hidden

    _, every = lax.scan(cell, jnp.zeros((x.shape[0], x.shape[2])), x.swapaxes(0, 1))
    return every.swapaxes(0, 1)


def transformer(case, p, source, target):
    memory, s = source, case.size
    for i in range(s.layers):
        memory = _encoder_layer(p, f"body.encoder.layers.{i}", memory, s.heads, False, jax.nn.relu)
    memory, x = norm(p, "body.encoder.ln", memory), target
    for i in range(s.layers):
        at = f"body.decoder.layers.{i}"
        y = norm(p, f"{at}.ln1", x)
        x = x + attention(p, f"{at}.self_attention", y, y, s.heads, True)
        x = x + attention(p, f"{at}.cross_attention", norm(p, f"{at}.ln2", x), memory, s.heads, False)
        x = x + _feed_forward(p, at, norm(p, f"{at}.ln3", x), jax.nn.relu)
    return norm(p, "body.decoder.ln", x)


def gpt(case, p, tokens):
    x = p["embed.weight"][tokens] + p["places.weight"][: tokens.shape[1]]
    for i in range(case.size.layers):
        x = _encoder_layer(p, f"body.layers.{i}", x, case.size.heads, True, lambda x: jax.nn.gelu(x, approximate=False))
    return norm(p, "body.ln", x) @ p["head.weight"]


def _encoder_layer(p, at, x, heads, causal, activation):
    y = norm(p, f"{at}.ln1", x)
    x = x + attention(p, f"{at}.attention", y, y, heads, causal)
    return x + _feed_forward(p, at, norm(p, f"{at}.ln2", x), activation)


def _feed_forward(p, at, x, activation):
    return linear(p, f"{at}.linear2", activation(linear(p, f"{at}.linear1", x)))


def linear(p, at, x):
    return x @ p[f"{at}.weight"] + p[f"{at}.bias"]


def norm(p, at, x):
    centred = x - x.mean(-1, keepdims=True)
    scale = lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return centred * scale * p[f"{at}.weight"] + p[f"{at}.bias"]


def attention(p, at, x, memory, heads, causal):
    def split(y):
        return y.reshape(*y.shape[:2], heads, -1)

    q = split(x @ p[f"{at}.query_proj.weight"])
    k = split(memory @ p[f"{at}.key_proj.weight"])
    v = split(memory @ p[f"{at}.value_proj.weight"])
    y = jax.nn.dot_product_attention(q, k, v, is_causal=causal)
    return y.reshape(x.shape) @ p[f"{at}.out_proj.weight"]
