"""What runs one network on one video, whatever the network and wherever it is. Needs NumPy only.

`VideoSegmenter` is written against `Predictor`. A family of networks brings one by `register_predictor`, and
`open_predictor` finds the right one for a network, a preset, an exported folder or a server's address.
"""

from __future__ import annotations

import abc
import dataclasses
import importlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from osmn_tf.errors import InputError
from osmn_tf.inference.adaptation.quality import LEARNING_RATE, STEPS
from osmn_tf.inference.merging import MERGES
from osmn_tf.registry import Registry

Array = np.ndarray
ENGINES = ("auto", "litert", "keras")
GUIDE_OPTIONS = ("exclusive", "recover", "search_window")
"""Options of networks that have guides, for the others to refuse."""
Progress = Callable[[int, int, float], None]
"""Called after every step of an adaptation with (steps done, steps in all, loss)."""

# Functions that know networks, x -> NetworkSource | None, in the order in which they are asked. By name, since rooms
# behind this one are among them, and since each is imported (and with it what it needs) when a network is looked for.
_FINDERS = (
    ("osmn_tf.inference.loading", "find_shipped"),
    ("osmn_tf.client.predictor", "find"),
    ("osmn_tf.runtime.predictor", "find"),
    ("osmn_tf.inference.loading", "find"),
)


@dataclasses.dataclass(frozen=True)
class PredictorOptions:
    """How a network is used. A predictor refuses what it has no choice in (`refuse`).

    Attributes:
        network_size: (H, W) to which frames are resized for the network; None: the network's own, or of a network that
            matches what fits the video's shape better (`osmn_tf.resampling.fitted_size`).
        merge: "argmax" (the highest score above 0.5 wins, ties go to the background; OSMN's release), "soft" (soft
            aggregation: odds against a background of prod(1 - p)) or "painted" (what is above 0.5 is painted over what
            was painted before, in the order in which objects were added; RVOS: as released, in ascending IoU of an
            object's first prediction with its given mask).
        exclusive: make an object's next spatial guide only of the pixels where it beats the other objects, so that two
            objects do not drift onto one. False: of all pixels above 0.5, whoever wins them (the release).
        recover: when an object's prediction is empty, keep its last spatial guide instead of an empty one, so that it
            can be found again near where it was lost. The release has no recovery.
        precision: what a preset computes in, "float32", "mixed_bfloat16" or "mixed_float16"; None: see
            `osmn_tf.load`.
        threads: that an exported network computes with; None: the cores that this process may use, at most four.
        engine: what runs a preset, "litert" (the LiteRT files in its folder), "keras", or "auto": see
            `osmn_tf.inference.engines.choose_engine`.
        objects: room for so many objects, given ones and found ones; None: any number of given masks, and of found
            objects the number of a network that finds them itself, or `osmn_tf.inference.finding.MOST_OBJECTS`.

        search_window: take out what is found far from an object's last spatial guide, if anything is found near it
            (`osmn_tf.guides.search_near`). None: a network that matches does so, since it finds all that looks alike;
            the others, which the guide itself keeps near, do not.
        scale: the network's own size times so much, in place of `network_size`: what is small is seen better, and a
            frame takes the square of it as long. Above 1 the network's own size runs beside it, for objects that are
            lost in larger frames (`osmn_tf.inference.two_sizes`). Of networks that match; the others lose.

    Raises:
        InputError: an option is none of its choices, or two say at which size the network runs.
    """

    network_size: tuple[int, int] | None = None
    merge: str = "argmax"
    exclusive: bool = True
    recover: bool = True
    precision: str | None = None
    threads: int | None = None
    engine: str = "auto"
    objects: int | None = None
    search_window: bool | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.merge not in MERGES:
            raise InputError(f"merge: expected one of {', '.join(MERGES)}, received {self.merge!r}")
        if self.engine not in ENGINES:
            raise InputError(f"engine: expected one of {', '.join(ENGINES)}, received {self.engine!r}")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads: expected at least 1, received {self.threads}")
        if self.objects is not None and not 1 <= self.objects < 255:
            raise InputError(f"objects: expected 1..254, received {self.objects}")
        if not 0.25 <= self.scale <= 4:
            raise InputError(f"scale: expected 0.25 to 4 times the network's own size, received {self.scale:g}")
        if self.scale != 1 and self.network_size is not None:
            height, width = self.network_size
            raise InputError(
                f"network_size: there is none beside a scale, {self.scale:g} here (--quality good and best have one),"
                f" received {height}x{width}"
            )

    def size_of(self, own: tuple[int, int]) -> tuple[int, int]:
        """(h, w) at which a network runs whose own size this is.

        Raises:
            InputError: it is too small for a network.
        """
        from osmn_tf.resampling import scaled_size

        height, width = self.network_size or (own if self.scale == 1 else scaled_size(own, self.scale))
        if height < 32 or width < 32:
            raise InputError(f"network_size: expected at least 32 x 32 pixels, received {height} x {width}")
        return int(height), int(width)

    def refuse_scale(self) -> None:
        """For networks that do not match.

        Raises:
            InputError: a scale is given.
        """
        self.refuse("only networks that match see more in larger frames (--quality good, best)", "scale")

    def refuse(self, reason: str, *names: str) -> None:
        """Refuses options that have other values than by default.

        Args:
            reason: why they are not applicable.

        Raises:
            InputError: one of `names` is given.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in names and value != field.default:
                raise InputError(f"{field.name}: {reason}, received {value!r}")


def parse_size(text: str) -> tuple[int, int]:
    """A size as commands and tables have it: "288x512" -> (288, 512), height first.

    Raises:
        InputError: it is not HxW with positive numbers.
    """
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--network-size: expected HxW such as 288x512, received {text!r}")
    return int(parts[0]), int(parts[1])


@dataclasses.dataclass(frozen=True)
class AdaptOptions:
    """How a predictor is adapted to a video (see `VideoSegmenter.finetune`).

    Attributes:
        steps: iterations; None: see `seconds`.
        learning_rate: of the optimizer; None: the predictor's own (`Predictor.adaptation`).
        seed: of everything that is random in it.
        details: what the family offers beside, or None; the modulated networks take a `FineTuneOptions`, OSVOS an
            `ObjectTuneOptions`.
        seconds: for every object, instead of steps; with neither, as many steps as the predictor takes by itself.
    """

    steps: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    details: Any = None
    seconds: float | None = None

    def over(self, default: AdaptOptions) -> AdaptOptions:
        """These options, with `default` for what is left open."""
        neither = self.steps is None and self.seconds is None
        return dataclasses.replace(
            self,
            steps=default.steps if neither else self.steps,
            learning_rate=default.learning_rate if self.learning_rate is None else self.learning_rate,
        )


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a predictor makes of a frame.

    Attributes:
        winners: uint8 [H, W], index of the winning object plus 1, or 0 for the background.
        logits: gives float32 [N, H, W], computed or fetched when it is called; None where a server keeps them.
    """

    winners: Array
    logits: Callable[[], Array] | None = None


