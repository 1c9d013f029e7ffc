"""Trains the small ReConvNet that ships with the package: first single frames, then clips.

    python tools/train_lite.py frames --data DIR --backbone-weights mobilenet.weights.h5 --run-dir runs/lite
    python tools/train_lite.py clips  --data DIR --initial runs/lite/frames.weights.h5 --run-dir runs/lite

DIR holds `davis/` (the DAVIS layout, split --split of 2016), `coco_mini/` (COCO layout) and `stills/SET/`. Each stage
writes `STAGE.weights.h5` (averaged weights) every --save-every steps, and a CSV log.
"""

from __future__ import annotations

import argparse
import csv
import os
import queue
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from osmn_tf.data.coco import open_coco
from osmn_tf.data.davis import open_davis
from osmn_tf.data.stills import open_stills
from osmn_tf.data.synthetic import SyntheticClips
from osmn_tf.errors import InputError
from osmn_tf.guides import spatial_guide, visual_guide
from osmn_tf.losses import binary_cross_entropy, lovasz_hinge
from osmn_tf.models.reconvnet import ReConvNet

ARCHITECTURE = {
    "backbone": "mobilenet",
    "visual_hidden": 512,
    "guide_size": 160,
    "decoder": "refinement",
    "normalization": "signed_unit",
    "batch_statistics": False,
    "network_size": (256, 448),
    "recurrent_channels": (48, 96, 128),
}
VOID = 255


@dataclass(frozen=True)
class Stage:
    """One stage of the recipe.

    Attributes:
        steps, batch, length: iterations, clips a batch, frames a clip.
        learning_rate: peak of the cosine schedule.
        mix: shares of DAVIS clips, moving stills and synthetic clips.
        max_gap: frames between two frames of a DAVIS clip, at most.
    """

    steps: int
    batch: int
    length: int
    learning_rate: float
    mix: tuple[float, float, float]
    max_gap: int


# DAVIS marks one object a sequence: it is the synthetic clips, with their distractors, that teach to tell objects apart.
STAGES = {
    "frames": Stage(2600, 6, 1, 4e-4, (0.5, 0.5, 0.0), 1),
    "clips": Stage(800, 2, 4, 1.5e-4, (0.5, 0.2, 0.3), 3),
}


