import json
from pathlib import Path

import numpy as np
import pytest

import osmn_tf
from osmn_tf.errors import InputError
from osmn_tf.evaluation import run_preset
from osmn_tf.evaluation.benchmark import evaluate_results
from osmn_tf.evaluation.protocols import PROTOCOLS, find_sequences
from osmn_tf.evaluation.run_preset import segment_sequences
from osmn_tf.inference.predictor import PredictorOptions
from osmn_tf.masks.files import read_label_png
from osmn_tf.runtime.predictor import ExportedPredictor

from .conftest import write_labels


class Repeater:
    """Instead of a network: gives every frame the mask that was given first, and counts."""

    def __init__(self):
        self.videos = []

    def __call__(self, frames, given):
        self.videos.append(given)
        mask = np.zeros_like(next(iter(given.values())))
        for index, frame in enumerate(frames):
            mask = np.where(given[index] > 0, given[index], mask) if index in given else mask
            assert frame.shape == (*mask.shape, 3)
            yield frame, mask


def segment(davis, track, out, settings=None, protocol="davis-2017", progress=None):
    sequences = find_sequences(davis.root, PROTOCOLS[protocol])
    return segment_sequences(track, settings or {"weights": "a"}, sequences, PROTOCOLS[protocol], out, progress)


def test_every_frame_gets_a_mask_that_can_be_scored(davis, tmp_path):
    reports = []
    track = Repeater()
    out = segment(davis, track, tmp_path / "masks", progress=lambda *args: reports.append(args))
    assert reports[0] == ("alpha", 1, 21)
    assert reports[-1] == ("beta", 21, 21)
    for name, masks in davis.masks.items():
        assert len(list((out / name).glob("*.png"))) == len(masks)
        np.testing.assert_array_equal(read_label_png(out / name / "00003.png"), masks[0])
    np.testing.assert_array_equal(track.videos[0][0], davis.masks["alpha"][0])
    assert evaluate_results(davis.root, {"repeat": out}, protocol="davis-2017").methods[0].j.mean < 1


def test_davis_2016_gives_one_merged_object(davis, tmp_path):
    track = Repeater()
    segment(davis, track, tmp_path / "masks", protocol="davis-2016")
    np.testing.assert_array_equal(track.videos[0][0], davis.masks["alpha"][0] != 0)


@pytest.mark.parametrize("year", [2016, 2017])
def test_unsupervised_protocols_give_nothing(davis, tmp_path, year):
    """What a network finds is scored: in 2016 all of it together, in 2017 whatever its numbers are."""
    (davis.root / "Annotations_unsupervised").symlink_to(davis.root / "Annotations")
    videos = []

    def find(frames, given):
        videos.append(given)
        masks = list(davis.masks.values())[len(videos) - 1]
        for frame, mask in zip(frames, masks, strict=True):
            yield frame, np.array([0, 3, 1, 2], np.uint8)[mask]

    out = segment(davis, find, tmp_path / "masks", protocol=f"davis-{year}-unsupervised")
    assert videos == [None, None]
    evaluation = evaluate_results(davis.root, {"found": out}, protocol=f"davis-{year}-unsupervised")
    assert evaluation.methods[0].j.mean == 1


def test_objects_of_a_plain_folder_may_come_later(davis, tmp_path):
    annotations = davis.root / "Annotations/480p"
    write_labels(annotations / "beta/00000.png", np.zeros_like(davis.masks["beta"][0]))
    sequences = find_sequences(annotations, PROTOCOLS["folders"], sequences=["beta"])
    track = Repeater()
    out = segment_sequences(track, {}, sequences, PROTOCOLS["folders"], tmp_path / "masks")
    assert list(track.videos[0]) == [1]
    assert not read_label_png(out / "beta/00000.png").any()
    evaluation = evaluate_results(annotations, {"repeat": out}, protocol="folders", sequences=["beta"])
    assert evaluation.methods[0].objects[0].j[:2].tolist() == [1, 1]


def test_finished_sequences_are_kept(davis, tmp_path):
    first, second = Repeater(), Repeater()
    out = segment(davis, first, tmp_path / "masks")
    written = (out / "alpha/00003.png").stat().st_mtime_ns
    reports = []
    segment(davis, second, tmp_path / "masks", progress=lambda *args: reports.append(args))
    assert (len(first.videos), len(second.videos)) == (2, 0)
    assert (out / "alpha/00003.png").stat().st_mtime_ns == written
    assert reports == [("alpha", 12, 21), ("beta", 21, 21)]


