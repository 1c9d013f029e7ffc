"""A training run from its configuration: data, network, `fit`, checkpoints, presets.

A run is cut into intervals of `train.checkpoint_every` steps: an interval is an epoch of `fit`, and at its end the log
gets a line, validation takes place where it is due, and the checkpoint is written, in this order. The same command
after an interruption continues behind the last complete interval: batches depend on their number alone, and everything
else that the training depends on is in the checkpoint.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import yaml

from osmn_tf import files
from osmn_tf.data import sampling
from osmn_tf.data.pipeline import Batches, BatchSequence, tf_dataset
from osmn_tf.data.targets import Target
from osmn_tf.datasets.index import VideoDataset, find_overlap
from osmn_tf.errors import InputError, name_some
from osmn_tf.models.presets import save_preset
from osmn_tf.precision import computing_in
from osmn_tf.training import config as cfg
from osmn_tf.training import distribution, optimization
from osmn_tf.training.callbacks import Checkpointing, EndOnFailure, ProgressBar, RunLog, Validation
from osmn_tf.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    import tensorflow as tf

CONFIG_FILE = "config.yaml"
VERSIONS_FILE = "versions.json"
CHECKPOINT_FILE = "checkpoint.npz"
# What may differ when a run is continued: where it runs, not what it computes.
_FREE = ("data.root", "data.workers", "train.devices")


# Data ---------------------------------------------------------------------------------------------------------------


def open_videos(source: cfg.SourceConfig, root: Path) -> VideoDataset:
    """The videos of a DAVIS or YouTube-VOS source."""
    from osmn_tf.datasets.davis import open_davis
    from osmn_tf.datasets.youtube_vos import open_youtube_vos

    if isinstance(source, cfg.DavisConfig):
        return open_davis(root / source.path, source.year, source.split, source.resolution, source.leave_out)
    if isinstance(source, cfg.YouTubeVosConfig):
        return open_youtube_vos(root / source.path, source.split)
    raise InputError(f"source: expected videos, received {source.kind}")


def open_source(source: cfg.SourceConfig, data: cfg.DataConfig, target: Target) -> sampling.Source:
    """Checks the files of a source and makes its supply of clips, as `target` needs them.

    Raises:
        InputError: files are missing or damaged; the message names them.
    """
    from osmn_tf.datasets.coco import open_coco
    from osmn_tf.datasets.coco_tfrecord import open_coco_tfrecord
    from osmn_tf.datasets.stills import open_stills

    root, size, length, before = Path(data.root), data.size, data.length, target.before
    fit = "stretch"
    if isinstance(source, cfg.VideoSourceConfig):
        return sampling.VideoSource(
            open_videos(source, root),
            size,
            length,
            before=before,
            max_gap=source.max_gap,
            reverse=source.reverse,
            motion=source.motion,
        )
    if isinstance(source, cfg.SyntheticConfig):
        stills = open_stills(root / source.path, source.sets) if source.path else None
        return sampling.SyntheticSource(
            stills, size, length, before=before, samples=source.samples, options=source.options
        )
    if isinstance(source, cfg.CocoConfig):
        images, fit = open_coco(root / source.path, source.split, min_area=source.min_area), source.fit
    elif isinstance(source, cfg.CocoRecordConfig):
        images = open_coco_tfrecord(root / source.path, min_area=source.min_area)
    elif isinstance(source, cfg.StillsConfig):
        images, fit = open_stills(root / source.path, source.sets), source.fit
    else:
        raise InputError(f"sources: no samples of kind {source.kind!r}")
    return sampling.ImageSource(images, size, length, before=before, motion=source.motion, fit=fit)


def open_samples(
    data: cfg.DataConfig, seed: int, target: Target, validation: VideoDataset | None = None
) -> sampling.Samples:
    """The samples of all sources.

    Args:
        data: the sources.
        seed: of the samples.
        target: what is made of the sources' clips.
        validation: videos of which no source may have a sequence or an image, unless it is told otherwise.

    Raises:
        InputError: see `open_source`, or a source overlaps with `validation`; the message begins with the source's
            place in the configuration.
    """
    sources, shares = [], []
    for name, source in data.sources.items():
        if source is None:
            continue
        try:
            opened = open_source(source, data, target)
            if validation is not None and not source.allow_overlap:
                _refuse_overlap(opened, validation)
        except InputError as error:
            missing = not (Path(data.root) / source.path).exists()
            without = f" (a run without this source: --set data.sources.{name}=null)" if missing else ""
            raise InputError(f"data.sources.{name}: {error}{without}") from error
        sources.append(opened)
        shares.append(source.share)
    weights = [float(share) for share in shares if share is not None] or None
    return sampling.Samples(sources, weights, data.epoch_size, seed, target)


def _refuse_overlap(source: sampling.Source, validation: VideoDataset) -> None:
    common = [] if source.data is None else find_overlap(source.data, validation)
    if common:
        kind = "sequences" if isinstance(source.data, VideoDataset) else "images"
        raise InputError(
            f"{len(common)} of its {kind} are in validation.source too ({name_some(common)}), so that J and F there "
            f"would say nothing: take them out of one of the two, or set allow_overlap: true"
        )


def open_validation(validation: cfg.ValidationConfig, root: Path) -> VideoDataset:
    """The videos of `validation.source`, or those of them that are named.

    Raises:
        InputError: files or sequences are missing.
    """
    try:
        videos = open_videos(validation.source, root)
        if validation.sequences is None:
            return videos
        return VideoDataset(videos.name, [videos[name] for name in validation.sequences])
    except InputError as error:
        raise InputError(f"validation.source: {error}") from error


def open_batches(
    config: cfg.Config, samples: sampling.Samples, batches: Batches, step: int = 0, shard: tuple[int, int] = (0, 1)
) -> Any:
    """Endless batches from batch `step` of the training on: `tf.data`, or off TensorFlow a `BatchSequence`.

    On TensorFlow errors are deferred (see `tf_dataset`).
    """
    size, workers = config.train.batch_size, config.data.workers
    if keras.backend.backend() == "tensorflow":
        return tf_dataset(samples, size, batches, step=step, workers=workers, shard=shard, defer_errors=True)
    return BatchSequence(samples, size, batches, step=step, workers=workers or os.cpu_count() or 1)


# Network ------------------------------------------------------------------------------------------------------------


def compile_network(config: cfg.Config, model: keras.Model, metrics: bool = True) -> keras.Model:
    """The compiled Keras model that `fit` trains (see `Task.training_model`)."""
    task = config.task
    network = task.training_model(config, model)
    optimization.penalise_kernels(network, config.loss.l2)
    network.compile(
        optimizer=optimization.make_optimizer(
            config.optimizer, config.train.steps, network.trainable_weights, task.groups
        ),
        loss=task.losses(config),
        metrics=task.metrics(config) if metrics else None,
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    network.optimizer.build(network.trainable_variables)
    return network


# Run ----------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        step: batches trained on.
        stopped_early: the validation's patience ended it.
        best: {"step", "j_mean", "f_mean"} of the best validation, or None.
        model: the network, with its final (averaged) weights.
    """

    step: int
    stopped_early: bool
    best: dict[str, float] | None
    model: keras.Model


