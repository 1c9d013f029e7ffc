"""What a training run is: YAML into frozen dataclasses.

A configuration is a file, or the name of one that ships with the package (`list_configs`). `base: NAME` starts from
another one: mappings are merged key by key, everything else is replaced, and `null` takes a source out.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml

from osmn_tf.augment import AugmentOptions
from osmn_tf.data.sampling import FITS
from osmn_tf.data.synthetic import ClipOptions
from osmn_tf.errors import InputError
from osmn_tf.files import write_text
from osmn_tf.precision import PRECISIONS
from osmn_tf.training import schema
from osmn_tf.training.tasks import TASKS, Task

CONFIG_FOLDER = Path(__file__).resolve().parent.parent / "configs"
OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("constant", "cosine", "steps")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _choice(field: str, value: str, allowed: Sequence[str]) -> None:
    _require(value in allowed, f"{field}: expected one of {', '.join(allowed)}, received {value!r}")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        network: name of a network (`osmn_tf.models.registry`).
        arguments: of the network's constructor.
        initial: weights to start from: a preset's name or folder, a `.keras` or a `.weights.h5` file. A preset may lack
            a group of layers (`Task.groups`: the ConvLSTMs of a ReConvNet), which is new then, or have one more, which
            is left out.
        backbone_weights: for the trunks: "imagenet", a weight file of keras.applications (.h5; .npz of
            EfficientNet-Lite) or a preset of any network with the same trunk. Not used where there is an `initial`.
        freeze: patterns of layer names ("*_bn", "modulator_*") whose layers keep their weights; frozen BatchNorm uses
            its stored statistics.
    """

    network: str
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    initial: str | None = None
    backbone_weights: str | None = None
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        from osmn_tf.models.registry import NETWORKS, constructor_arguments

        _choice("network", self.network, NETWORKS.names())
        # Checked here, so that a misspelt argument is found before data are read and a network is built.
        object.__setattr__(
            self,
            "arguments",
            schema.convert_arguments(self.arguments, constructor_arguments(self.network), "arguments"),
        )


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """A supply of samples. `kind` chooses the class below, and with it the keys that are allowed.

    Attributes:
        path: folder, relative to `data.root`.
        share: of the samples of an epoch; give it to all sources or to none (then by the number of their items).
        allow_overlap: train on it even if some of its sequences or images are those of `validation.source`.
    """

    kinds: ClassVar[dict[str, type[SourceConfig]]] = {}
    kind: ClassVar[str] = ""

    path: str
    share: float | None = None
    allow_overlap: bool = False

    def __init_subclass__(cls) -> None:
        if cls.kind:
            SourceConfig.kinds[cls.kind] = cls

    @staticmethod
    def choose(data: Any, where: str) -> SourceConfig | None:
        """Builds the class that `data["kind"]` names; None stays None (a source taken out)."""
        if data is None:
            return None
        kind = data.get("kind") if isinstance(data, Mapping) else None
        if kind not in list(SourceConfig.kinds):  # it may be a list itself
            raise InputError(f"{where}.kind: expected one of {', '.join(SourceConfig.kinds)}, received {kind!r}")
        return schema.build(SourceConfig.kinds[kind], {k: v for k, v in data.items() if k != "kind"}, where)

    def __post_init__(self) -> None:
        _require(self.share is None or self.share >= 0, f"share: expected 0 or more, received {self.share}")


@dataclasses.dataclass(frozen=True)
class VideoSourceConfig(SourceConfig):
    """Videos: a random object of a clip, guided by a random frame (see `osmn_tf.data.sampling.VideoSource`)."""

    split: str = "train"
    max_gap: int = 1
    reverse: float = 0.5
    motion: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.max_gap >= 1, f"max_gap: expected at least 1, received {self.max_gap}")
        _require(0 <= self.reverse <= 1, f"reverse: expected a probability, received {self.reverse}")