class Sampler:
    """Random training samples: the same for the same (seed, index)."""

    def __init__(self, data: Path, split: str, stage: Stage, size: tuple[int, int], seed: int) -> None:
        self.stage, self.size, self.seed = stage, size, seed
        davis = open_davis(data / "davis", 2016, split)
        stills = open_stills(data / "stills")
        images = stills + open_coco(data / "coco_mini", "train2017") + open_coco(data / "coco_mini", "val2017")
        self.synthetic = SyntheticClips(stills, size=size, length=stage.length + 1, seed=seed)
        self.sequences = []
        for sequence in tqdm(davis.sequences, desc="DAVIS", unit="sequence"):
            pairs = [self._resize(*sequence.load(i)) for i in range(len(sequence))]
            self.sequences.append(([p[0] for p in pairs], [p[1] for p in pairs]))
        self.images = []
        for index in tqdm(range(len(images)), desc="images", unit="image"):
            image, mask = self._resize(*images.load(index))
            if self._labels(mask):
                self.images.append((image, mask))

    def _resize(self, image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = self.size[::-1]
        return cv2.resize(image, size), cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)

    @staticmethod
    def _labels(mask: np.ndarray) -> list[int]:
        """Objects that cover more than 0.3% of the image and 20% of their box, as the release asks of a guide."""
        good = []
        for label in np.unique(mask):
            if label in (0, VOID):
                continue
            pixels = (mask == label).astype(np.uint8)
            _, _, width, height = cv2.boundingRect(pixels)
            area = cv2.countNonZero(pixels)
            if area > 0.003 * mask.size and area > 0.2 * width * height:
                good.append(int(label))
        return good

    @staticmethod
    def _binary(mask: np.ndarray, label: int) -> np.ndarray:
        return np.where(mask == VOID, VOID, mask == label).astype(np.uint8)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.seed, index])
        kind = rng.choice(3, p=self.stage.mix)
        clip = (self._davis, self._still, self._synthetic)[kind](rng)
        frames, masks, guide_image, guide_mask = clip
        if rng.random() < 0.5:
            frames, masks = frames[:, :, ::-1], masks[:, :, ::-1]
        if rng.random() < 0.5:
            guide_image, guide_mask = guide_image[:, ::-1], guide_mask[:, ::-1]
        colour = _random_colour(rng, 1.0)
        length = self.stage.length
        guide_image, guide_mask = _warp(
            guide_image, guide_mask, _matrix(self.size, rng.uniform(-10, 10), 1.0, 0.0, 0.0)
        )
        return {
            "frames": np.stack([_apply_colour(frame, colour) for frame in frames[1:]]),
            "labels": masks[1:, ..., None].copy(),
            "previous": np.where(masks[:-1] == VOID, 0, masks[:-1]),
            "guide_image": _apply_colour(_apply_colour(guide_image, colour), _random_colour(rng, 0.4)),
            "guide_mask": (guide_mask == 1).astype(np.uint8),
            "margins": rng.uniform(-0.1, 0.1, 4).astype(np.float32),
            "centre_shift": rng.uniform(-0.2, 0.2, (length, 2)).astype(np.float32),
            "sigma_scale": (rng.uniform(1.0, 1.4, (length, 2)) ** rng.choice([-1, 1], (length, 2))).astype(np.float32),
            "keep_guide": (rng.random(length) > 0.04).astype(np.float32),
        }

    def _davis(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """A clip, and as its guide any frame of the sequence that shows the object well."""
        while True:
            frames, masks = self.sequences[rng.integers(len(self.sequences))]
            gap = int(rng.integers(1, self.stage.max_gap + 1))
            span = gap * self.stage.length
            start = int(rng.integers(len(frames) - span))
            guide = int(rng.integers(len(frames)))
            if self._labels(masks[guide]) and masks[start].any():
                break
        positions = list(range(start, start + span + 1, gap))
        if rng.random() < 0.5:
            positions.reverse()
        matrix = _random_matrix(self.size, rng, 15, (0.75, 1.3), 0.12)
        pairs = [_warp(frames[i], masks[i], matrix) for i in positions]
        return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs]), frames[guide], masks[guide]

    def _still(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """An image under a smoothly changing affine map; the guide is the image itself."""
        image, mask = self.images[rng.integers(len(self.images))]
        mask = self._binary(mask, int(rng.choice(self._labels(mask))))
        first = np.array([rng.uniform(-20, 20), rng.uniform(0.5, 1.25), *rng.uniform(-0.2, 0.2, 2)])
        length = self.stage.length
        speed = np.array([rng.normal(0, 4), rng.normal(0, 0.05), *rng.normal(0, 0.04, 2)])
        pairs = []
        for t in range(length + 1):
            degrees, scale, x, y = first + speed * t
            pairs.append(_warp(image, mask, _matrix(self.size, degrees, max(scale, 0.3), x, y)))
        return np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs]), image, mask

    def _synthetic(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        while True:
            frames, masks = self.synthetic[int(rng.integers(1 << 30))]
            labels = self._labels(masks[0])
            if labels:
                break
        label = int(rng.choice(labels))
        masks = np.stack([self._binary(mask, label) for mask in masks])
        return frames, masks, frames[0], masks[0]


def _matrix(size: tuple[int, int], degrees: float, scale: float, x: float, y: float) -> np.ndarray:
    height, width = size
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    matrix[:, 2] += (x * width, y * height)
    return matrix


def _random_matrix(
    size: tuple[int, int], rng: np.random.Generator, degrees: float, scale: tuple[float, float], shift: float
) -> np.ndarray:
    return _matrix(size, rng.uniform(-degrees, degrees), rng.uniform(*scale), *rng.uniform(-shift, shift, 2))


def _warp(image: np.ndarray, mask: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = mask.shape[::-1]
    border = cv2.BORDER_REFLECT_101
    return (
        cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=border),
        cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_NEAREST, borderMode=border),
    )


