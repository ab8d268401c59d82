"""Learn to walk through a grid by deep Q-learning, with a target network: a step in turn with a copy of weights."""

import random
from collections import deque
from collections.abc import Sequence

import mlx.core as mx

import mlx_fp as fp
from mlx_fp import nn, optim

SIZE, GOAL, PITS = 5, (4, 4), {(1, 1), (1, 2), (3, 1), (3, 3), (2, 3)}
MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))
DISCOUNT, LONGEST = 0.95, 30

Place = tuple[int, int]
Transition = tuple[Place, int, float, Place, bool]
"""Place, action, reward, next place, and whether the walk is over."""


def network():
    return nn.sequential(nn.linear(2 * SIZE, 64), nn.relu, nn.linear(64, len(MOVES)))


model = nn.branch(online=network(), target=network())


def moved(place: Place, action: int) -> tuple[Place, float, bool]:
    """Take an action: `(place, reward, is the walk over)`. The walls of the grid hold."""
    row, column = (min(max(at + by, 0), SIZE - 1) for at, by in zip(place, MOVES[action], strict=True))
    place = row, column
    reward = 1.0 if place == GOAL else -1.0 if place in PITS else -0.02
    return place, reward, place == GOAL or place in PITS


def one_hot(places: Sequence[Place]) -> mx.array:
    """Return rows and columns as features: `(n, 2 * SIZE)`."""
    at = mx.array(list(places))
    return mx.concatenate([(at[:, i : i + 1] == mx.arange(SIZE)).astype(mx.float32) for i in range(2)], axis=1)


def td_loss(model, now, action, reward, then, over):
    """Return the error of the online network against the best value that the target network expects next."""
    expected = reward + DISCOUNT * (1 - over) * model.target(then).max(axis=1)
    value = mx.take_along_axis(model.online(now), action[:, None], axis=1)[:, 0]
    return nn.losses.huber_loss(value, expected, reduction="mean")


step = fp.in_turn(
    q=fp.train_step(model, td_loss, optim.adam(2e-3), trainable="online"),
    target=lambda params: {**params, "target": params["online"]},
    every={"target": 50},
)
evaluate = mx.compile(lambda params, features: model.apply(params, features)[0][0])
PLACES = [(row, column) for row in range(SIZE) for column in range(SIZE)]


def best_actions(params) -> dict[Place, int]:
    """Return the action of the highest value for each place."""
    return dict(zip(PLACES, evaluate(params, one_hot(PLACES)).argmax(axis=1).tolist(), strict=True))


def walk(best: dict[Place, int], random_share: float, draw: random.Random) -> list[Transition]:
    """Walk once, with a share of random actions."""
    place, over = (0, 0), False
    taken: list[Transition] = []
    while not over and len(taken) < LONGEST:
        action = draw.randrange(len(MOVES)) if draw.random() < random_share else best[place]
        then, reward, over = moved(place, action)
        taken.append((place, action, reward, then, over))
        place = then
    return taken


def batch_of(transitions: Sequence[Transition]) -> dict[str, mx.array]:
    now, action, reward, then, over = zip(*transitions, strict=True)
    columns = {"action": mx.array(action), "reward": mx.array(reward), "over": mx.array(over, mx.float32)}
    return {"now": one_hot(now), "then": one_hot(then), **columns}


def main() -> tuple[int, float]:
    draw = random.Random(0)
    memory: deque[Transition] = deque(maxlen=4000)
    params, opt_state = step.init(0)
    params = {**params, "target": params["online"]}
    for i in range(150):
        memory += walk(best_actions(params), max(0.1, 1 - i / 100), draw)
        loss = mx.array(0.0)
        for _ in range(8):
            params, opt_state, logs = step(params, opt_state, batch_of(draw.choices(memory, k=64)))
            loss = logs["q_loss"]
        if i % 30 == 29:
            reward = sum(reward for _, _, reward, _, _ in walk(best_actions(params), 0.0, draw))
            print(f"walk {i + 1:3}  loss {loss.item():.4f}  reward of the best walk {reward:.2f}")
    best = walk(best_actions(params), 0.0, draw)
    print(" -> ".join(f"{row},{column}" for row, column in [(0, 0), *(then for _, _, _, then, _ in best)]))
    print(f"{step.traces} trace")
    return len(best), sum(reward for _, _, reward, _, _ in best)


if __name__ == "__main__":
    main()
