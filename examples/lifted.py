"""Train a plain mlx.nn.Module and get a plain mlx.nn.Module back, with `lift`, `split` and `lower`."""

import mlx.core as mx
import mlx.nn

import mlx_fp as fp
from mlx_fp import nn, optim, pipe


class Autoencoder(mlx.nn.Module):
    """A module written without this library: (n, dims) -> (n, dims)."""

    def __init__(self, dims: int, hidden: int):
        super().__init__()
        self.encoder = mlx.nn.Linear(dims, hidden)
        self.norm = mlx.nn.BatchNorm(hidden)
        self.decoder = mlx.nn.Linear(hidden, dims)

    def __call__(self, x):
        return self.decoder(mlx.nn.tanh(self.norm(self.encoder(x))))


def reconstruction(model, x):
    return nn.losses.mse_loss(model(x), x)


def train(model, params, x, steps: int = 300):
    step = fp.train_step(model, reconstruction, optim.adam(1e-2))
    params, opt_state = step.init(params)
    losses = []
    for _ in range(steps):
        params, opt_state, logs = step(params, opt_state, x)
        losses.append(logs["loss"])
    return params, losses[-1].item()


def main() -> mlx.nn.Module:
    x = mx.random.normal((128, 3), key=mx.random.key(0)) @ mx.random.normal((3, 8), key=mx.random.key(1))

    from_class = nn.lift(Autoencoder, 8, hidden=4)  # a Layer: nn.init makes its parameters
    _, loss = train(from_class, nn.init(0)(from_class), x)
    print(f"lifted class: loss {loss:.4f}")

    module = Autoencoder(8, 4)  # a module with weights, for example a pretrained one
    module.encoder.freeze()
    from_module, params = nn.split(module)  # its computation and its arrays; frozen parts stay frozen
    trained, loss = train(from_module, params, x)
    print(f"split module: loss {loss:.4f}, encoder unchanged:", end=" ")
    print(mx.array_equal(trained["encoder"]["weight"], module.encoder.weight).item())

    lowered = pipe(trained, lambda params: nn.lower(from_module, params))
    lowered.eval()
    print("lowered:", type(lowered).__name__, "reconstructs", lowered(x).shape)
    return lowered


if __name__ == "__main__":
    main()
