"""The training step as a record: one compiled pure function of `(params, opt_state, batch)`, and its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..across._flags import Flags
from ..across._message import Figures
from ..compile import rng
from ..compile._compiled import Compiled
from ..compile._evaluation import wait_for
from ..core._mlx import mx
from ..core._traceback import ShortTraceback
from ..core._types import Array, Batch, Params, State, Tree
from ..core.backend import device_backend
from ..nn._given import check_given, check_tree
from ..task._folds import Metric
from ..tree._conversion import as_arrays
from ._accumulation import Accumulation
from ._across import Prepared
from ._carried import Carried, Carrier, Logged
from ._checks import check_state, check_trainable
from ._computation import Computation
from ._rows import example_count
from .passes import Pass

__all__ = ["TrainStep"]


@dataclass(frozen=True, slots=True)
class TrainStep:
    """A compiled pure function `step(params, opt_state, batch) -> (params, opt_state, logs)`. `train_step` makes it.

    `opt_state` is a dict with three entries. `key` is the random stream. `optimizer` holds the counter, the rates and
    the memory of the optimiser. `metrics` holds the memory of each metric.

    `gradients` and `update` are the two halves of a step, compiled separately. `accumulate` updates on several batches.
    """

    computation: Computation
    _whole: Compiled
    _prepared: Prepared
    _carrier: Carrier
    _gradients: Compiled
    _update: Compiled
    _accumulation: Accumulation

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that each step folds."""
        return self.computation.metrics

    @property
    def parameter_bytes(self) -> int:
        """The bytes of the parameters that train. It is 0 for a step that is not compiled."""
        return self.computation.parameter_bytes

    def __call__(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, State]:
        """Take one step on a batch.

        Args:
            params: The parameters and buffers of the model.
            opt_state: The state from `init` or from the last step.
            batch: A dict, a tuple or list, or a single array. Its arrays have the rows as first axis.

        Returns:
            `(params, opt_state, logs)`. `logs` holds `loss` and the figures of the loss, as lazy scalar arrays.
        """
        with ShortTraceback():
            params, opt_state, (logs, *_) = self._step(params, opt_state, batch)
        return params, opt_state, logs

    def accumulate(self, params: Params, opt_state: State, batches: Sequence[Batch]) -> tuple[Params, State, State]:
        """Make one update on several batches, as if they were one batch.

        Gradients and logs are means over all values that count. The activations of one batch at a time are in memory.

        Args:
            params: The parameters and buffers of the model.
            opt_state: The state from `init` or from the last step.
            batches: One or more batches. Their sizes may differ.

        Returns:
            `(params, opt_state, logs)`, as a step returns them.

        Raises:
            TypeError: For no batch, or for a value that is no list or tuple.

        >>> from mlx_fp import nn, optim, train_step
        >>> step = train_step(nn.linear(2, 1, bias=False), lambda model, x: model(x).mean(), optim.sgd(0.1))
        >>> params, opt_state = step.init(0)
        >>> step.accumulate(params, opt_state, [mx.zeros((4, 2)), mx.zeros((3, 2))])[2]["loss"].item()
        0.0
        """
        with ShortTraceback():
            params, opt_state, (logs, *_) = self.accumulated(params, opt_state, batches)
        return params, opt_state, logs

    def accumulated(self, params: Params, opt_state: State, batches: Sequence[Batch]) -> tuple[Params, State, Logged]:
        """Do as `accumulate` does, and return the logs with their weights and the number of examples."""
        if not isinstance(batches, (list, tuple)) or not batches:
            raise TypeError("accumulate takes a list of one batch or more")
        check_state(opt_state)
        if len(batches) == 1:
            return self._step(params, opt_state, batches[0])
        self.computation.check_accumulation()
        return self._accumulation.update(params, opt_state, batches, self._prepared)

    def carry(self, params: Params, opt_state: State) -> Carried:
        """Put a state into the form in which `advance` is fastest on this device.

        For example, on CPUs small arrays of the same shape are concatenated.

        Args:
            params: The parameters and buffers of the model.
            opt_state: The state from `init` or from the last step.

        Returns:
            A `Carried`. Its attributes `params` and `opt_state` are the trees.
        """
        check_state(opt_state)
        return self._carrier.carry(params, opt_state)

    def advance(self, state: Carried, batches: Sequence[Batch]) -> tuple[Carried, tuple[Logged, ...]]:
        """Take a step on each of several batches in one compiled call.

        Each number of batches needs a trace of its own. The results equal those of single steps, to rounding.

        Args:
            state: The result of `carry`, or of the last call of `advance`.
            batches: A list or tuple of batches.

        Returns:
            `(state, logged)`: the next state, and for each batch its logs, their weights and the number of examples.

        Raises:
            TypeError: For a state that `carry` has not made, or for batches that are no list or tuple.
        """
        if not isinstance(state, Carried) or not isinstance(batches, (list, tuple)):
            raise TypeError("advance takes the result of `step.carry(params, opt_state)`, and a list of batches")
        if self._prepared.is_apart() or (state.form is None and len(batches) == 1):
            logged: list[Logged] = []
            for batch in batches:
                *trees, logs = self._step(state.params, state.opt_state, batch)
                state, logged = Carried(tuple(trees)), [*logged, logs]
            return state, tuple(logged)
        return self._carrier.advance(state, batches)

    def trainable(self, params: Params) -> Params:
        """Return the parameters that train. The tree has a hole, an empty dict, in the place of each other one."""
        return self.computation.split(params)[0]

    def init(self, start: int | Array | Params, *, seed: int | Array = 0) -> tuple[Params, State]:
        """Make the parameters and the state before the first step, evaluated.

        Args:
            start: A seed or a random key, from which the parameters are drawn. Or the parameters themselves, of which
                the arrays are used as they are.
            seed: The seed or key of the random stream where `start` holds parameters.

        Returns:
            `(params, opt_state)`.

        Raises:
            ValueError: For parameters of another model; for trainable parameters that have no floating type; where no
                parameter trains; and for parameters that no rule of `groups` matches.
        """
        model, has_params = self.computation.model, isinstance(start, (dict, list, tuple))
        if hasattr(start, "params"):  # a report, or a checkpoint
            check_tree(start)
        keys = mx.random.split(rng.key(seed if has_params else start))
        params = as_arrays(start) if has_params else model.init(keys[0])
        if has_params:
            check_given(model, params)
        trainable = self.trainable(params)
        check_trainable(trainable)
        opt_state = {"key": keys[1], **self.computation.start(trainable)}
        wait_for(params, opt_state)
        return params, opt_state

    def gradients(self, params: Params, opt_state: State, batch: Batch) -> Pass:
        """Compute the first half of a step: the gradients.

        For a large model on a CPU the backend waits: the results are evaluated, because queued operations keep
        references to the old parameters, and these prevent updates in place.

        Args:
            params: The parameters and buffers of the model.
            opt_state: The state from `init` or from the last step.
            batch: As for a step.

        Returns:
            `Pass(grads, rest, opt_state, logs, weights)`. `rest` holds the parameters that do not train, and the
            updated buffers.
        """
        if waits := self._waits():
            wait_for(params, opt_state)
        result: Pass = self._gradients(params, opt_state, self._prepared(params, opt_state, batch))
        if waits:
            wait_for(result)
        return result

    def accumulated_gradients(self, params: Params, opt_state: State, batches: Sequence[Batch]) -> Pass:
        """Compute the first half of an update on several batches."""
        if len(batches) == 1:
            return self.gradients(params, opt_state, batches[0])
        self.computation.check_accumulation()
        return self._accumulation.gradients(params, opt_state, batches, self._prepared)

    def update(self, params: Params, opt_state: State, grads: Tree, rest: Params) -> tuple[Params, State]:
        """Compute the second half of a step: the update.

        Args:
            params: The parameters and buffers before the step.
            opt_state: The state that `gradients` returned.
            grads: The gradients, which may have been changed since.
            rest: The parameters that do not train, and the buffers, as `gradients` returned them.

        Returns:
            `(params, opt_state)`.
        """
        result: tuple[Params, State] = self._update(params, opt_state, grads, rest)
        return result

    def send(
        self, params: Params, flags: Flags, figures: Figures | None = None, memory: State | None = None
    ) -> tuple[Flags, Figures, list[State]]:
        """Send a message to the other processes without a step. It has the length of the message of a step.

        Args:
            params: The parameters and buffers of the model.
            flags: The flags of this process.
            figures: The total and the weight of each figure. Default: none.
            memory: The memory of the metrics. Default: that before the first batch.

        Returns:
            `(flags, figures, memories)`: sums over the processes, and the memory of each process by rank.
        """
        return self.computation.exchange.send(params, flags, figures, memory)

    @property
    def traces(self) -> int:
        """The number of traces of the step and of its halves."""
        parts = (self._whole, self._prepared.sent, self._carrier, self._gradients, self._update, self._accumulation)
        return sum(part.traces for part in parts)

    def _step(self, params: Params, opt_state: State, batch: Batch) -> tuple[Params, State, Logged]:
        if self._waits():
            grads, rest, opt_state, logs, weights = self.gradients(params, opt_state, batch)
            return *self.update(params, opt_state, grads, rest), (logs, weights, example_count(batch))
        given = self._prepared(params, opt_state, batch)
        params, opt_state, (logs, weights, examples) = self._whole(params, opt_state, given)
        return params, opt_state, (logs, weights, examples if given is batch else example_count(batch))

    def _waits(self) -> bool:
        return not self.computation.in_backward and device_backend().waits(self.parameter_bytes)

    def __repr__(self) -> str:
        return f"train_step({self.computation.model.name}, {self.computation.optimizer.name})"