class Predictor(abc.ABC):
    """Runs one network on one video, at the most.

    What belongs to the video is in here, with one item an object, in the order in which they were taken up. The network
    and what was compiled for it are shared by all predictors of the network, and none of them changes it.

    A subclass for a network of this package also registers itself (`register_predictor`).

    Attributes:
        can_adapt: whether `adapt` and its companions are there.
        gives_scores: whether its predictions have logits.
        adapts_itself: whether `begin` learns objects that `adapt` was not given: it takes its time.
        adaptation: how it is adapted unless it is told otherwise.
        zero_shot: whether `begin` finds the objects by itself, without masks.
        takes_masks: whether `begin` takes masks of the objects.
        is_adapted: whether it runs with weights of its own now.
        limit: room for so many objects (`PredictorOptions.objects`); the segmenter counts.
        frame_number: of the frame that is begun or advanced, from 0; the segmenter counts.
    """

    frame_number = -1
    can_adapt = False
    gives_scores = True
    adapts_itself = False
    adaptation = AdaptOptions(STEPS, LEARNING_RATE)
    zero_shot = False
    takes_masks = True
    is_adapted = False
    limit: int | None = None

    @property
    @abc.abstractmethod
    def network_size(self) -> tuple[int, int] | None:
        """(H, W) of the frames inside the network; None where it takes them as they are, or a server does not say."""

    @property
    @abc.abstractmethod
    def objects(self) -> int:
        """How many objects are kept."""

    @abc.abstractmethod
    def begin(self, frame: Array, masks: Array | None) -> None:
        """Takes up objects behind those there are.

        Args:
            frame: uint8 [H, W, 3], RGB.
            masks: uint8 [N, H, W] of 0 and 1, N at least 1, no two at the same pixel; None, only for `zero_shot`, and
                while nothing is kept: the network finds the objects, perhaps none, and `advance` follows with the same
                frame.

        Raises:
            InputError: this network takes no masks, or there is no room for so many objects.
        """

    @abc.abstractmethod
    def keep(self, indices: Sequence[int]) -> None:
        """Drops what is kept of all objects but these (ascending, at least one)."""

    @abc.abstractmethod
    def advance(self, frame: Array) -> Prediction:
        """Steps all objects; there is at least one.

        Args:
            frame: uint8 [H, W, 3], RGB, of the size of the first.
        """

    @abc.abstractmethod
    def forget(self) -> None:
        """Drops what is kept of the video."""

    def probe(self, frame: Array, masks: Array) -> Array:
        """What stands in a frame where these masks are, which are only roughly right; what was kept is dropped.

        Args:
            frame, masks: as `begin`.

        Returns:
            `Prediction.winners`.
        """
        self.forget()
        self.begin(frame, masks)
        winners = self.advance(frame).winners
        self.forget()
        return winners

    @abc.abstractmethod
    def snapshot(self) -> dict[str, Array]:
        """What is kept of the video, as arrays for `numpy.savez`; there is at least one object."""

    @abc.abstractmethod
    def restore(self, snapshot: Mapping[str, Array]) -> None:
        """Keeps what another predictor's `snapshot` has given; further names in it are not this method's.

        Raises:
            InputError: it is of another network or of other settings. What was kept before is kept still.
        """

    def read_ahead(self, frames: Iterable[Array]) -> Iterable[Array]:
        """The frames of a video that is tracked; a place for work on a frame before its turn comes."""
        return frames

    def close(self) -> None:  # noqa: B027 (most have nothing to close)
        """Gives connections back. A predictor of a network in files can be used again afterwards."""

    # With `can_adapt` -------------------------------------------------------------------------------------------

    def adapt(
        self, frames_and_masks: Sequence[tuple[Array, Array]], options: AdaptOptions, progress: Progress | None = None
    ) -> None:
        """Fits this predictor's own weights to a video, from the network's on. What is kept of the video stays.

        If anything is raised in here, also by `progress`, the predictor has the network's weights again.

        Args:
            frames_and_masks: uint8 [H, W, 3] and uint8 [H, W] with labels; a label is the same object in all of them.

        Raises:
            InputError: a number is out of its range, or this predictor cannot be adapted.
        """
        raise InputError("adapt: this network cannot be fine-tuned")

    def adapted_weights(self) -> dict[str, Array]:
        """The weights that `adapt` has changed, by name, for `load_adapted`.

        Raises:
            InputError: `adapt` was not called, or `release` was.
        """
        raise InputError("adapted_weights: this network cannot be fine-tuned")

    def load_adapted(self, weights: Mapping[str, Array], details: Any = None) -> None:
        """Takes the weights that `adapted_weights` has given after an `adapt` with the same `details`.

        Raises:
            InputError: they are of another network or of other parts of it.
        """
        raise InputError("load_adapted: this network cannot be fine-tuned")

    def learnt_networks(self) -> list[Any]:
        """A network for every object that `adapt` has learnt, with its weights: to be saved or exported.

        Raises:
            InputError: there is none, or the family has one set of weights for all objects.
        """
        raise InputError("learnt_networks: this network has no weights of its own for every object")

    def release(self) -> None:  # noqa: B027 (nothing to do without `adapt`)
        """Runs with the network's weights again; does nothing where it does already."""

    # Beside a detector (`osmn_tf.inference.semantic`) -----------------------------------------------------------

    def for_instances(self, instances_of: Callable[[Array, Array], Array]) -> Predictor:
        """What runs the network beside a detector: a predictor with heads for it where the family has them, else this.

        Args:
            instances_of: of (frame, mask of an object), what the detector has found of it there, bool [H, W].
        """
        return self

    def conditional_logits(self, frame: Array) -> tuple[Array, Array, Array] | None:
        """As `advance`, of a predictor with heads for a detector: the logits of all objects, and those inside and
        outside of what was detected, float32 [N, H, W] each. None where there are no such heads; nothing is done then.
        """
        return None