@dataclasses.dataclass(frozen=True)
class DavisConfig(VideoSourceConfig):
    """DAVIS; `year` 2016 merges all objects into one, `leave_out` names a list whose sequences are not taken."""

    kind: ClassVar[str] = "davis"
    year: int = 2017
    resolution: str = "480p"
    leave_out: str | None = None


@dataclasses.dataclass(frozen=True)
class YouTubeVosConfig(VideoSourceConfig):
    """YouTube-VOS: annotated frames only (every fifth)."""

    kind: ClassVar[str] = "youtube_vos"


@dataclasses.dataclass(frozen=True)
class CocoConfig(SourceConfig):
    """COCO instances; `min_area` as a fraction of the image, `fit` as in `osmn_tf.data.sampling.ImageSource`."""

    kind: ClassVar[str] = "coco"
    split: str = "train2017"
    min_area: float = 0.03
    motion: float = 0.5
    fit: str = "stretch"

    def __post_init__(self) -> None:
        super().__post_init__()
        _choice("fit", self.fit, FITS)


@dataclasses.dataclass(frozen=True)
class CocoRecordConfig(SourceConfig):
    """COCO in TF Model Garden's TFRecords (the extra `model-garden`)."""

    kind: ClassVar[str] = "coco_tfrecord"
    min_area: float = 0.03
    motion: float = 0.5


@dataclasses.dataclass(frozen=True)
class StillsConfig(SourceConfig):
    """Photographs with masks; `sets` chooses among the folders, `fit` as in `osmn_tf.data.sampling.ImageSource`."""

    kind: ClassVar[str] = "stills"
    sets: tuple[str, ...] | None = None
    motion: float = 0.5
    fit: str = "stretch"

    def __post_init__(self) -> None:
        super().__post_init__()
        _choice("fit", self.fit, FITS)


@dataclasses.dataclass(frozen=True)
class SyntheticConfig(SourceConfig):
    """Synthetic clips from stills in `path`, or of drawn objects if it is ''; `samples` make an epoch."""

    kind: ClassVar[str] = "synthetic"
    path: str = ""
    sets: tuple[str, ...] | None = None
    samples: int = 1000
    options: ClipOptions = dataclasses.field(default_factory=ClipOptions)


