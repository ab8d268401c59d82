"""The numbers that a function reads from outside."""

from functools import partial

import mlx.core as mx

from mlx_fp.compile._constants import outer_numbers

RATE = 0.5


class Loss:
    def __init__(self):
        self.weight = 2.0

    def call(self, x):
        return self.weight * x


def test_of_methods_partials_and_functions_that_are_called():
    def inner(x):
        return x * RATE

    def outer(x, y):
        return inner(x) + y

    assert outer_numbers(Loss().call) == {"Loss.weight": 2.0}
    assert outer_numbers(partial(outer, y=3)) == {"RATE": 0.5}


def test_arrays_modules_classes_and_builtins_have_none():
    array = mx.ones((2,))

    def loss(x):
        return mx.mean(x * array) + len(Loss.__name__)

    assert outer_numbers(loss) == outer_numbers(print) == outer_numbers(3) == {}


def test_functions_that_call_each_other_end():
    def odd(n):
        return n and even(n - 1)

    def even(n):
        return not n or odd(n - 1)

    assert outer_numbers(odd) == {}
