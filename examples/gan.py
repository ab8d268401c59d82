"""Train a GAN on a mixture of eight Gaussians in the plane: two steps in turn, as one compiled step of a run."""

import math

import mlx.core as mx

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

NOISE, CENTRES, SPREAD = 8, 8, 0.1
ANGLES = mx.arange(CENTRES) * (2 * math.pi / CENTRES)
MIXTURE = 2 * mx.stack([mx.cos(ANGLES), mx.sin(ANGLES)], axis=1)

generator = nn.sequential(
    nn.linear(NOISE, 64), nn.batch_norm(64), nn.relu, nn.linear(64, 64), nn.batch_norm(64), nn.relu, nn.linear(64, 2)
)
discriminator = nn.sequential(nn.linear(2, 64), nn.leaky_relu, nn.linear(64, 64), nn.leaky_relu, nn.linear(64, 1))
model = nn.branch(dis=discriminator, gen=generator)


def generated(model, x):
    """Generate as many points as a batch has, from the random stream of the step."""
    return model.gen(mx.random.normal((len(x), NOISE)))


def says(logits, answer):
    """Return the loss of a discriminator that ought to give one answer, 1 for real points and 0 for others."""
    return nn.losses.binary_cross_entropy(logits, mx.full(logits.shape, answer)).mean()


def d_loss(model, x):
    real, fake = model.dis(x), model.dis(generated(model, x))
    return says(real, 1.0) + says(fake, 0.0), {"real": mx.sigmoid(real).mean()}


def g_loss(model, x):
    return says(model.dis(generated(model, x)), 1.0)


def turns(model, loss, optimizer, *, metrics):
    """Make the step of a run: in each step a turn of the discriminator, then a turn of the generator."""
    d = fp.train_step(model, d_loss, optim.adam(1e-3, betas=[0.5, 0.9]), trainable="dis")
    g = fp.train_step(model, loss, pipe(optimizer, optim.ema(0.99)), trainable="gen")
    return fp.in_turn(d=d, g=g)


def points(count: int, key: mx.array) -> mx.array:
    """Draw points of the mixture."""
    which, around = mx.random.split(key)
    centres = MIXTURE[mx.random.randint(0, CENTRES, (count,), key=which)]
    return centres + SPREAD * mx.random.normal((count, 2), key=around)


def main() -> tuple[int, float]:
    train = pipe(data.arrays(x=points(4096, mx.random.key(0))), data.shuffle(seed=0), data.batch(128))
    report = pipe(
        fp.trainer(model, g_loss, optimizer=optim.adam(1e-3, betas=[0.5, 0.9])),
        fp.with_step(turns),
        fp.fit(train, epochs=50, quiet=True),
    )
    averages = optim.averaged(report.opt_state)(report.params)
    sample = pipe(generator, nn.predictor(averages["gen"]))(mx.random.normal((2000, NOISE), key=mx.random.key(1)))
    distances = mx.linalg.norm(sample[:, None] - MIXTURE, axis=-1)
    near = distances < 4 * SPREAD
    counts = [int(near[:, i].sum()) for i in range(CENTRES)]
    for row in report.rows[::10]:
        print(f"epoch {row.epoch:2}  d_loss {row.metrics['d_loss']:.3f}  g_loss {row.metrics['g_loss']:.3f}")
    print(f"of 2000 points, {sum(counts)} are near a centre: {counts}")
    return sum(count > 30 for count in counts), sum(counts) / 2000


if __name__ == "__main__":
    main()