@dataclasses.dataclass(frozen=True)
class CurriculumConfig:
    """Probability that a frame's spatial guide is made from the network's own prediction: from `start` at the first
    step linearly to `end` at the share `until` of all steps."""

    start: float = 0.0
    end: float = 0.0
    until: float = 1.0

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"{name}: expected a probability, received {value}")
        _require(0 < self.until <= 1, f"until: expected a share of the steps, received {self.until}")

    def at(self, progress: float) -> float:
        """The probability after the share `progress` of all steps."""
        return self.start + (self.end - self.start) * min(progress / self.until, 1.0)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is trained on.

    Attributes:
        root: folder that holds the sources' folders.
        sources: by any name.
        size: (H, W) of frames and masks.
        length: frames per sample.
        epoch_size: samples per pass; default: one pass over all items.
        augment: transformations of frames and masks.
        guide_jitter, guide_colour, guide_dropout: see `osmn_tf.data.guided.GuidedBatches`.
        own_guide: curriculum from annotated to the network's own previous masks.
        workers: threads that load samples; default: one per CPU.
    """

    sources: dict[str, SourceConfig | None]
    root: str = "."
    size: tuple[int, int] = (480, 854)
    length: int = 1
    epoch_size: int | None = None
    augment: AugmentOptions = dataclasses.field(default_factory=AugmentOptions)
    guide_jitter: bool = True
    guide_colour: float = 0.4
    guide_dropout: float = 0.0
    own_guide: CurriculumConfig = dataclasses.field(default_factory=CurriculumConfig)
    workers: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", {k: v for k, v in self.sources.items() if v is not None})
        _require(bool(self.sources), "sources: expected at least one")
        shares = [source.share for source in self.sources.values() if source]
        _require(
            all(s is None for s in shares) or all(s is not None for s in shares),
            "sources: give a share to all of them or to none",
        )
        _require(self.length >= 1, f"length: expected at least one frame, received {self.length}")
        _require(min(self.size) >= 32, f"size: expected at least 32 x 32 pixels, received {list(self.size)}")
        _require(0 <= self.guide_dropout < 1, f"guide_dropout: expected a probability, received {self.guide_dropout}")
        _require(self.workers is None or self.workers >= 1, f"workers: expected at least 1, received {self.workers}")


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Weights of the terms; the loss is their sum, averaged over the frames of the batch.

    Attributes:
        class_balanced: class-balanced cross-entropy, summed over the pixels, or averaged with `per_pixel`.
        cross_entropy: mean cross-entropy.
        lovasz: Lovasz hinge, on every `lovasz_stride`-th pixel per axis (sorting is what it costs).
        soft_iou: 1 - soft IoU.
        l2: l2 / 2 * sum(w^2) over the convolution kernels.
    """

    class_balanced: float = 0.0
    per_pixel: bool = False
    cross_entropy: float = 0.0
    lovasz: float = 0.0
    lovasz_stride: int = 1
    soft_iou: float = 0.0
    l2: float = 0.0

    def __post_init__(self) -> None:
        terms = [self.class_balanced, self.cross_entropy, self.lovasz, self.soft_iou]
        _require(min(*terms, self.l2) >= 0, "expected weights of 0 or more")
        _require(max(terms) > 0, "class_balanced: every term has the weight 0 (cross_entropy, lovasz, soft_iou too)")
        _require(self.lovasz_stride >= 1, f"lovasz_stride: expected at least 1, received {self.lovasz_stride}")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam, or gradient descent with momentum. Steps are batches, also with `accumulate`.

    Attributes:
        learning_rate: peak rate.
        kind: "adam" or "sgd".
        momentum: of "sgd".
        group_rates: other peak rates for parts of the network: name of one of the task's groups (`Task.groups`; a
            ReConvNet's ConvLSTMs and their scales are "recurrent") -> rate.
        schedule: "constant", "cosine" (to 1% of the peak) or "steps" (times `drop_factor` at every step in `drop_at`).
        warmup_steps: linear from 0, with "cosine".
        weight_decay: decoupled (AdamW): a step takes this share, times the learning rate, off every weight. With rates
            of 1e-4 and some thousand steps, a value below 0.1 does next to nothing.
        clip_norm: largest norm of the gradient, of every group with a rate of its own and of the rest apart.
        ema: momentum of the weights' moving average, which is then validated and saved.
        accumulate: batches whose gradients are averaged for one update.
    """

    learning_rate: float
    kind: str = "adam"
    momentum: float = 0.9
    group_rates: dict[str, float] = dataclasses.field(default_factory=dict)
    schedule: str = "constant"
    warmup_steps: int = 0
    drop_at: tuple[int, ...] = ()
    drop_factor: float = 0.1
    weight_decay: float = 0.0
    clip_norm: float | None = None
    ema: float | None = None
    accumulate: int = 1

    def __post_init__(self) -> None:
        _choice("kind", self.kind, OPTIMIZERS)
        _require(0 <= self.momentum < 1, f"momentum: expected 0 or more and below 1, received {self.momentum}")
        _choice("schedule", self.schedule, SCHEDULES)
        for name in ("learning_rate", "clip_norm", "drop_factor"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"{name}: expected a positive number, received {value}")
        for name, value in self.group_rates.items():
            _require(value > 0, f"group_rates.{name}: expected a positive number, received {value}")
        _require(self.weight_decay >= 0, f"weight_decay: expected 0 or more, received {self.weight_decay}")
        _require(self.ema is None or 0 < self.ema < 1, f"ema: expected a momentum between 0 and 1, received {self.ema}")
        _require(self.accumulate >= 1, f"accumulate: expected at least 1, received {self.accumulate}")
        _require(self.warmup_steps >= 0, f"warmup_steps: expected 0 or more, received {self.warmup_steps}")
        _require(not self.warmup_steps or self.schedule == "cosine", "warmup_steps: only with the schedule 'cosine'")
        _require(bool(self.drop_at) == (self.schedule == "steps"), "drop_at: goes together with the schedule 'steps'")
        drops = list(self.drop_at)
        _require(drops == sorted(set(drops)), f"drop_at: expected ascending steps, received {drops}")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, and where.

    Attributes:
        steps: batches in all.
        batch_size: samples per batch, over all devices.
        checkpoint_every: steps between checkpoints (and lines of the log): what an interruption can cost.
        precision: "float32", "mixed_bfloat16" or "mixed_float16".
        seed: of the initial weights, the samples and their augmentation.
        devices: names ("GPU:0", "CPU:1") of the devices to use; default: all GPUs, or the CPU.
        deterministic: the same weights bit for bit at every run (TensorFlow; slower on a GPU).
    """

    steps: int
    batch_size: int
    checkpoint_every: int = 100
    precision: str = "float32"
    seed: int = 0
    devices: tuple[str, ...] | None = None
    deterministic: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every"):
            _require(getattr(self, name) >= 1, f"{name}: expected at least 1, received {getattr(self, name)}")
        _require(
            self.steps % self.interval == 0,
            f"steps: {self.steps} is no multiple of checkpoint_every, {self.checkpoint_every}",
        )
        _choice("precision", self.precision, PRECISIONS)
        _require(self.devices is None or bool(self.devices), "devices: expected at least one, or null")
        _require(self.seed >= 0, f"seed: expected 0 or more, received {self.seed}")

    @property
    def interval(self) -> int:
        """Steps between checkpoints."""
        return min(self.checkpoint_every, self.steps)


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
    """Recurrent inference on whole sequences from the mask of each object's first frame: J and F of all later annotated
    frames but the last, as in the DAVIS benchmark, averaged over objects.

    Attributes:
        source: a video source; of its keys only those that choose the videos matter.
        every: steps between validations, a multiple of `train.checkpoint_every`; there is always one at the end.
        sequences: names; default: all of the split.
        max_frames: of each sequence, the first so many only.
        network_size: (H, W); default: the network's.
        patience: stop after so many validations without a better J.
        overlays: how many sequences TensorBoard shows a picture of.
    """

    source: SourceConfig
    every: int = 1000
    sequences: tuple[str, ...] | None = None
    max_frames: int | None = None
    network_size: tuple[int, int] | None = None
    patience: int | None = None
    overlays: int = 4

    def __post_init__(self) -> None:
        _require(
            isinstance(self.source, VideoSourceConfig),
            "source: expected videos (kind davis or youtube_vos)",
        )
        _require(self.every >= 1, f"every: expected at least 1, received {self.every}")
        _require(self.max_frames is None or self.max_frames >= 3, "max_frames: expected at least 3")
        _require(
            self.patience is None or self.patience >= 1, f"patience: expected at least 1, received {self.patience}"
        )