def test_results_of_other_weights_settings_or_frames_are_replaced(davis, tmp_path):
    segment(davis, Repeater(), tmp_path / "masks")
    for change in ("settings", "frame", "mask", "missing result", "damaged record"):
        settings = {"weights": "b"} if change != "settings" else {"weights": "b", "size": [1, 2]}
        segment(davis, Repeater(), tmp_path / "masks", {"weights": "b"})
        if change == "frame":
            path = davis.root / "JPEGImages/480p/beta/00002.jpg"
            path.write_bytes((davis.root / "JPEGImages/480p/alpha/00007.jpg").read_bytes())
        elif change == "mask":
            (davis.root / "Annotations/480p/beta/00000.png").write_bytes(
                (davis.root / "Annotations/480p/alpha/00000.png").read_bytes()
            )
        elif change == "missing result":
            (tmp_path / "masks/beta/00004.png").unlink()
        elif change == "damaged record":
            (tmp_path / "masks/beta.json").write_text("{")
        track = Repeater()
        segment(davis, track, tmp_path / "masks", settings)
        assert len(track.videos) == (2 if change == "settings" else 1), change


def test_an_interrupted_sequence_is_done_again(davis, tmp_path):
    class Interrupted(Repeater):
        def __call__(self, frames, given):
            for index, result in enumerate(super().__call__(frames, given)):
                if len(self.videos) == 2 and index == 4:
                    raise KeyboardInterrupt
                yield result

    with pytest.raises(KeyboardInterrupt):
        segment(davis, Interrupted(), tmp_path / "masks")
    assert json.loads((tmp_path / "masks/alpha.json").read_text())["settings"] == {"weights": "a"}
    assert not (tmp_path / "masks/beta.json").exists()
    track = Repeater()
    segment(davis, track, tmp_path / "masks")
    assert len(track.videos) == 1
    assert len(list((tmp_path / "masks/beta").glob("*.png"))) == 9


def test_half_a_frame_is_refused(davis, tmp_path):
    path = davis.root / "JPEGImages/480p/beta/00004.jpg"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"beta/00004\.jpg: the JPEG file is truncated"):
        segment(davis, Repeater(), tmp_path / "masks")


def test_the_code_that_results_depend_on_is_found():
    """What a predictor runs, wherever it is; not what only counts or trains."""
    found = set(run_preset._code_files(ExportedPredictor))
    names = {path.relative_to(Path(osmn_tf.__file__).parent).as_posix() for path in found}
    assert {"runtime/predictor.py", "runtime/guides.py", "inference/merging.py", "models/osmn.py"} <= names
    assert {"backbones/vgg16.py", "layers/modulation.py"} <= names
    assert not any(name.startswith(("evaluation/", "cli/", "training/", "jobs/")) for name in names)


def test_missing_frames_are_named(davis, tmp_path):
    (davis.root / "JPEGImages/480p/beta/00004.jpg").unlink()
    with pytest.raises(InputError, match=r"beta: 1 frames .* missing, first 00004"):
        segment(davis, Repeater(), tmp_path / "masks")


def test_files_of_the_user_are_not_removed(davis, tmp_path):
    mine = tmp_path / "masks" / "alpha" / "00000.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"00000\.jpg is in the way: osmn evaluate has not written it"):
        segment(davis, Repeater(), tmp_path / "masks")
    assert [path.name for path in (tmp_path / "masks").rglob("*")] == ["alpha", "00000.jpg"]
    assert mine.read_bytes() == b"mine"


@pytest.mark.usefixtures("bfloat16")
def test_precision_and_merge_reach_the_network_and_its_record(tiny_reconvnet, tmp_path):
    tiny_reconvnet.save_to_preset(tmp_path / "tiny")
    options = PredictorOptions(merge="soft", precision="mixed_bfloat16")
    track, settings = run_preset.preset_track(str(tmp_path / "tiny"), options)
    assert (settings["merge"], settings["precision"]) == ("soft", "mixed_bfloat16")
    segmenter = track.__self__
    assert segmenter.predictor.step.merge == "soft"
    assert segmenter.predictor.network.compute_dtype == "bfloat16"
    # What was recorded before there was a choice is what it is without one.
    assert not {"merge", "precision"} & set(run_preset.preset_track(str(tmp_path / "tiny"))[1])
