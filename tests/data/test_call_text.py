"""Operations print as they were written."""

import pytest

from mlx_fp import data


@pytest.mark.parametrize(
    "text",
    [
        "batch(8)",
        "batch(8, drop_last=True)",
        "batch(8, stack=list)",
        "bind({'x': 'image'})",
        "bucket(len, boundaries=(4, 8), batch_size=2)",
        "bucket(len, boundaries=(4, 8), batch_size=2, drop_last=True)",
        "cache()",
        "collate('xy')",
        "collate(len)",
        "collate({'x': 'image', 'y': ('meta', 0), 'n': len})",
        "enumerate()",
        "enumerate(5)",
        "filter(len)",
        "flat_map(list)",
        "map(str)",
        "pad()",
        "pad(multiple_of=4)",
        "pad(to=(4, 8), value={'y': -100}, side='left', lengths='n')",
        "prefetch(2)",
        "repeat()",
        "repeat(3)",
        "sample([1, 2.5], seed=7, n=10)",
        "schema(x=('float32', (None, 3)), y='int32', z=2)",
        "schema('float32', (4,))",
        "shard(1, 2)",
        "shard(1, 2, drop_last=True)",
        "shuffle(seed=7)",
        "shuffle(seed=7, window=3)",
        "skip(2)",
        "split((0.8, 0.2), seed=7)",
        "take(2)",
        "tap(print)",
        "unbatch()",
        "window(3)",
        "window(3, step=2)",
    ],
)
def test_an_operation_prints_as_it_was_written(text):
    names = {name: getattr(data, name) for name in data.__all__}
    assert repr(eval(text, {"list": list, "len": len, **names})) == text  # `map` and `filter` are those of data


def test_a_random_map_prints_its_seed():
    def noisy(row, key): ...

    assert repr(data.map(noisy, key=7)) == "map(noisy, key=7)"


def test_many_weights_are_counted_and_not_printed():
    assert repr(data.sample([1.0] * 1000, seed=7)) == "sample(1000 weights, seed=7)"


def test_a_split_prints_the_same_for_each_sequence_of_fractions():
    assert repr(data.split([0.5, 0.5], seed=1)) == "split((0.5, 0.5), seed=1)"