@dataclasses.dataclass(frozen=True)
class Config:
    """A training run.

    Attributes:
        task: how the network is trained (`osmn_tf.training.tasks`); default: the network's own task.
    """

    model: ModelConfig
    data: DataConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    validation: ValidationConfig | None = None
    task: Task = None  # type: ignore[assignment]  # the network's own, from __post_init__ on

    def __post_init__(self) -> None:
        from osmn_tf.models.registry import NETWORKS

        if self.task is None:
            name = NETWORKS.get(self.model.network).task_name
            _require(name is not None, f"task: {self.model.network} has none of its own, give one of {TASKS.names()}")
            object.__setattr__(self, "task", Task.choose(name, "task"))
        groups = self.task.groups
        for name in self.optimizer.group_rates:
            _require(
                name in groups,
                f"optimizer.group_rates: expected groups of the task {self.task.kind} "
                f"({', '.join(groups) or 'it has none'}), received {name!r}",
            )
        self.task.check(self)
        _require(
            self.optimizer.warmup_steps < self.train.steps,
            f"optimizer.warmup_steps: expected fewer than train.steps, received {self.optimizer.warmup_steps}",
        )
        _require(
            self.train.interval % self.optimizer.accumulate == 0,
            f"optimizer.accumulate: {self.optimizer.accumulate} does not divide train.checkpoint_every",
        )
        if self.validation is not None and self.validation.every < self.train.steps:
            _require(
                self.validation.every % self.train.interval == 0,
                f"validation.every: {self.validation.every} is no multiple of train.checkpoint_every",
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, from which `parse` makes the same configuration."""
        return _plain(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the configuration as YAML."""
        write_text(path, yaml.safe_dump(self.to_dict(), sort_keys=False, width=100))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        content = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"kind": value.kind, **content} if isinstance(value, SourceConfig | Task) else content
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def list_configs() -> dict[str, Path]:
    """Names and files of the configurations that ship with the package."""
    return {path.stem: path for path in sorted(CONFIG_FOLDER.glob("*.yaml"))}