def train(config: cfg.Config, run_dir: str | os.PathLike[str], progress: bool = True) -> Result:
    """Trains, or continues what is in `run_dir`.

    `run_dir` gets: `config.yaml` (resolved) and `versions.json`, `log.csv`, `tensorboard/`, `checkpoint.npz`, and the
    presets `best/` (highest J) and `final/`.

    Args:
        config: see `osmn_tf.training.config`.
        run_dir: folder of this run; with several workers, one that all of them see.
        progress: show a progress bar.

    Raises:
        InputError: the configuration, the data or the folder do not fit; nothing was trained.
    """
    train = config.train
    validation, task = config.validation, config.task
    videos = None if validation is None else open_validation(validation, Path(config.data.root))
    samples = open_samples(config.data, train.seed, task.target(config), videos)
    if train.batch_size > len(samples):
        raise InputError(f"train.batch_size: {train.batch_size} is more than an epoch's {len(samples)} samples")
    if train.deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    strategy = distribution.choose_strategy(train.devices, train.batch_size)
    if strategy is not None and strategy.num_replicas_in_sync > 1 and config.optimizer.accumulate > 1:
        raise InputError("optimizer.accumulate: not with several devices; use a larger train.batch_size")
    workers = distribution.is_multi_worker(strategy)
    chief = distribution.is_chief(strategy)
    folder = files.ensure_directory(run_dir, "--run-dir")
    if chief:
        _check_run(folder, config)

    with computing_in(train.precision), distribution.scope(strategy):
        keras.utils.set_random_seed(train.seed)
        model = task.build(config)
        network = compile_network(config, model, metrics=not workers)

    if chief:  # not earlier: a network that cannot be built leaves nothing
        config.save(folder / CONFIG_FILE)
        files.write_text(folder / VERSIONS_FILE, json.dumps(versions(), indent=2) + "\n")
    checkpoint = Checkpoint(folder / CHECKPOINT_FILE, network)
    state = checkpoint.restore()
    step = int(state.get("step", 0))
    samples.damaged = state.get("damaged", [])
    callbacks: list[keras.callbacks.Callback] = [EndOnFailure(samples)]
    validator = None
    if chief:
        metadata = functools.partial(_metadata, config)
        if videos is not None and validation is not None:
            validator = Validation(model, videos, validation, train, folder, metadata)
            validator.load_state(state.get("validation", {}))
            callbacks.append(validator)
        callbacks.append(RunLog(folder, train, step, validator))
        callbacks.append(Checkpointing(checkpoint, train.interval, samples, validator))
        if progress:
            callbacks.append(ProgressBar(train, step))
    if step < train.steps and not state.get("stopped"):
        step = _fit(config, network, samples, task.batches(config, model), strategy, step, callbacks)
    else:
        network.optimizer.finalize_variable_values(network.trainable_weights)
    best = None if validator is None else validator.best
    if chief:
        save_preset(model, folder / "final", {**_metadata(config, step), "validation": best})
    return Result(step, step < train.steps, best, model)


