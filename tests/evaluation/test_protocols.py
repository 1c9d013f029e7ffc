"""The protocols beside semi-supervised DAVIS: unsupervised, YouTube-VOS and plain folders."""

import json
import sys

import numpy as np
import pytest

from osmn_tf.errors import InputError
from osmn_tf.evaluation import benchmark, metrics
from osmn_tf.evaluation.benchmark import evaluate_results
from osmn_tf.evaluation.facts import has_stability, published_scores, sequence_attributes, youtube_vos_seen
from osmn_tf.evaluation.protocols import PROTOCOLS, find_sequences
from osmn_tf.evaluation.run_preset import frame_files

from .conftest import draw, moving_boxes, write_binary, write_labels


@pytest.fixture
def unsupervised(davis):
    (davis.root / "Annotations").rename(davis.root / "Annotations_unsupervised")
    return davis


def write_all(davis, folder, change):
    """`change(name, t, mask)` of every frame, the first and the last included."""
    for name, masks in davis.masks.items():
        for t, mask in enumerate(masks):
            write_labels(folder / name / f"{t:05d}.png", change(name, t, mask))
    return folder


def test_proposals_are_matched_whatever_their_labels(unsupervised, tmp_path):
    relabel = np.zeros(256, np.uint8)
    relabel[[1, 2]] = 7, 3

    def propose(name, t, mask):
        guess = relabel[np.roll(mask, 1, axis=1)]
        guess[:3, :3] = 1  # one proposal too many
        return guess

    folder = write_all(unsupervised, tmp_path / "mine", propose)
    method = evaluate_results(unsupervised.root, {"a": folder}, protocol="davis-2017-unsupervised").methods[0]
    assert [scores.name for scores in method.objects] == ["alpha_1", "alpha_2", "beta_1"]
    assert [scores.matched for scores in method.objects] == [7, 3, 7]
    assert len(method.objects[0].frames) == 12
    for scores in method.objects:
        for index, mask in enumerate(unsupervised.masks[scores.sequence]):
            guess = propose("", index, mask) == scores.matched
            assert scores.j[index] == metrics.jaccard(mask == scores.label, guess)
            assert scores.f[index] == metrics.boundary_f(mask == scores.label, guess)
            assert scores.missed[index] * np.count_nonzero((mask == scores.label) | guess) == pytest.approx(
                np.count_nonzero((mask == scores.label) & ~guess), abs=1e-9
            )


def test_matching_maximises_the_mean_over_time(unsupervised, tmp_path):
    # Proposal 1 covers object 1 in the first third only, proposal 2 from then on.
    def propose(name, t, mask):
        return np.where(mask == 1, 1 if t < 4 else 2, 0).astype(np.uint8)

    folder = write_all(unsupervised, tmp_path / "mine", propose)
    alpha = evaluate_results(unsupervised.root, {"a": folder}, protocol="davis-2017-unsupervised").methods[0].objects[0]
    assert alpha.matched == 2
    assert alpha.j.tolist() == [0.0] * 4 + [1.0] * 8


def test_objects_without_a_proposal_are_empty(unsupervised, tmp_path):
    folder = write_all(
        unsupervised, tmp_path / "mine", lambda name, t, mask: np.where(mask == 2, 5, 0).astype(np.uint8)
    )
    objects = evaluate_results(unsupervised.root, {"a": folder}, protocol="davis-2017-unsupervised").methods[0].objects
    assert [metrics.statistics(scores.j).mean for scores in objects] == [0.0, 1.0, 0.0]
    assert objects[1].matched == 5


def test_frames_with_different_numbers_of_proposals(unsupervised, tmp_path, monkeypatch):
    def propose(name, t, mask):
        guess = mask.copy()
        if t == 5:
            guess[:3, :3] = 9
        return guess

    folder = write_all(unsupervised, tmp_path / "mine", propose)
    monkeypatch.setattr(benchmark, "FRAMES_PER_CHUNK", 3)
    method = evaluate_results(unsupervised.root, {"a": folder}, protocol="davis-2017-unsupervised").methods[0]
    assert method.j_and_f == 1.0


def test_void_is_ignored_in_the_unsupervised_protocol(unsupervised, tmp_path):
    folder = write_all(unsupervised, tmp_path / "mine", lambda name, t, mask: mask)
    for t, mask in enumerate(unsupervised.masks["beta"]):
        truth, guess = mask.copy(), mask.copy()
        truth[30:44, 2:40], guess[30:44, 2:40] = 255, 2
        write_labels(unsupervised.root / "Annotations_unsupervised/480p/beta" / f"{t:05d}.png", truth)
        write_labels(folder / "beta" / f"{t:05d}.png", guess)
    objects = evaluate_results(unsupervised.root, {"a": folder}, protocol="davis-2017-unsupervised").methods[0].objects
    assert metrics.statistics(objects[2].j).mean == 1.0
    assert metrics.statistics(objects[2].f).mean == 1.0


