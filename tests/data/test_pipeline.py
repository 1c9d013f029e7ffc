from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from osmn_tf.augment import NO_AUGMENTATION, AugmentOptions
from osmn_tf.data.guided import GuidedBatches
from osmn_tf.data.pipeline import BatchSequence, _Loading, tf_dataset
from osmn_tf.data.sampling import ImageSource, Samples, SyntheticSource, VideoSource, crop_to_aspect
from osmn_tf.data.synthetic import ClipOptions, SyntheticClips
from osmn_tf.data.targets import OneObject, good_guide
from osmn_tf.datasets.coco import open_coco
from osmn_tf.datasets.davis import open_davis
from osmn_tf.datasets.index import DamagedFileError, DamagedFileWarning
from osmn_tf.datasets.stills import open_stills
from osmn_tf.datasets.youtube_vos import open_youtube_vos
from osmn_tf.errors import InputError
from osmn_tf.guides import spatial_guide, visual_guide
from tests.datasets.conftest import make_davis, make_stills, truncate, two_boxes

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
SIZE = (24, 32)
ONE = OneObject()
PLAIN = GuidedBatches(guide_size=16, augment=NO_AUGMENTATION, guide_jitter=False)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestSources:
    def test_video_clip(self, davis_root: Path) -> None:
        source = VideoSource(open_davis(davis_root, 2017, "val"), SIZE, length=2, reverse=0)
        assert len(source) == 3  # five frames: three clips of one mask and two frames
        sample = source.sample(1, ONE, rng())
        assert {name: value.shape for name, value in sample.items()} == {
            "frames": (2, 24, 32, 3),
            "masks": (3, 24, 32),
            "guide_frame": (24, 32, 3),
            "guide_mask": (24, 32),
            "motion": (),
        }
        chosen = {int(source.sample(1, ONE, rng(seed))["masks"][0].sum()) for seed in range(10)}
        assert chosen == {6 * 8, 10 * 6}  # each of the two objects
        label = {48: 1, 60: 2}[int(sample["masks"][0].sum())]
        for k in range(3):
            np.testing.assert_array_equal(sample["masks"][k], two_boxes(shift=1 + k) == label)
        # The red channel is 40 * frame number: the frames are those of the later masks.
        assert [round(frame[20, 0, 0] / 40) for frame in sample["frames"]] == [2, 3]
        guide = round(sample["guide_frame"][20, 0, 0] / 40)
        np.testing.assert_array_equal(sample["guide_mask"], two_boxes(shift=guide) == label)

    def test_video_gaps_and_reversal(self, davis_root: Path) -> None:
        source = VideoSource(open_davis(davis_root, 2017, "val"), SIZE, length=2, max_gap=9)
        seen = set()
        for seed in range(60):
            sample = source.sample(0, ONE, rng(seed))
            seen.add(tuple(round(frame[20, 0, 0] / 40) for frame in sample["frames"]))
        # Frames 0, 1, 2 or 0, 2, 4 and back; the first of each is only a mask.
        assert seen == {(1, 2), (2, 4), (1, 0), (2, 0)}

    def test_youtube_vos_uses_annotated_frames(self, youtube_vos_root: Path) -> None:
        source = VideoSource(open_youtube_vos(youtube_vos_root), SIZE, length=1, reverse=0)
        assert len(source) == 2
        sample = source.sample(0, ONE, rng())
        assert sample["masks"].sum(axis=(1, 2)).tolist() == [48, 48]  # object 2 is not there yet in the first mask
        assert round(sample["frames"][0][20, 0, 0] / 20) == 5

    def test_damaged_frame_gives_another_clip(self, davis_root: Path) -> None:
        truncate(davis_root / "JPEGImages/480p/ant/00002.jpg")
        samples = []
        for _ in range(2):
            data = open_davis(davis_root, 2017, "train")
            source = VideoSource(data, SIZE, length=1, reverse=0)
            item = source._starts.index((1, 1))  # ant, masks 1 and 2
            with pytest.warns(DamagedFileWarning, match=r"ant/00002\.jpg"):
                samples.append(source.sample(item, ONE, rng(1)))
            assert len(data.damaged) == 1
        for name, value in samples[0].items():
            np.testing.assert_array_equal(value, samples[1][name])

    def test_a_damaged_file_counts_once_however_often_it_is_wanted(self, davis_root: Path) -> None:
        truncate(davis_root / "JPEGImages/480p/ant/00002.jpg")
        source = VideoSource(open_davis(davis_root, 2017, "train"), SIZE, length=2, max_gap=2)

        def every_clip_and_any_guide() -> None:
            for epoch in range(8):
                for item in range(len(source)):
                    source.sample(item, ONE, rng(epoch))

        with pytest.warns(DamagedFileWarning) as record:
            every_clip_and_any_guide()
        assert [str(warning.message).split(": ")[1] for warning in record] == ["skipped damaged item 1 of 9"]

    @pytest.mark.filterwarnings("ignore::osmn_tf.datasets.index.DamagedFileWarning")
    def test_many_damaged_files_end_a_run_whether_it_was_interrupted_or_not(self, davis_root: Path) -> None:
        def open_samples() -> Samples:
            data = open_davis(davis_root, 2017, "train")
            return Samples([VideoSource(data, SIZE, length=1, reverse=0)], epoch_size=7)

        def run(samples: Samples, first: int) -> tuple[int, list[list[str]], str]:
            """Where it ends, what was known before, and with which words."""
            for index in range(first, 70):
                before = samples.damaged
                try:
                    samples.sample(index // 7, index % 7)
                except DamagedFileError as error:
                    return index, before, str(error)
            return 70, [], "it never ended"

        for k in range(4):
            truncate(davis_root / f"JPEGImages/480p/ant/{k:05d}.jpg")
        whole = open_samples()
        end, before, message = run(whole, 0)
        assert "more than 3 of 9 items are damaged, the last: " in message
        assert str(whole.failure) == message
        resumed = open_samples()
        resumed.damaged = before  # as the checkpoint keeps it
        assert run(resumed, end)[::2] == (end, message)

    @pytest.mark.filterwarnings("ignore::osmn_tf.datasets.index.DamagedFileWarning")
    def test_nothing_but_few_damaged_files_is_said(self, davis_root: Path) -> None:
        """Two damaged files are not too many for the data set, but they are all that these clips can begin with."""
        source = VideoSource(open_davis(davis_root, 2017, "train"), SIZE, length=1, reverse=0)
        source._starts = [start for start in source._starts if start[0] == 1][:2]
        assert len(source) == 2
        for k in range(3):
            truncate(davis_root / f"JPEGImages/480p/ant/{k:05d}.jpg")
        with pytest.raises(DamagedFileError, match=r"^20 tries met damaged files alone, the last: .*ant"):
            source.sample(0, ONE, rng())

    def test_coco_goes_through_instances(self, coco_root: Path) -> None:
        source = ImageSource(open_coco(coco_root), (20, 30), length=2)
        assert len(source) == 2
        areas = [int((source.sample(item, ONE, rng())["masks"][0] == 1).sum()) for item in range(2)]
        assert areas == [12 * 10 - 12 * 2, 20 * 5]

    def test_stills_keep_void(self, stills_root: Path) -> None:
        source = ImageSource(open_stills(stills_root), SIZE, length=1)
        assert len(source) == 8
        sample = source.sample(3, ONE, rng())
        assert (sample["masks"][:, 0] == 255).all()
        assert set(np.unique(sample["guide_mask"])) == {0, 1}

    def test_synthetic(self) -> None:
        source = SyntheticSource(None, (48, 64), length=2, samples=7)
        assert len(source) == 7
        sample = source.sample(0, ONE, rng(3))
        assert sample["frames"].shape == (2, 48, 64, 3)
        assert good_guide(sample["guide_mask"])
        assert (source.sample(0, ONE, rng(4))["frames"] != sample["frames"]).any()

    def test_good_guide(self) -> None:
        mask = np.zeros((100, 100), np.uint8)
        mask[0, :30] = 1
        assert not good_guide(mask)  # 0.3% exactly
        mask[0, 30] = 1
        assert good_guide(mask)
        mask[50, 0] = 1
        assert not good_guide(mask)  # 32 pixels in a box of 31 x 51

    def test_too_short_videos(self, davis_root: Path) -> None:
        with pytest.raises(InputError, match="no video has 9 annotated frames"):
            VideoSource(open_davis(davis_root), SIZE, length=8)


class TestSamples:
    def sources(self, davis_root: Path, stills_root: Path) -> list[VideoSource | ImageSource]:
        return [
            VideoSource(open_davis(davis_root, 2017, "train"), SIZE),
            ImageSource(open_stills(stills_root), SIZE),
        ]

    def test_an_epoch_goes_through_everything_once(self, davis_root: Path, stills_root: Path) -> None:
        samples = Samples(self.sources(davis_root, stills_root))
        assert len(samples) == 7 + 8
        for epoch in (0, 1):
            plan = samples._plan(epoch)
            assert sorted(zip(plan.sources.tolist(), plan.items.tolist())) == [
                *((0, i) for i in range(7)),
                *((1, i) for i in range(8)),
            ]
        assert (samples._plan(0).items != samples._plan(1).items).any()

    def test_weights(self, davis_root: Path, stills_root: Path) -> None:
        samples = Samples(self.sources(davis_root, stills_root), weights=[3, 1], epoch_size=40)
        plan = samples._plan(5)
        assert np.bincount(plan.sources).tolist() == [30, 10]
        counts = np.bincount(plan.items[plan.sources == 0], minlength=7)
        assert (counts.min(), counts.max()) == (4, 5)  # 30 of 7 items: evenly

    def test_sample_depends_on_seed_epoch_and_index_alone(self, davis_root: Path, stills_root: Path) -> None:
        first = Samples(self.sources(davis_root, stills_root), seed=3)
        wanted = first.sample(2, 5)
        other = pickle.loads(pickle.dumps(Samples(self.sources(davis_root, stills_root), seed=3)))
        other.sample(0, 0), other.sample(2, 4)
        for name, value in other.sample(2, 5).items():
            np.testing.assert_array_equal(value, wanted[name])
        assert (first.sample(2, 6)["seeds"] != wanted["seeds"]).any()
        assert (first.sample(1, 5)["seeds"] != wanted["seeds"]).any()

    def test_bad_arguments(self, davis_root: Path, stills_root: Path) -> None:
        sources = self.sources(davis_root, stills_root)
        with pytest.raises(InputError, match="weights: expected 2 shares"):
            Samples(sources, weights=[1])
        with pytest.raises(InputError, match="sources: expected the same size"):
            Samples([sources[0], ImageSource(open_stills(stills_root), (32, 32))])
        with pytest.raises(InputError, match=r"index: expected 0\.\.14, received 15"):
            Samples(sources).sample(0, 15)


class TestPrepare:
    def raw(self, stills_root: Path, count: int = 3, length: int = 2) -> dict[str, np.ndarray]:
        samples = Samples([ImageSource(open_stills(stills_root), SIZE, length)])
        return {**samples.batch(0, range(count)), "own_guide": np.full(count, 0.5, np.float32)}

    def test_without_augmentation(self, stills_root: Path) -> None:
        raw = self.raw(stills_root)
        inputs, labels = PLAIN.prepare(raw)
        np.testing.assert_array_equal(inputs["frames"], raw["frames"])
        assert keras.ops.convert_to_numpy(labels).dtype == np.uint8
        np.testing.assert_array_equal(labels, raw["masks"][:, 1:, ..., None])
        # Unlabelled pixels are no part of the guide.
        expected = spatial_guide(raw["masks"][:, 0] == 1)
        np.testing.assert_allclose(inputs["spatial_guides"][:, 1], expected, atol=1e-6)
        np.testing.assert_allclose(
            inputs["visual_guide"], visual_guide(raw["guide_frame"], raw["guide_mask"], 16), atol=1e-3
        )

    def test_frames_have_no_time_axis(self, stills_root: Path) -> None:
        inputs, labels = replace(PLAIN, clips=False).prepare(self.raw(stills_root, length=1))
        assert {name: tuple(value.shape) for name, value in inputs.items()} == {
            "frame": (3, 24, 32, 3),
            "visual_guide": (3, 16, 16, 3),
            "spatial_guide": (3, 24, 32, 1),
        }
        assert labels.shape == (3, 24, 32, 1)

    def test_jitter_moves_the_guides_only(self, stills_root: Path) -> None:
        raw = self.raw(stills_root)
        plain, plain_labels = PLAIN.prepare(raw)
        inputs, labels = replace(PLAIN, guide_jitter=True).prepare(raw)
        np.testing.assert_array_equal(inputs["frames"], plain["frames"])
        np.testing.assert_array_equal(labels, plain_labels)
        for name in ("visual_guide", "spatial_guides"):
            change = np.abs(keras.ops.convert_to_numpy(inputs[name]) - keras.ops.convert_to_numpy(plain[name]))
            assert change.reshape(3, -1).max(1).min() > 0.02
        first, second = (keras.ops.convert_to_numpy(inputs["spatial_guides"])[:, t] for t in (0, 1))
        assert np.abs(first - second).max() > 0.02  # each frame has its own jitter

    def test_guide_dropout_and_own_guides(self, stills_root: Path) -> None:
        raw = {name: np.repeat(value, 100, axis=0) for name, value in self.raw(stills_root, count=1).items()}
        raw["seeds"] = np.arange(200, dtype=np.int32).reshape(100, 2)
        inputs, _ = replace(PLAIN, guide_dropout=0.3).prepare(raw)
        empty = keras.ops.convert_to_numpy(inputs["spatial_guides"]).max((2, 3, 4)) == 0
        assert 0.2 < empty.mean() < 0.4
        inputs, _ = PLAIN.prepare(raw)
        own = keras.ops.convert_to_numpy(inputs["own_guide"])
        assert set(np.unique(own)) == {0.0, 1.0}
        assert 0.4 < own.mean() < 0.6

    def test_guide_dropout_reaches_the_frames_with_own_guides(self, stills_root: Path) -> None:
        """A network's own prediction takes the place of the guide in a clip: it must not where the object is lost."""
        raw = {name: np.repeat(value, 100, axis=0) for name, value in self.raw(stills_root, count=1, length=4).items()}
        raw["seeds"] = np.arange(200, dtype=np.int32).reshape(100, 2)
        raw["own_guide"] = np.ones(100, np.float32)
        inputs, _ = replace(PLAIN, guide_dropout=0.3).prepare(raw)
        empty = keras.ops.convert_to_numpy(inputs["spatial_guides"]).max((2, 3, 4)) == 0
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(inputs["own_guide"]), 1.0 - empty)
        assert 0.2 < empty[:, 1:].mean() < 0.4


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    root = tmp_path_factory.mktemp("data")
    return Samples(
        [
            VideoSource(open_davis(make_davis(root / "davis"), 2017, "train"), SIZE, 2, max_gap=2),
            ImageSource(open_stills(make_stills(root / "stills")), SIZE, 2),
        ],
        weights=[0.6, 0.4],
        epoch_size=11,
        seed=9,
    )


