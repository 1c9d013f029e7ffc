"""What every adaptation to a video has in common: how long it goes on, and the steps of the optimizer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
from keras import ops

from osmn_tf.errors import InputError
from osmn_tf.inference.predictor import Progress

Tensor = Any


class Budget:
    """How long an adaptation goes on: a number of steps, or a time.

        for step in Budget(None, seconds=10): ...

    The clock starts behind the first step, in which everything is compiled, so there is always one step.

    Attributes:
        made: steps that are done.

    Args:
        steps: iterations; 0 leaves the weights as they are.
        seconds: instead of steps.

    Raises:
        InputError: a number is out of its range, or not one of the two is given.
    """

    def __init__(self, steps: int | None, seconds: float | None = None) -> None:
        if (steps is None) == (seconds is None):
            raise InputError("steps: expected either a number of steps or of seconds")
        if steps is not None and steps < 0:
            raise InputError(f"steps: expected 0 or more, received {steps}")
        if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
            raise InputError(f"seconds: expected a positive number, received {seconds}")
        self.steps, self.seconds = steps, seconds
        self.made = 0
        self._began: float | None = None

    def __iter__(self) -> Iterator[int]:
        """The numbers of the steps, from 0, while there is time."""
        self._began, self.made = None, 0
        while not self._is_spent(self.made):
            yield self.made
            self.made += 1
            if self._began is None:
                self._began = time.perf_counter()

    def _is_spent(self, done: int) -> bool:
        if self.steps is not None:
            return done >= self.steps
        return self._began is not None and self._elapsed() >= (self.seconds or 0)

    def _elapsed(self) -> float:
        return 0.0 if self._began is None else time.perf_counter() - self._began

    def total(self, done: int) -> int:
        """How many steps there are likely to be, behind step `done`."""
        if self.steps is not None:
            return self.steps
        share = self._elapsed() / (self.seconds or 1)
        return done if share >= 1 else max(done + 1, round(done / share) if share else 0)


class Training:
    """Steps of Adam on a model, which begin anew with every `run`.

    Args:
        model: what is trained: all of its trainable variables.
        loss: of (labels, outputs), a value for every example.
        compute_dtype: of the network.
    """

    def __init__(self, model: keras.Model, loss: Callable[[Tensor, Tensor], Tensor], compute_dtype: str) -> None:
        self.model = model
        self.variables = list(model.trainable_variables)
        self._optimizer = keras.optimizers.Adam()
        if compute_dtype == "float16":
            # Gradients below 6e-8 are zero in half precision, and most are.
            self._optimizer = keras.optimizers.LossScaleOptimizer(self._optimizer)
        self._optimizer.build(self.variables)
        self._start = [ops.convert_to_numpy(variable) for variable in self._optimizer.variables]
        model.compile(optimizer=self._optimizer, loss=loss)

    def run(
        self,
        batches: Iterable[tuple[Any, Any]],
        budget: Budget,
        learning_rate: float | None,
        progress: Progress | None = None,
    ) -> None:
        """Trains on one batch after the other.

        Args:
            batches: (inputs, labels) each, as many as are asked for.
            budget: how long.
            learning_rate: of Adam.
            progress: see `Progress`.

        Raises:
            InputError: the learning rate is not positive, or so high that the loss is lost.
        """
        if learning_rate is None or not learning_rate > 0:
            raise InputError(f"learning_rate: expected a positive number, received {learning_rate}")
        for variable, value in zip(self._optimizer.variables, self._start):
            variable.assign(value)
        self._optimizer.learning_rate = learning_rate
        for step, (inputs, labels) in zip(budget, batches):
            self.model.reset_metrics()
            logs = self.model.train_on_batch(inputs, labels, return_dict=True)
            loss = float(logs["loss"])
            if not math.isfinite(loss):
                raise InputError(f"learning_rate: with {learning_rate:g} the loss is {loss} at step {step + 1}")
            if progress is not None:
                progress(step + 1, budget.total(step + 1), loss)