def _random_colour(rng: np.random.Generator, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Gain and offset per channel: brightness, contrast and a colour cast."""
    gain = (1 + strength * rng.uniform(-0.25, 0.25)) * (1 + strength * rng.uniform(-0.1, 0.1, 3))
    return gain.astype(np.float32), (strength * rng.uniform(-25, 25, 3)).astype(np.float32)


def _apply_colour(image: np.ndarray, colour: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    table = np.clip(np.arange(256)[:, None] * colour[0] + colour[1], 0, 255).astype(np.uint8)
    return cv2.LUT(np.ascontiguousarray(image), table[None])


def batches(sampler: Sampler, stage: Stage, workers: int) -> queue.Queue:
    """A bounded queue that daemon threads keep filled with batches in order of their number."""
    ready: queue.Queue = queue.Queue(4)

    def produce() -> None:
        with ThreadPoolExecutor(workers) as pool:
            for step in range(stage.steps):
                samples = list(pool.map(sampler.__getitem__, range(step * stage.batch, (step + 1) * stage.batch)))
                ready.put({name: np.stack([sample[name] for sample in samples]) for name in samples[0]})

    threading.Thread(target=produce, daemon=True).start()
    return ready


def train(arguments: argparse.Namespace) -> None:
    """Runs one stage and leaves its averaged weights in the run folder."""
    stage = STAGES[arguments.stage]
    if arguments.steps:
        stage = Stage(arguments.steps, *list(vars(stage).values())[1:])
    keras.utils.set_random_seed(arguments.seed)
    model = ReConvNet(**ARCHITECTURE)
    if arguments.backbone_weights:
        model.load_backbone_weights(arguments.backbone_weights)
    if arguments.initial:
        model.load_weights(arguments.initial)
    sampler = Sampler(Path(arguments.data), arguments.split, stage, ARCHITECTURE["network_size"], arguments.seed)
    clip = model.clip_model(stage.length, *ARCHITECTURE["network_size"])
    warm_up = min(100, stage.steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, stage.steps - warm_up, alpha=0.01, warmup_target=stage.learning_rate, warmup_steps=warm_up
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=1e-4, global_clipnorm=5.0, use_ema=True, ema_momentum=0.995
    )
    optimizer.build(clip.trainable_variables)

    @tf.function
    def step(batch: dict[str, tf.Tensor], own: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        merged = {name: tf.reshape(batch[name], (-1, *batch[name].shape[2:])) for name in ("previous", "centre_shift")}
        scale = tf.reshape(batch["sigma_scale"], (-1, 2))
        guides = spatial_guide(merged["previous"], merged["centre_shift"], scale)
        guides = tf.reshape(guides, (*batch["previous"].shape, 1))
        guides *= batch["keep_guide"][:, :, None, None, None]
        appearance = visual_guide(
            batch["guide_image"], batch["guide_mask"], model.guide_size, model.guide_background, batch["margins"]
        )
        with tf.GradientTape() as tape:
            logits = clip(
                {"frames": batch["frames"], "visual_guide": appearance, "spatial_guides": guides, "own_guide": own},
                training=True,
            )
            y_true = tf.reshape(batch["labels"], (-1, *batch["labels"].shape[2:]))
            y_pred = tf.reshape(logits, (-1, *logits.shape[2:]))
            # Every fourth pixel is enough for the Lovasz hinge, which sorts them.
            hinge = lovasz_hinge(y_true[:, ::2, ::2], y_pred[:, ::2, ::2])
            loss = tf.reduce_mean(binary_cross_entropy(y_true, y_pred) + 0.5 * hinge)
        optimizer.apply_gradients(zip(tape.gradient(loss, clip.trainable_variables), clip.trainable_variables))
        object_pixels, predicted = y_true == 1, (y_pred > 0) & (y_true != VOID)
        both = tf.reduce_sum(tf.cast(object_pixels & predicted, tf.float32), (1, 2, 3))
        either = tf.reduce_sum(tf.cast(object_pixels | predicted, tf.float32), (1, 2, 3))
        return loss, tf.reduce_mean(tf.math.divide_no_nan(both, either))

    run_dir = Path(arguments.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        """Writes the averaged weights and carries on with the raw ones."""
        raw = [variable.numpy() for variable in clip.trainable_variables]
        optimizer.finalize_variable_values(clip.trainable_variables)
        model.save_weights(run_dir / f"{arguments.stage}.part.weights.h5")
        os.replace(run_dir / f"{arguments.stage}.part.weights.h5", run_dir / f"{arguments.stage}.weights.h5")
        for variable, value in zip(clip.trainable_variables, raw):
            variable.assign(value)

    feed = batches(sampler, stage, arguments.workers)
    generator = np.random.default_rng(arguments.seed)
    begin = time.perf_counter()
    with open(run_dir / f"{arguments.stage}.csv", "w", newline="") as log, tqdm(total=stage.steps, unit="step") as bar:
        writer = csv.writer(log)
        writer.writerow(["step", "seconds", "loss", "iou"])
        history: list[tuple[float, float]] = []
        for number in range(1, stage.steps + 1):
            batch = {name: tf.constant(array) for name, array in feed.get().items()}
            # From annotated guides to the network's own: the curriculum runs over the first half.
            probability = min(1.0, 0.3 + 1.4 * number / stage.steps)
            own = (generator.random((stage.batch, stage.length)) < probability).astype(np.float32)
            loss, iou = step(batch, tf.constant(own))
            history.append((float(loss), float(iou)))
            bar.update()
            if number % 20 == 0:
                recent = np.mean(history[-20:], axis=0)
                bar.set_postfix(loss=f"{recent[0]:.3f}", iou=f"{recent[1]:.3f}")
                writer.writerow([number, round(time.perf_counter() - begin, 1), *np.round(recent, 4)])
                log.flush()
            if number % arguments.save_every == 0 or number == stage.steps:
                save()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--data", required=True, help="folder with davis/, coco_mini/ and stills/")
    parser.add_argument("--split", default="train", help="list of DAVIS 2016 to train on (default: %(default)s)")
    parser.add_argument("--run-dir", required=True, help="where weights and log go")
    parser.add_argument("--backbone-weights", help="'imagenet' or a MobileNet-v1 weight file without the top")
    parser.add_argument("--initial", help="weights to start from, of the stage before")
    parser.add_argument("--steps", type=int, help="another number of steps")
    parser.add_argument("--save-every", type=int, default=200, metavar="N")
    parser.add_argument("--workers", type=int, default=2, help="threads that prepare samples")
    parser.add_argument("--seed", type=int, default=0)
    try:
        train(parser.parse_args())
    except InputError as error:
        print(f"train_lite: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