OPTIONS = GuidedBatches(guide_size=16, augment=AugmentOptions(), own_guide=lambda number: min(1.0, number // 3 / 2))


def assert_batches_equal(first: tuple, second: tuple, atol: float = 0) -> None:
    assert first[0].keys() == second[0].keys()
    for name in first[0]:
        np.testing.assert_allclose(
            np.asarray(first[0][name], np.float32), np.asarray(second[0][name], np.float32), atol=atol, err_msg=name
        )
    np.testing.assert_array_equal(np.asarray(first[1]), np.asarray(second[1]))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data runs operations of this backend only")
class TestTfData:
    @pytest.fixture(scope="class")
    @staticmethod
    def batches(samples: Samples) -> list[tuple]:
        """Three epochs of three batches of three samples, by two workers."""
        return list(tf_dataset(samples, 3, OPTIONS, epochs=3, workers=2))

    def test_shapes(self, batches: list[tuple]) -> None:
        assert len(batches) == 3 * (11 // 3)
        inputs, labels = batches[0]
        assert {name: (value.dtype.name, value.shape.as_list()) for name, value in inputs.items()} == {
            "frames": ("uint8", [3, 2, 24, 32, 3]),
            "visual_guide": ("float32", [3, 16, 16, 3]),
            "spatial_guides": ("float32", [3, 2, 24, 32, 1]),
            "own_guide": ("float32", [3, 2]),
        }
        assert (labels.dtype.name, labels.shape.as_list()) == ("uint8", [3, 2, 24, 32, 1])
        assert not np.array_equal(batches[0][0]["frames"], batches[3][0]["frames"])

    def test_curriculum(self, batches: list[tuple]) -> None:
        own = [np.mean([batch[0]["own_guide"] for batch in batches[3 * epoch : 3 * epoch + 3]]) for epoch in range(3)]
        assert own[0] == 0
        assert 0.1 < own[1] < 0.9
        assert own[2] == 1

    def test_resumed_with_other_workers_gives_the_same_batches(self, samples: Samples, batches: list[tuple]) -> None:
        dataset = tf_dataset(samples, 3, OPTIONS, epoch=1, step=2, epochs=3, workers=5)
        assert dataset.element_spec[0]["frames"].shape.as_list() == [3, 2, 24, 32, 3]
        resumed = list(dataset)
        assert len(resumed) == 4
        for first, second in zip(batches[5:], resumed):
            assert_batches_equal(first, second)

    def test_shards_share_out_every_batch(self, samples: Samples, batches: list[tuple]) -> None:
        def raw(shard: tuple[int, int]) -> list[dict]:
            return list(tf_dataset(samples, 3, OPTIONS, step=4, epochs=2, shard=shard, prepared=False))

        whole, shards = raw((0, 1)), [raw((k, 3)) for k in range(3)]
        assert [len(shard) for shard in (whole, *shards)] == [2, 2, 2, 2]
        for step in range(2):
            assert all(shard[step].keys() == whole[step].keys() for shard in shards)
            for name, expected in whole[step].items():
                np.testing.assert_array_equal(np.concatenate([shard[step][name] for shard in shards]), expected)
        # Prepared, a share is the batch's share.
        for step, (inputs, labels) in enumerate(tf_dataset(samples, 3, OPTIONS, step=4, epochs=2, shard=(1, 3))):
            own = {name: value[1:2] for name, value in batches[4 + step][0].items()}
            assert_batches_equal((own, batches[4 + step][1][1:2]), (inputs, labels), atol=1e-3)
        with pytest.raises(InputError, match="shard: 0 of 2 is no equal share of batches of 3"):
            tf_dataset(samples, 3, OPTIONS, shard=(0, 2))

    def test_raw_batches_for_preparation_in_the_training_step(self, samples: Samples, batches: list[tuple]) -> None:
        raw = next(iter(tf_dataset(samples, 3, OPTIONS, prepared=False)))
        assert_batches_equal(OPTIONS.prepare(raw), batches[0], atol=1e-2)

    def test_py_dataset_feeds_the_same(self, samples: Samples, batches: list[tuple]) -> None:
        sequence = BatchSequence(samples, 3, OPTIONS, epoch=1, step=1, workers=2)
        assert sequence.steps_per_epoch == 3
        for index in (0, 1, 0, 4):  # Keras looks at the first ones twice
            assert_batches_equal(sequence[index], batches[4 + index], atol=1e-3)

    def test_bad_arguments(self, samples: Samples) -> None:
        with pytest.raises(InputError, match=r"batch_size: expected 1\.\.11"):
            tf_dataset(samples, 12, OPTIONS)
        with pytest.raises(InputError, match="clips: batches of frames need samples of length 1, received length 2"):
            tf_dataset(samples, 2, replace(OPTIONS, clips=False))


def test_fit_sees_the_epochs_in_order(samples: Samples) -> None:
    """`model.fit` on a `BatchSequence` with threads gets every batch of every epoch, in order."""
    seen: list[float] = []

    class Recorder(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.scale = keras.layers.Dense(1)
            self.scale.build((None, 2, *SIZE, 3))
            self.built = True

        def call(self, inputs: dict) -> object:
            frames = keras.ops.cast(inputs["frames"], "float32")
            seen.append(float(keras.ops.mean(frames)))
            return self.scale(frames / 255.0)

    model = Recorder()
    model.compile(loss="mse", optimizer="sgd", run_eagerly=True)
    options = replace(OPTIONS, augment=NO_AUGMENTATION)
    sequence = BatchSequence(samples, 3, options, epoch=1, workers=2)
    model.fit(sequence, steps_per_epoch=3, initial_epoch=1, epochs=3, shuffle=False, verbose=0)
    fresh = BatchSequence(samples, 3, options)
    expected = [fresh[number][0]["frames"].mean() for number in range(3, 9)]
    assert len({round(value, 2) for value in expected}) == 6
    np.testing.assert_allclose(seen, expected, atol=0.01)


@pytest.mark.real_data
def test_real_clips(real_data_root: Path) -> None:
    source = VideoSource(open_davis(real_data_root / "davis", 2016, "train"), (64, 112), 3, max_gap=3)
    sequence = BatchSequence(Samples([source]), 2, GuidedBatches(guide_size=48))
    inputs, labels = sequence[0]
    assert inputs["frames"].shape == (2, 3, 64, 112, 3)
    assert set(np.unique(labels)) <= {0, 1, 255}
    assert inputs["spatial_guides"].max() > 0.9


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data is TensorFlow's")
def test_a_process_ends_well_while_samples_are_loaded() -> None:
    program = """
import time
from osmn_tf.data.guided import GuidedBatches
from osmn_tf.data.pipeline import tf_dataset
from osmn_tf.data.sampling import Samples, SyntheticSource

class Slow(SyntheticSource):
    def clip(self, item, rng):
        time.sleep(0.2)
        return super().clip(item, rng)

samples = Samples([Slow(None, (32, 48), samples=50)])
batches = iter(tf_dataset(samples, 2, GuidedBatches(guide_size=16), workers=4, prepared=False))
next(batches)
raise SystemExit(3)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr


def test_exit_waits_for_loads_under_way() -> None:
    """A thread that returns to Python after the interpreter is gone aborts the process."""
    loading, order, inside = _Loading(), [], threading.Event()

    def load() -> None:
        with loading:
            inside.set()
            time.sleep(0.2)
            order.append("loaded")

    thread = threading.Thread(target=load)
    thread.start()
    inside.wait()
    loading.close(quiet=0.01)
    order.append("closed")
    thread.join()
    assert order == ["loaded", "closed"]
    with pytest.raises(StopIteration), loading:
        order.append("never")
    assert len(order) == 2


class TestMatching:
    def test_batches_have_the_annotated_frame_and_guides_with_the_previous_mask(self, davis_root: Path) -> None:
        source = VideoSource(open_davis(davis_root, 2017, "val"), SIZE, length=3)
        batches = replace(PLAIN, guide="gaussian+mask", matching=True, mask_errors=0.0)
        inputs, labels = BatchSequence(Samples([source], seed=1), 1, batches)[0]
        raw = Samples([source], seed=1).batch(0, [0])
        assert labels.shape == (1, 2, 24, 32, 1)
        np.testing.assert_array_equal(labels[..., 0], raw["masks"][:, 2:])
        np.testing.assert_array_equal(inputs["first_frame"], raw["guide_frame"])
        np.testing.assert_array_equal(inputs["first_mask"], raw["guide_mask"])
        assert inputs["spatial_guides"].shape == (1, 3, 24, 32, 2)
        # Of each frame: made of the mask of the frame before.
        np.testing.assert_array_equal(inputs["spatial_guides"][..., 1], raw["masks"][:, :-1] == 1)
        spoiled, _ = BatchSequence(Samples([source], seed=1), 1, replace(batches, mask_errors=1.0))[0]
        assert (spoiled["spatial_guides"] != inputs["spatial_guides"]).any()

    def test_prompts_are_one_picture_all_along_without_its_mask(self, davis_root: Path) -> None:
        source = VideoSource(open_davis(davis_root, 2017, "val"), SIZE, length=3)
        batches = replace(PLAIN, guide="gaussian+mask", matching=True, prompts=1.0)
        inputs, labels = BatchSequence(Samples([source], seed=1), 1, batches)[0]
        raw = Samples([source], seed=1).batch(0, [0])
        for t in range(3):
            np.testing.assert_array_equal(inputs["frames"][:, t], raw["frames"][:, 0])
            np.testing.assert_array_equal(inputs["spatial_guides"][:, t, ..., 1], inputs["first_mask"])
        np.testing.assert_array_equal(inputs["first_frame"], raw["frames"][:, 0])
        for t in range(2):
            np.testing.assert_array_equal(labels[:, t, ..., 0], raw["masks"][:, 1])
        truth = raw["masks"][:, 1] == 1
        assert (inputs["first_mask"] & truth).any()
        assert (inputs["first_mask"] != truth).any()


class TestProportions:
    @pytest.mark.parametrize("shape", [(90, 60), (60, 90), (40, 200), (64, 64)])
    def test_a_window_holds_the_object_and_keeps_the_proportions(self, shape: tuple[int, int]) -> None:
        height, width = shape
        frame = np.zeros((*shape, 3), np.uint8)
        frame[..., 0], frame[..., 1] = np.arange(height)[:, None], np.arange(width)
        mask = np.zeros(shape, np.uint8)
        mask[height // 3 : height // 2, width // 2 : width // 2 + 12] = 7
        sizes = set()
        for seed in range(30):
            part, labels = crop_to_aspect(frame, mask, 7, SIZE, rng(seed))
            assert part.shape[:2] == labels.shape
            assert labels.shape[1] / labels.shape[0] == pytest.approx(SIZE[1] / SIZE[0], rel=0.06)
            assert (labels == 7).sum() == (mask == 7).sum()
            # What is labelled is a part of the picture, at its place; what lies beyond is not labelled.
            rows, columns = np.nonzero(labels != 255)
            y, x = part[rows[0], columns[0], :2]
            inside = labels[labels != 255].reshape(rows[-1] - rows[0] + 1, -1)
            np.testing.assert_array_equal(inside, mask[y : y + inside.shape[0], x : x + inside.shape[1]])
            sizes.add(labels.shape)
        assert len(sizes) > 3

    def test_fits(self, stills_root: Path) -> None:
        source = ImageSource(open_stills(stills_root), SIZE, 2, fit="crop")
        assert source.sample(0, ONE, rng())["frames"].shape == (2, *SIZE, 3)
        with pytest.raises(InputError, match="fit: expected one of stretch, crop"):
            ImageSource(open_stills(stills_root), SIZE, fit="zoom")


def test_a_twin_is_the_same_object_once_more() -> None:
    """Unlabelled, and with the colours of the labelled one."""
    options = ClipOptions(max_objects=1, distractors=1.0, twins=1.0, occluders=0.0, noise=0.0, shadows=0.0)
    clips = SyntheticClips(None, (64, 96), 1, options=options)
    layers = [clips._cast(rng(seed), None, 128.0) for seed in range(10)]
    assert all(len(pair) == 2 for pair in layers)
    assert all(pair[0].sprite is pair[1].sprite and {pair[0].label, pair[1].label} == {0, 1} for pair in layers)