def _fit(
    config: cfg.Config,
    network: keras.Model,
    samples: sampling.Samples,
    batches: Batches,
    strategy: tf.distribute.Strategy | None,
    step: int,
    callbacks: list[keras.callbacks.Callback],
) -> int:
    """Trains from batch `step` on and returns the number of batches trained on since the beginning."""
    interval = config.train.interval
    epochs, first = config.train.steps // interval, step // interval
    if strategy is not None and distribution.is_multi_worker(strategy):
        done = distribution.fit_workers(
            network,
            strategy,
            lambda worker, count: open_batches(config, samples, batches, step, (worker, count)),
            batch_size=config.train.batch_size,
            epochs=epochs,
            initial_epoch=first,
            steps_per_epoch=interval,
            callbacks=callbacks,
        )
        return done * interval
    history = network.fit(
        open_batches(config, samples, batches, step),
        epochs=epochs,
        initial_epoch=first,
        steps_per_epoch=interval,
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
    )
    return (history.epoch[-1] + 1) * interval


def _check_run(folder: Path, config: cfg.Config) -> None:
    """Checks that the configuration is that of the run that is continued, if there is one."""
    path = folder / CONFIG_FILE
    if path.exists():
        try:
            there = cfg.parse(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise InputError(f"--run-dir: {path} is not readable ({error})") from error
        here, before = _flat(config.to_dict()), _flat(there.to_dict())
        for key in sorted(here.keys() | before.keys()):
            if key not in _FREE and here.get(key) != before.get(key):
                raise InputError(
                    f"--run-dir: {folder} holds a run with another {key}: {before.get(key)} there, {here.get(key)} now"
                )


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(data, dict) or not data:
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat.update(_flat(value, f"{prefix}.{key}" if prefix else key))
    return flat


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on, and the backend."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "backend": keras.backend.backend()}
    for name in ("osmn-tf", "keras", "tensorflow", "jax", "torch", "numpy", "opencv-python"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _metadata(config: cfg.Config, step: int) -> dict[str, Any]:
    """What a preset should say about its weights."""
    return {"step": step, "recipe": config.to_dict(), "versions": versions()}