class GuidedPredictor(Predictor):
    """A predictor that looks for an object near where it was last."""

    @abc.abstractmethod
    def correct(self, index: int, mask: Array) -> None:
        """Looks for an object in the next frame near this mask, not near what was found in this frame.

        Args:
            index: of the object.
            mask: [H, W], any dtype and size; non-zero is the object, which is somewhere.
        """


predictors: Registry[Callable[[Any, PredictorOptions], Predictor]] = Registry("predictor", "osmn_tf.inference")
"""Network class -> what makes a predictor of (network, options)."""

register_predictor = predictors.register
"""`@register_predictor("OSMN")` on a class: it runs the networks of this class and of classes derived from it."""


@dataclasses.dataclass(frozen=True)
class NetworkSource:
    """Where a network is, before it is loaded.

    Attributes:
        kind: what it is, for messages: "a network", "a preset", "a LiteRT export", ...
        path: its folder or file; None where it is in memory or on a server.
        needs_backend: whether opening it starts Keras and its backend.
        can_adapt: whether it can be fine-tuned; None: its class says so once it is open.
        open: makes a predictor of it.
        engine: what runs it, "keras" or "litert"; None where nothing can be chosen.
        litert: the folder of LiteRT files that a preset has beside its weights.
        facts: what is known of a preset with LiteRT files (its metadata), or of the files
            (`osmn_tf.runtime.network.Metadata`).
        matches: whether it matches; False where that is not known before it is open.
    """

    kind: str
    path: Path | None
    needs_backend: bool
    can_adapt: bool | None
    open: Callable[[PredictorOptions], Predictor]
    engine: str | None = None
    litert: Path | None = None
    facts: Any = None
    matches: bool = False