def test_without_scipy_nothing_is_scored(unsupervised, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(InputError, match=r"needs the package 'scipy', .* pip install 'osmn-tf\[evaluation\]'"):
        evaluate_results(unsupervised.root, {"a": tmp_path}, protocol="davis-2017-unsupervised")


def test_at_most_twenty_proposals(unsupervised, tmp_path):
    folder = write_all(unsupervised, tmp_path / "mine", lambda name, t, mask: mask * 11)
    with pytest.raises(InputError, match="at most 20 proposals, received the label 22"):
        evaluate_results(unsupervised.root, {"a": folder}, protocol="davis-2017-unsupervised")


@pytest.fixture
def youtube(tmp_path):
    """One video: a dog (label 1, from the start), a lamp (3, from frame 10) and a cat (4, in the last frame only)."""
    root = tmp_path / "youtube" / "valid"
    frames = [f"{5 * t:05d}" for t in range(6)]
    for t, frame in enumerate(frames):
        mask = draw(
            [(4, 4 + 2 * t, 12, 12), None, (30, 40, 10, 10) if t >= 2 else None, (2, 70, 5, 5) if t == 5 else None]
        )
        write_labels(root / "Annotations" / "video" / f"{frame}.png", mask)
    objects = {
        "1": {"category": "dog", "frames": frames},
        "3": {"category": "lamp", "frames": frames[2:]},
        "4": {"category": "cat", "frames": frames[5:]},
    }
    (root / "meta.json").write_text(json.dumps({"videos": {"video": {"objects": objects}}}))
    return root


def test_youtube_vos_objects_have_their_own_first_frames(youtube, tmp_path):
    from osmn_tf.masks.files import read_label_png

    for path in (youtube / "Annotations/video").iterdir():
        mask = read_label_png(path)
        mask[32:, 40:45] = 0  # half of the lamp, less two rows, is missed
        write_labels(tmp_path / "mine/video" / path.name, mask)
    evaluation = evaluate_results(youtube, {"a": tmp_path / "mine"}, protocol="youtube-vos", split="valid")
    dog, lamp = evaluation.methods[0].objects
    assert (dog.name, dog.category, dog.frames) == ("video_1", "dog", ("00005", "00010", "00015", "00020", "00025"))
    assert (lamp.name, lamp.category, lamp.frames) == ("video_2", "lamp", ("00015", "00020", "00025"))
    assert dog.j.tolist() == [1.0] * 5
    assert lamp.j.tolist() == [0.6] * 3
    row = benchmark.global_row(evaluation, evaluation.methods[0])
    lamp_f = metrics.statistics(lamp.f).mean
    assert row == pytest.approx(
        {
            "Overall": (1 + 0.6 + 1 + lamp_f) / 4,
            "J-Seen": 1.0,
            "J-Unseen": 0.6,
            "F-Seen": 1.0,
            "F-Unseen": lamp_f,
        },
        abs=1e-12,
    )
    benchmark.write_tables(evaluation, tmp_path / "out")
    header = (tmp_path / "out/a/global_results-valid.csv").read_text().splitlines()[0]
    assert header == "Overall,J-Seen,J-Unseen,F-Seen,F-Unseen"
    # The folder of the splits does as well as the split's own.
    again = evaluate_results(youtube.parent, {"a": tmp_path / "mine"}, protocol="youtube-vos", split="valid")
    assert again.methods[0].j == evaluation.methods[0].j


def test_youtube_vos_labels_are_those_of_the_list(youtube, tmp_path):
    for path in (youtube / "Annotations/video").iterdir():
        write_labels(tmp_path / "mine/video" / path.name, draw([(4, 4, 12, 12), (20, 4, 4, 4)]))
    with pytest.raises(InputError, match=r"expected the labels 1, 3, 4 of video, received 2"):
        evaluate_results(youtube, {"a": tmp_path / "mine"}, protocol="youtube-vos", split="valid")


@pytest.mark.parametrize("content", ["{", "{}", '{"videos": {"v": {"objects": {"1": {}}}}}', '{"videos": {}}'])
def test_damaged_lists_of_youtube_vos(youtube, tmp_path, content):
    (youtube / "meta.json").write_text(content)
    with pytest.raises(InputError, match=r"meta\.json: expected"):
        evaluate_results(youtube, {"a": tmp_path}, protocol="youtube-vos")


@pytest.mark.parametrize("binary", [True, False])
def test_plain_folders_score_every_frame(tmp_path, binary):
    masks = moving_boxes(5, objects=1)
    write = write_binary if binary else write_labels
    for t, mask in enumerate(masks):
        write(tmp_path / "truth" / "clip" / f"{t}.png", mask)
        write(tmp_path / "mine" / "clip" / f"{t}.png", np.roll(mask, 2, axis=1))
    clip = evaluate_results(tmp_path / "truth", {"a": tmp_path / "mine"}, protocol="folders").methods[0].objects[0]
    assert clip.name == "clip_1"
    assert clip.j.tolist() == [metrics.jaccard(mask, np.roll(mask, 2, axis=1)) for mask in masks]


def test_plain_folders_without_what_a_method_is_given(tmp_path):
    """Every object counts after its own first annotated frame; the frames lie where DAVIS has them."""
    truth, mine = tmp_path / "Annotations/480p", tmp_path / "mine"
    (tmp_path / "JPEGImages/480p/clip").mkdir(parents=True)
    for t, mask in enumerate(moving_boxes(6)):
        mask = np.where((mask == 2) & (t < 3), 0, mask).astype(np.uint8)
        write_labels(truth / "clip" / f"{t}.png", mask)
        write_labels(mine / "clip" / f"{t}.png", np.zeros_like(mask) if t in (0, 3) else mask)
    objects = evaluate_results(truth, {"a": mine}, protocol="folders-skip-first").methods[0].objects
    assert [scores.j.tolist() for scores in objects] == [[1.0, 1.0, 0.0, 1.0, 1.0], [1.0, 1.0]]
    sequence = find_sequences(truth, PROTOCOLS["folders-skip-first"])[0]
    assert sequence.images == (tmp_path / "JPEGImages/480p/clip").resolve()
    assert sequence.first_frames == ("0", "3")


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    for t, mask in enumerate(moving_boxes(12, objects=1)):
        for folder in ("JPEGImages/clip", "Annotations/clip"):
            write_labels(tmp_path / folder / f"{t}.png", np.where(t < 5, 0, mask).astype(np.uint8))
    sequence = find_sequences(tmp_path / "Annotations", PROTOCOLS["folders-skip-first"])[0]
    assert (sequence.first_frames, sequence.frames) == (("5",), ("6", "7", "8", "9", "10", "11"))
    assert [path.stem for path in frame_files(sequence)] == ["5", *sequence.frames]


def test_a_folder_of_masks_is_one_sequence_with_all_labels_that_occur(tmp_path):
    for t, mask in enumerate(moving_boxes(5)):
        truth = np.where((mask == 2) & (t < 2), 0, mask).astype(np.uint8)
        truth[44:, :4] = 255
        guess = truth.copy()
        guess[44:, :4] = 1
        write_labels(tmp_path / "clip" / f"{t}.png", truth)
        write_labels(tmp_path / "mine/clip" / f"{t}.png", guess)
    objects = evaluate_results(tmp_path / "clip", {"a": tmp_path / "mine"}, protocol="folders").methods[0].objects
    assert [(scores.name, scores.j.tolist()) for scores in objects] == [("clip_1", [1.0] * 5), ("clip_2", [1.0] * 5)]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found none"):
        evaluate_results(tmp_path / "empty", {"a": tmp_path / "mine"}, protocol="folders")


def test_stability_is_measured_in_davis_2016_only(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", lambda name, t, mask: mask)
    for protocol, pairs in (("davis-2016", 9), ("davis-2017", 0)):
        method = evaluate_results(davis.root, {"a": folder}, protocol=protocol).methods[0]
        assert len(method.objects[0].stability) == pairs
        assert np.isnan(method.t) == (pairs == 0)
    merged = np.stack([mask != 0 for mask in davis.masks["alpha"][1:-1]])
    method = evaluate_results(davis.root, {"a": folder}, protocol="davis-2016").methods[0]
    np.testing.assert_array_equal(method.objects[0].stability, metrics.temporal_stability(merged))


def test_stability_across_stretches(davis, tmp_path, monkeypatch):
    folder = davis.write_results(tmp_path / "mine", lambda name, t, mask: np.roll(mask, t * t % 7, axis=0))
    whole = evaluate_results(davis.root, {"a": folder}, protocol="davis-2016").methods[0]
    monkeypatch.setattr(benchmark, "FRAMES_PER_CHUNK", 3)
    parts = evaluate_results(davis.root, {"a": folder}, protocol="davis-2016").methods[0]
    for one, other in zip(whole.objects, parts.objects):
        np.testing.assert_array_equal(one.stability, other.stability)
        np.testing.assert_array_equal(one.j, other.j)


def test_facts():
    assert sequence_attributes("bmx-trees") >= {"LR", "OCC", "BC"}
    assert sequence_attributes("blackswan") == frozenset()
    assert sequence_attributes("nothing") is None
    assert not has_stability("bmx-trees")
    assert has_stability("camel")
    assert has_stability("my-own-clip")
    assert len(youtube_vos_seen()) == 65
    assert {"person", "sedan"} <= youtube_vos_seen()
    assert [entry["J-Mean"] for entry in published_scores("davis-2016")] == [74.0, 79.4, 85.4, 79.8, 85.6]
    assert published_scores("davis-2016")[-1]["J&F-Mean"] == 86.5  # its own paper; ReConvNet's prints 86.6
    # Published scores of zero-shot networks were matched to objects by the first frame, which no protocol here does.
    assert published_scores("davis-2017-unsupervised") == published_scores("folders") == []
