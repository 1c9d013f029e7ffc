"""What trains one family of networks, by name. One file a family; a file here is found, nothing is listed by hand.

A file outside the package adds a task by being imported:

    @register_task("mine")
    @dataclasses.dataclass(frozen=True)
    class MyTask(Task): ...
"""

from __future__ import annotations

import abc
import dataclasses
import fnmatch
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from osmn_tf.errors import InputError
from osmn_tf.registry import Registry
from osmn_tf.training import schema

if TYPE_CHECKING:
    import keras

    from osmn_tf.data.pipeline import Batches
    from osmn_tf.data.targets import Target
    from osmn_tf.training.config import Config

TASKS: Registry[type[Task]] = Registry("task", "osmn_tf.training.tasks")

Cls = TypeVar("Cls", bound="type[Task]")


def register_task(kind: str) -> Callable[[Cls], Cls]:
    """Makes a task known by name, to `task: NAME` in configurations. A decorator of subclasses of `Task`.

    Raises:
        ValueError: another class has this name.
    """

    def decorate(cls: Cls) -> Cls:
        cls.kind = kind
        return TASKS.register(kind)(cls)

    return decorate


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
    """How a family of networks is trained: what is built, what `fit` trains, what a batch is, and what is minimised.

    The fields of a subclass, a frozen dataclass with defaults, are its own settings in a configuration:
    `task: {kind: NAME, FIELD: VALUE}`, or `task: NAME`.

    Attributes:
        kind: its name.
        groups: parts of the network that may have a learning rate of their own (`optimizer.group_rates`): name ->
            patterns of layer names, or of "LAYER/NAME" of weights. Their layers are also those that a network may have
            more than the one whose weights it starts from, or less.
    """

    kind: ClassVar[str] = ""
    groups: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @staticmethod
    def choose(data: Any, where: str) -> Task | None:
        """Builds the task that a name or a mapping with a `kind` describes; None stays None (the network's own)."""
        if data is None:
            return None
        settings = dict(data) if isinstance(data, Mapping) else {"kind": data}
        kind = settings.pop("kind", None)
        if kind not in TASKS.names():
            raise InputError(f"{where}.kind: expected one of {', '.join(TASKS.names())}, received {kind!r}")
        return schema.build(TASKS.get(kind), settings, where)

    def check(self, config: Config) -> None:  # noqa: B027 (most settings go together)
        """Refuses what does not go together.

        Raises:
            InputError: "section.key: what is wrong".
        """

    def build(self, config: Config) -> keras.Model:
        """The network with its initial weights.

        Raises:
            InputError: impossible arguments, or weights that are missing or do not fit.
        """
        from osmn_tf.training.initial import build_network

        return build_network(config.model, self.groups)

    def training_model(self, config: Config, model: keras.Model) -> keras.Model:
        """What `fit` trains: `model` itself, or a model that shares its weights. Not compiled."""
        return model

    @abc.abstractmethod
    def target(self, config: Config) -> Target:
        """What is made of the sources' labelled clips."""

    @abc.abstractmethod
    def batches(self, config: Config, model: keras.Model) -> Batches:
        """What makes batches for `training_model` of the target's samples."""

    def losses(self, config: Config) -> Any:
        """What `compile` takes as its loss: by default `config.loss`, for one output of logits."""
        from osmn_tf.training.optimization import make_loss

        return make_loss(config.loss)

    def metrics(self, config: Config) -> Any:
        """What `compile` takes as its metrics: by default the mean IoU, for one output of logits."""
        from osmn_tf.evaluation.keras_metrics import MeanIoU

        return [MeanIoU()]


def group_of(path: str, groups: Mapping[str, tuple[str, ...]]) -> str | None:
    """The group of a weight with the path ".../LAYER/NAME": the first that has a pattern for one of its parts, or one
    like "LAYER/NAME" for its last two."""
    parts = path.split("/")
    parts.append("/".join(parts[-2:]))
    for name, patterns in groups.items():
        if any(fnmatch.fnmatchcase(part, pattern) for part in parts for pattern in patterns):
            return name
    return None