def find_network(x: Any, options: PredictorOptions | None = None, adapts: bool = False) -> NetworkSource:
    """Where the network is that `open_predictor` would open; a wrong name is found without loading anything.

    Args:
        x, options: as `open_predictor`.
        adapts: whether it is going to be fine-tuned, which not every engine can do.

    Raises:
        InputError: there is none, or `options.engine` cannot run it.
        MissingDependencyError: what runs it is not installed.
    """
    if isinstance(x, os.PathLike):
        x = str(x)
    for module, function in _FINDERS:
        source: NetworkSource | None = getattr(importlib.import_module(module), function)(x)
        if source is not None:
            from osmn_tf.inference.engines import choose_engine

            return _limited(choose_engine(source, options or PredictorOptions(), adapts))
    raise InputError(f"network: expected a network, or the name, path or address of one, received {x!r}")


def _limited(source: NetworkSource) -> NetworkSource:
    """The source, whose predictors have the room that the options say, and run at two sizes where they should."""

    def opened(options: PredictorOptions) -> Predictor:
        predictor = source.open(options)
        if options.scale > 1 and isinstance(predictor, GuidedPredictor):
            from osmn_tf.inference.two_sizes import TwoSizesPredictor

            own_size = source.open(dataclasses.replace(options, scale=1.0))
            assert isinstance(own_size, GuidedPredictor)
            predictor = TwoSizesPredictor(predictor, own_size, options.merge)
        predictor.limit = options.objects
        return predictor

    return dataclasses.replace(source, open=opened)


def open_predictor(x: Any, options: PredictorOptions | None = None) -> Predictor:
    """What runs a network on a video.

    Args:
        x: a network; a shipped preset's name, a preset folder or `.keras` file; the folder of a LiteRT export or a
            `.tflite` file in it; the folder of an exported SavedModel; "grpc://HOST:PORT/NAME", "http://HOST:PORT/NAME"
            or "https://..." of a TensorFlow Serving server; or a predictor, which is given back.
        options: see `PredictorOptions`.

    Raises:
        InputError: there is no such network, its files are damaged, or an option is not applicable to it.
        MissingDependencyError: what runs it is not installed.
    """
    options = options or PredictorOptions()
    if isinstance(x, Predictor):
        names = [field.name for field in dataclasses.fields(options)]
        options.refuse("a predictor has its options already", *names)
        return x
    return find_network(x, options).open(options)
