"""Monitor the held-out F1 score: reduce the learning rate on a plateau, stop early, and print the reason."""

import mlx.core as mx
import numpy as np
from sklearn.datasets import load_wine

import mlx_fp as fp
from mlx_fp import data, metrics, nn, optim, pipe

SEED = 3


def wine() -> data.Dataset:
    """Return 178 wines: 13 standardised measurements, and the grower, one of three."""
    measurements, growers = load_wine(return_X_y=True)
    x = (measurements - measurements.mean(axis=0)) / measurements.std(axis=0)
    return data.arrays(x=x.astype(np.float32), y=growers.astype(np.int32))


def careful(patience: int = 4):
    """Return a verb with settings that several runs share: a pack."""

    def verb(trainer: fp.Trainer) -> fp.Trainer:
        return pipe(
            trainer,
            fp.with_metrics(metrics.f1(3)),
            fp.monitor("val_f1", mode="max", min_delta=1e-3),
            fp.plateau(0.5, patience=max(patience // 2, 1)),
            fp.early_stop(patience),
        )

    return verb


packs = fp.Registry("pack").add("careful", careful)


def main() -> fp.Report:
    train, held_out = pipe(wine(), data.split((0.7, 0.3), seed=SEED))
    rates = []
    report = pipe(
        fp.trainer(nn.sequential(nn.linear(13, 16), nn.relu, nn.linear(16, 3)), fp.classification()),
        fp.with_optimizer(optim.adam(1e-2)),
        fp.with_named(packs, "careful", patience=4),
        fp.on("after_epoch", lambda e: rates.append(e.state.opt_state["optimizer"]["learning_rate"].item())),
        fp.fit(
            pipe(train, data.shuffle(seed=SEED), data.batch(16)),
            validation=data.batch(64)(held_out),
            epochs=200,
            quiet=True,
        ),
    )
    print(report)
    print(f"\nbest {report.monitor_name} {report.best_value:.3f} in epoch {report.best_epoch}; {report.stop_reason}")
    print(f"learning rate from {rates[0]:g} to {rates[-1]:g}")
    return report


if __name__ == "__main__":
    mx.random.seed(SEED)
    main()