def load(name: str | os.PathLike[str], settings: Sequence[str] = (), smoke: bool = False) -> Config:
    """Reads a configuration.

    Args:
        name: of one that ships, or the path of a YAML file.
        settings: "section.key=value" each, with the value as in YAML; applied last.
        smoke: shrink it to a trial of a minute (see `shrink`), before the settings.

    Raises:
        InputError: one line that says what is wrong, and where.
    """
    data, changes = _read(name, ()), [_setting(setting) for setting in settings]
    try:
        if smoke:
            task = {"task": data.get("task")}  # as it was: a setting may choose another network, with its own task
            data = {**shrink(parse(data)).to_dict(), **task}
        for change in changes:
            data = _merge(data, change)
        return parse(data)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def parse(data: Mapping[str, Any]) -> Config:
    """A configuration from plain data."""
    return schema.build(Config, data)


def shrink(config: Config) -> Config:
    """The same stage as a trial: two steps of two small samples, and a validation of three small frames a video.

    Network, weights, sources, losses and schedule are those of the stage: what is missing or does not fit shows.
    """
    update = config.optimizer.accumulate
    size = (64, 96)
    optimizer = dataclasses.replace(
        config.optimizer,
        warmup_steps=min(config.optimizer.warmup_steps, 1),
        drop_at=(1,) if config.optimizer.drop_at else (),
    )
    validation = config.validation and dataclasses.replace(
        config.validation, every=2 * update, max_frames=3, network_size=size
    )
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, size=size, length=min(config.data.length, 3)),
        optimizer=optimizer,
        train=dataclasses.replace(config.train, steps=2 * update, batch_size=2, checkpoint_every=update),
        validation=validation,
    )


def _read(name: str | os.PathLike[str], above: tuple[Path, ...]) -> dict[str, Any]:
    shipped = list_configs()
    path = shipped.get(str(name)) or (above[-1].parent / name if above else Path(name))
    if not path.is_file():
        raise InputError(f"config: no file {path}, and no configuration of that name; there are {', '.join(shipped)}")
    if path in above:
        raise InputError(f"{path}: base: it is its own base")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no readable YAML ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping, received a {type(data).__name__}")
    base = data.pop("base", None)
    return data if base is None else _merge(_read(str(base), (*above, path)), data)


def _merge(base: Any, changes: Any) -> Any:
    if not isinstance(base, Mapping) or not isinstance(changes, Mapping):
        return changes
    return {**base, **{key: _merge(base.get(key), value) for key, value in changes.items()}}


def _setting(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise InputError(f"--set: expected section.key=value, received {text!r}")
    try:
        nested = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {key}: the value is no YAML ({' '.join(str(error).split())})") from error
    for part in reversed(names):
        nested = {part: nested}
    return nested
