"""From mask files to numbers per frame: what one process does with one stretch of one video.

A stretch is short, so that the memory needed does not depend on the length of the video, and its numbers are kept under
a hash of everything they depend on: the bytes of all mask files, the rules, and the version of this code. T takes some
25 ms a frame and all else 3, reading and hashing 0.1.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from osmn_tf import files
from osmn_tf.errors import InputError
from osmn_tf.evaluation import metrics, temporal
from osmn_tf.evaluation.bitmask import BitWindow
from osmn_tf.evaluation.protocols import MAX_PROPOSALS, Protocol, Sequence, decode_labels, read_content
from osmn_tf.masks.labels import VOID, labels_of

Array = NDArray[Any]

FRAMES_PER_CHUNK = 40
MEASURES = ("j", "f", "union", "false_close", "false_far", "missed")
"""First axis of `ChunkScores.values`: see `metrics.FrameScores`."""
CLOSE_TOLERANCE = 0.02
"""Share of the diagonal within which a false positive is close to the object: 20 pixels at 480p."""
# To be raised with every change of what is measured, so that numbers of older versions are computed anew.
_CACHE_VERSION = 1
# Labels above this in a merged result are a shade of grey and may occur alone only.
_MAX_PLAUSIBLE_LABEL = 32


@dataclasses.dataclass(frozen=True)
class ChunkJob:
    """Frames `begin` to `end` (exclusive) of a sequence, for several methods.

    `results` are the folders that hold the methods' `<frame>.png` of this sequence.
    """

    sequence: Sequence
    begin: int
    end: int
    results: tuple[Path, ...]
    protocol: Protocol
    cache: Path | None


@dataclasses.dataclass(frozen=True)
class ChunkScores:
    """The numbers of one method in one chunk of T frames.

    Attributes:
        values: float64 [6, K, T] (`MEASURES`, objects, frames); with proposals [6, K, P + 1, T], where the last
            proposal is the empty mask.
        stability: float64 [T], T between every frame and the next one ([T - 1] at the end of the sequence, [0] if it is
            not measured).
    """

    values: Array
    stability: Array


def score_chunk(job: ChunkJob) -> list[ChunkScores]:
    """The scores of every method of `job`, from the cache where nothing has changed.

    Raises:
        InputError: a file is missing, damaged, of another size than its annotation, or has unexpected labels.
    """
    sequence = job.sequence
    frames = sequence.frames[job.begin : job.end]
    # T compares with the next frame, which the next chunk scores.
    following = sequence.frames[job.end : job.end + 1] if sequence.stability else ()
    truth_files = [read_content(sequence.annotations / f"{frame}.png") for frame in frames]
    rules = _rules(job)
    # By key, so that methods with the same masks are scored once.
    keys: list[str] = []
    scores: dict[str, ChunkScores] = {}
    pending: dict[str, _MethodChunk] = {}
    for folder in job.results:
        guess_files = [read_content(folder / f"{frame}.png") for frame in (*frames, *following)]
        key = _digest(rules, truth_files, guess_files)
        keys.append(key)
        cached = None if key in scores else _load(job.cache, key)
        if cached is not None:
            scores[key] = cached
        elif key not in scores and key not in pending:
            pending[key] = _MethodChunk(folder, guess_files)
    if pending:
        decoder = _Decoder(sequence, job.protocol)
        for position, frame in enumerate(frames):
            truth = decoder.annotation(truth_files[position], sequence.annotations / f"{frame}.png")
            for method in pending.values():
                path = method.folder / f"{frame}.png"
                method.add(decoder.prediction(method.files[position], path, truth), truth, job, position)
        for key, method in pending.items():
            for frame, content in zip(following, method.files[len(frames) :]):
                method.add_contour(decoder.prediction(content, method.folder / f"{frame}.png", None))
            scores[key] = method.finish(job)
            _store(job.cache, key, scores[key])
    return [scores[key] for key in keys]


@dataclasses.dataclass(frozen=True)
class _Truth:
    """One decoded annotation: labels without void, and the void pixels if they are to be ignored."""

    labels: Array
    void: Array | None


class _Decoder:
    """Decodes the masks of one sequence by the rules of one protocol."""

    def __init__(self, sequence: Sequence, protocol: Protocol) -> None:
        self.sequence, self.protocol = sequence, protocol
        self.highest = max(sequence.labels)
        self.contiguous = len(sequence.labels) == self.highest

    def annotation(self, content: bytes, path: Path) -> _Truth:
        pixels = decode_labels(content, path)
        if self.sequence.binary:
            return _Truth((pixels != 0).view(np.uint8), None)
        void = pixels == VOID
        ignored = void if self.protocol.void == "ignored" and void.any() else None
        labels = np.where(void, np.uint8(0), pixels)
        return _Truth((labels != 0).view(np.uint8) if self.protocol.merge_objects else labels, ignored)

    def prediction(self, content: bytes, path: Path, truth: _Truth | None) -> Array:
        """Labels uint8 [H, W] of one result file, checked against the annotation (if one is given)."""
        pixels = decode_labels(content, path)
        if truth is not None and pixels.shape != truth.labels.shape:
            expected, received = truth.labels.shape, pixels.shape
            raise InputError(
                f"{path}: expected a mask of the annotation's size, {expected[1]}x{expected[0]}, received"
                f" {received[1]}x{received[0]} (width x height); nothing is resized"
            )
        highest = int(pixels.max())
        if self.protocol.merge_objects:
            if highest > _MAX_PLAUSIBLE_LABEL and np.count_nonzero(pixels) != np.count_nonzero(pixels == highest):
                raise InputError(
                    f"{path}: expected labels or a black and white mask, received several shades of grey up to"
                    f" {highest}; threshold probabilities first"
                )
            return (pixels != 0).view(np.uint8)
        if self.sequence.binary and highest == VOID:
            highest, pixels = 1, (pixels == VOID).view(np.uint8)
        if self.protocol.match_proposals:
            if highest > MAX_PROPOSALS:
                raise InputError(f"{path}: expected at most {MAX_PROPOSALS} proposals, received the label {highest}")
        elif highest > self.highest or not self.contiguous:
            extra = [label for label in [*labels_of(pixels), highest] if label and label not in self.sequence.labels]
            if extra:
                hint = "; a black and white mask is read as DAVIS 2016 is: --year 2016" if extra[-1] == VOID else ""
                raise InputError(
                    f"{path}: expected the labels {', '.join(map(str, self.sequence.labels))} of {self.sequence.name},"
                    f" received {extra[-1]}{hint}"
                )
        return pixels


class _MethodChunk:
    """The growing scores of one method in one chunk."""

    def __init__(self, folder: Path, guess_files: list[bytes]) -> None:
        self.folder, self.files = folder, guess_files
        self.values: list[Array] = []
        self.contours: list[temporal.Contour | None] = []

    def add(self, guess: Array, truth: _Truth, job: ChunkJob, position: int) -> None:
        if job.sequence.stability:
            self.add_contour(guess)
        height, width = guess.shape
        radius = metrics.boundary_radius(height, width)
        close_radius = metrics.boundary_radius(height, width, CLOSE_TOLERANCE)
        if truth.void is not None:
            guess = np.where(truth.void, np.uint8(0), guess)
        if job.protocol.match_proposals:
            self.values.append(_score_proposals(truth.labels, guess, job.sequence.labels, radius, close_radius))
            return
        values = np.full((len(MEASURES), len(job.sequence.labels)), np.nan)
        for k, (label, start) in enumerate(zip(job.sequence.labels, job.sequence.starts)):
            if job.begin + position >= start:
                # A merged foreground is label 1.
                values[:, k] = metrics.frame_scores(truth.labels == label, guess == label, radius, close_radius)
        self.values.append(values)

    def add_contour(self, guess: Array) -> None:
        """For T, which also looks at the frame after the last one of the chunk."""
        self.contours.append(temporal.contour_of(guess))

    def finish(self, job: ChunkJob) -> ChunkScores:
        if job.protocol.match_proposals:
            # Frames may have different numbers of proposals: fill up with the empty one, which is the last everywhere.
            most = max(values.shape[2] for values in self.values)
            self.values = [
                np.concatenate([v[:, :, :-1], np.repeat(v[:, :, -1:], most - v.shape[2] + 1, axis=2)], axis=2)
                for v in self.values
            ]
        stability = [temporal.stability_between(*pair) for pair in itertools.pairwise(self.contours)]
        return ChunkScores(np.stack(self.values, axis=-1), np.array(stability, np.float64))


def _score_proposals(truth: Array, guess: Array, labels: tuple[int, ...], radius: int, close_radius: int) -> Array:
    """[6, K, P + 1]: every object against every proposal 1..P and the empty mask; boundaries are found and dilated once
    per mask, not once per pair."""
    proposals = int(guess.max())
    values = np.zeros((len(MEASURES), len(labels), proposals + 1))
    packed = BitWindow.around((truth != 0, guess != 0), gap=max(radius, close_radius))
    if packed is None:
        values[:2] = 1.0
        return values
    window = packed[0]
    guesses = [window.pack(guess == p) for p in range(1, proposals + 1)] + [0]
    outlines = [window.boundary(bits) for bits in guesses]
    dilated = [window.dilate(bits, radius) for bits in outlines]
    for k, label in enumerate(labels):
        a = window.pack(truth == label)
        outline = window.boundary(a)
        outline_dilated, near = window.dilate(outline, radius), window.dilate(a, close_radius)
        for p, b in enumerate(guesses):
            union, false = (a | b).bit_count(), b & ~a
            false_close = (false & near).bit_count()
            if outline and outlines[p]:
                f = metrics.f_of_boundaries(outline, outline_dilated, outlines[p], dilated[p])
            else:
                f = 1.0 if outline == outlines[p] else 0.0
            values[:, k, p] = (
                (a & b).bit_count() / union if union else 1.0,
                f,
                union,
                false_close,
                false.bit_count() - false_close,
                (a & ~b).bit_count(),
            )
    return values


def object_masks(
    sequence: Sequence, protocol: Protocol, results: Path, frame: str, label: int, matched: int
) -> tuple[Array, Array]:
    """The annotated and the predicted mask, bool [H, W], of one object in one frame, as they are scored.

    Args:
        results: folder of the sequence's `<frame>.png`.
        label, matched: the object's value in the annotations and in the results.
    """
    decoder = _Decoder(sequence, protocol)
    truth_path, guess_path = sequence.annotations / f"{frame}.png", results / f"{frame}.png"
    truth = decoder.annotation(read_content(truth_path), truth_path)
    guess = decoder.prediction(read_content(guess_path), guess_path, truth)
    visible = guess == matched if matched else np.zeros_like(guess, bool)
    return truth.labels == label, visible if truth.void is None else visible & ~truth.void


def _rules(job: ChunkJob) -> bytes:
    """Everything but the files that the numbers depend on."""
    sequence = job.sequence
    starts = [max(start - job.begin, 0) for start in sequence.starts]
    rules = (_CACHE_VERSION, CLOSE_TOLERANCE, sequence.labels, starts, sequence.binary, sequence.stability)
    return repr((*rules, job.protocol)).encode()


def _digest(rules: bytes, truth_files: list[bytes], guess_files: list[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for content in (rules, *truth_files, b"", *guess_files):
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return digest.hexdigest()


def _load(cache: Path | None, key: str) -> ChunkScores | None:
    """The scores kept under `key`; None if there are none, or the file is damaged."""
    if cache is None:
        return None
    try:
        content = (cache / key[:2] / f"{key}.npz").read_bytes()
    except OSError:
        return None
    checksum, payload = content[:20], content[20:]
    if hashlib.blake2b(payload, digest_size=20).digest() != checksum:
        return None
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        return ChunkScores(arrays["values"], arrays["stability"])


def _store(cache: Path | None, key: str, scores: ChunkScores) -> None:
    if cache is None:
        return
    buffer = io.BytesIO()
    np.savez(buffer, values=scores.values, stability=scores.stability)
    payload = buffer.getvalue()
    path = cache / key[:2] / f"{key}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, hashlib.blake2b(payload, digest_size=20).digest() + payload)
