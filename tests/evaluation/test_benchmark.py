import csv
import json

import cv2
import numpy as np
import pytest

from osmn_tf.errors import InputError
from osmn_tf.evaluation import benchmark, metrics
from osmn_tf.evaluation.benchmark import evaluate_results

from .conftest import write_binary, write_labels


def shifted(name, t, mask):
    return np.roll(mask, t % 3, axis=1)


def test_davis_2017_scores_every_object_without_the_first_and_the_last_frame(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", shifted)
    method = evaluate_results(davis.root, {"mine": folder}, protocol="davis-2017").methods[0]
    assert [scores.name for scores in method.objects] == ["alpha_1", "alpha_2", "beta_1"]
    assert method.objects[0].frames == tuple(f"{t:05d}" for t in range(1, 11))
    for scores, label in zip(method.objects, (1, 2, 1)):
        masks = davis.masks[scores.sequence]
        for index, frame in enumerate(scores.frames):
            truth, guess = masks[int(frame)] == label, shifted("", int(frame), masks[int(frame)]) == label
            assert scores.j[index] == metrics.jaccard(truth, guess)
            assert scores.f[index] == metrics.boundary_f(truth, guess)
            errors = scores.false_close[index] + scores.false_far[index] + scores.missed[index]
            assert errors == pytest.approx(1 - scores.j[index], abs=1e-12)


def test_overall_numbers_are_means_over_objects(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", shifted)
    method = evaluate_results(davis.root, {"mine": folder}, protocol="davis-2017").methods[0]
    per_object = [metrics.statistics(scores.j) for scores in method.objects]
    assert method.j.mean == pytest.approx(sum(s.mean for s in per_object) / 3, abs=1e-15)
    assert method.j.recall == pytest.approx(sum(s.recall for s in per_object) / 3, abs=1e-15)
    assert method.j.decay == pytest.approx(sum(s.decay for s in per_object) / 3, abs=1e-15)
    assert method.j_and_f == pytest.approx((method.j.mean + method.f.mean) / 2, abs=1e-15)


def test_davis_2016_merges_labels(davis, tmp_path):
    binary = davis.write_results(tmp_path / "binary", shifted, binary=True)
    labels = davis.write_results(tmp_path / "labels", shifted)
    evaluation = evaluate_results(davis.root, {"a": binary, "b": labels}, protocol="davis-2016")
    for method in evaluation.methods:
        assert [scores.name for scores in method.objects] == ["alpha_1", "beta_1"]
        assert method.objects[0].j[0] == metrics.jaccard(
            davis.masks["alpha"][1], shifted("", 1, davis.masks["alpha"][1])
        )
    assert evaluation.methods[0].j == evaluation.methods[1].j


def test_black_and_white_annotations_of_davis_2016(davis, tmp_path):
    labels = davis.write_results(tmp_path / "labels", shifted)
    before = evaluate_results(davis.root, {"a": labels}, protocol="davis-2016").methods[0]
    for name, masks in davis.masks.items():
        for t, mask in enumerate(masks):
            write_binary(davis.root / "Annotations/480p" / name / f"{t:05d}.png", mask)
    after = evaluate_results(davis.root, {"a": labels}, protocol="davis-2016").methods[0]
    assert after.j == before.j
    with pytest.raises(InputError, match="black and white, as in DAVIS 2016: score it with --year 2016"):
        evaluate_results(davis.root, {"a": labels}, protocol="davis-2017")


@pytest.mark.parametrize("protocol", ["davis-2016", "folders"])
def test_black_and_white_annotations_of_one_bit(davis, tmp_path, protocol):
    annotations = davis.root / "Annotations/480p"
    root = davis.root if protocol == "davis-2016" else annotations
    scores = []
    for options in ([], [cv2.IMWRITE_PNG_BILEVEL, 1]):
        for name, masks in davis.masks.items():
            for t, mask in enumerate(masks):
                white = 255 * (mask != 0).astype(np.uint8)
                assert cv2.imwrite(str(annotations / name / f"{t:05d}.png"), white, options)
                write_binary(tmp_path / "binary" / name / f"{t:05d}.png", shifted(name, t, mask))
        scores.append(evaluate_results(root, {"a": tmp_path / "binary"}, protocol=protocol).methods[0])
    assert scores[1].j == scores[0].j
    assert scores[1].f == scores[0].f


def test_black_and_white_objects_of_davis_2016_may_come_later(davis, tmp_path):
    for name, masks in davis.masks.items():
        for t, mask in enumerate(masks):
            mask = np.where(t < 2, 0, mask)
            write_binary(davis.root / "Annotations/480p" / name / f"{t:05d}.png", mask)
            write_binary(tmp_path / "mine" / name / f"{t:05d}.png", mask)
    method = evaluate_results(davis.root, {"a": tmp_path / "mine"}, protocol="davis-2016-unsupervised").methods[0]
    assert method.j.mean == method.f.mean == 1


def test_void_is_background_in_the_semi_supervised_protocol(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", lambda name, t, mask: mask)
    for t, mask in enumerate(davis.masks["beta"]):
        mask[40:44, 2:6] = 255
        write_labels(davis.root / "Annotations/480p/beta" / f"{t:05d}.png", mask)
        mask[40:44, 2:6] = 1
        write_labels(folder / "beta" / f"{t:05d}.png", mask)
    beta = evaluate_results(davis.root, {"a": folder}, protocol="davis-2017").methods[0].objects[-1]
    np.testing.assert_allclose(beta.j, 14 * 16 / (14 * 16 + 16), atol=1e-12)


def test_first_and_last_result_files_are_never_opened(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", lambda name, t, mask: mask)
    (folder / "alpha" / "00000.png").write_bytes(b"no image")
    (folder / "alpha" / "00011.png").write_bytes(b"")
    assert evaluate_results(davis.root, {"a": folder}, protocol="davis-2017").methods[0].j_and_f == 1.0


def test_missing_objects_are_empty(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", lambda name, t, mask: np.where(mask == 2, 0, mask).astype(np.uint8))
    method = evaluate_results(davis.root, {"a": folder}, protocol="davis-2017").methods[0]
    assert [metrics.statistics(scores.j).mean for scores in method.objects] == [1.0, 0.0, 1.0]
    assert [metrics.statistics(scores.f).mean for scores in method.objects] == [1.0, 0.0, 1.0]


def test_objects_are_those_of_the_first_annotated_frame(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", lambda name, t, mask: mask)
    first = davis.masks["alpha"][0].copy()
    first[first == 2] = 0
    write_labels(davis.root / "Annotations/480p/alpha/00000.png", first)
    with pytest.raises(InputError, match=r"alpha/00001\.png: expected the labels 1 of alpha, received 2"):
        evaluate_results(davis.root, {"a": folder}, protocol="davis-2017")


def test_black_and_white_results_are_refused_where_there_are_objects(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", shifted, binary=True)
    with pytest.raises(InputError, match=r"received 255; a black and white mask .* --year 2016"):
        evaluate_results(davis.root, {"a": folder}, protocol="davis-2017")


def test_sizes_must_match(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", shifted)
    write_labels(folder / "beta" / "00003.png", np.zeros((24, 40), np.uint8))
    message = r"beta/00003\.png: .*expected .*80x48, received 40x24 \(width x height\); nothing is resized"
    with pytest.raises(
        InputError, match=message.replace(".*expected .*", "expected a mask of the annotation's size, ")
    ):
        evaluate_results(davis.root, {"a": folder}, protocol="davis-2016")


def test_missing_and_damaged_results_are_named(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", shifted)
    whole = (folder / "beta" / "00004.png").read_bytes()
    (folder / "beta" / "00004.png").unlink()
    with pytest.raises(InputError, match=r"1 of 17 masks are missing, first .*beta/00004\.png"):
        evaluate_results(davis.root, {"a": folder}, protocol="davis-2016")
    (folder / "beta" / "00004.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"beta/00004\.png.*truncated"):
        evaluate_results(davis.root, {"a": folder}, protocol="davis-2016")
    for path in (folder / "beta").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="found none for 1: beta"):
        evaluate_results(davis.root, {"a": folder}, protocol="davis-2016")
    with pytest.raises(InputError, match="there is no folder"):
        evaluate_results(davis.root, {"a": tmp_path / "nowhere"}, protocol="davis-2016")


def test_shades_of_grey_are_refused(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", shifted)
    write_labels(folder / "beta" / "00004.png", np.arange(48 * 80, dtype=np.uint8).reshape(48, 80))
    with pytest.raises(InputError, match=r"beta/00004\.png: .*threshold probabilities first"):
        evaluate_results(davis.root, {"a": folder}, protocol="davis-2016")


def test_unknown_names_are_listed(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", shifted)
    with pytest.raises(InputError, match=r"DAVIS: no split 'test' in .*; found: val"):
        evaluate_results(davis.root, {"a": folder}, split="test")
    with pytest.raises(InputError, match="--sequences: gamma not among the sequences alpha, beta"):
        evaluate_results(davis.root, {"a": folder}, sequences=["gamma"])
    with pytest.raises(InputError, match=r"protocol: expected one of davis-2016"):
        evaluate_results(davis.root, {"a": folder}, protocol="davis")
    with pytest.raises(InputError, match="no such folder"):
        evaluate_results(tmp_path / "nowhere", {"a": folder})


def test_two_frames_leave_nothing_to_score(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", shifted)
    for t in range(2, 9):
        (davis.root / "Annotations/480p/beta" / f"{t:05d}.png").unlink()
    with pytest.raises(InputError, match=r"beta: 2 annotated frames .* leave nothing to score"):
        evaluate_results(davis.root, {"a": folder}, protocol="davis-2016")


def test_lists_of_davis_2016_name_every_frame(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", shifted)
    (davis.root / "ImageSets/2016/val.txt").unlink()
    lines = [f"/JPEGImages/480p/beta/{t:05d}.jpg /Annotations/480p/beta/{t:05d}.png" for t in range(9)]
    (davis.root / "ImageSets/480p").mkdir()
    (davis.root / "ImageSets/480p/val.txt").write_text("\n".join(lines) + "\n")
    method = evaluate_results(davis.root, {"a": folder}, protocol="davis-2016").methods[0]
    assert [scores.name for scores in method.objects] == ["beta_1"]


def test_processes_and_one_process_agree(davis, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "_WORTH_A_POOL", 1)
    monkeypatch.setattr(benchmark, "FRAMES_PER_CHUNK", 4)
    folder = davis.write_results(tmp_path / "mine", shifted)
    reports = []
    parallel = evaluate_results(davis.root, {"a": folder}, workers=2, progress=lambda *args: reports.append(args))
    serial = evaluate_results(davis.root, {"a": folder}, workers=1)
    assert reports[-1] == (17, 17)
    assert len(reports) == 5
    for one, other in zip(parallel.methods[0].objects, serial.methods[0].objects):
        np.testing.assert_array_equal(one.j, other.j)
        np.testing.assert_array_equal(one.f, other.f)


def test_errors_of_other_processes_arrive(davis, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "_WORTH_A_POOL", 1)
    folder = davis.write_results(tmp_path / "mine", shifted)
    (folder / "beta" / "00004.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"beta/00004\.png"):
        evaluate_results(davis.root, {"a": folder}, workers=2)


def test_official_tables(davis, tmp_path):
    folder = davis.write_results(tmp_path / "mine", shifted)
    evaluation = evaluate_results(davis.root, {"mine": folder}, protocol="davis-2017")
    benchmark.write_tables(evaluation, tmp_path / "out")
    lines = (tmp_path / "out/mine/global_results-val.csv").read_text().split("\n")
    assert lines[0] == "J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay"
    method = evaluation.methods[0]
    assert lines[1].split(",")[:2] == [f"{method.j_and_f:.3f}", f"{method.j.mean:.3f}"]
    assert lines[2:] == [""]
    with open(tmp_path / "out/mine/per-sequence_results-val.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["Sequence", "J-Mean", "F-Mean"]
    assert [row[0] for row in rows[1:]] == ["alpha_1", "alpha_2", "beta_1"]
    assert rows[3][1] == f"{metrics.statistics(method.objects[2].j).mean:.3f}"
    everything = json.loads((tmp_path / "out/mine/scores.json").read_text())
    assert everything["objects"]["beta_1"]["per_frame"]["J"] == method.objects[2].j.tolist()
    assert everything["objects"]["beta_1"]["frames"][0] == "00001"
    assert everything["global"]["J-Mean"] == method.j.mean


def cached_files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.npz")}


def test_cache_follows_the_content(davis, tmp_path, monkeypatch):
    folder, cache = davis.write_results(tmp_path / "mine", shifted), tmp_path / "cache"

    def score():
        return evaluate_results(davis.root, {"a": folder}, protocol="davis-2016", cache=cache).methods[0]

    first = score()
    files = cached_files(cache)
    assert len(files) == 2
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "frame_scores", lambda *args: pytest.fail("computed again"))
        again = score()
    np.testing.assert_array_equal(again.objects[0].j, first.objects[0].j)
    assert cached_files(cache) == files

    # A changed result, a changed annotation and another protocol are all computed anew.
    write_labels(folder / "beta" / "00004.png", np.zeros_like(davis.masks["beta"][4]))
    changed = score()
    assert changed.objects[1].j[3] == 0.0
    assert first.objects[1].j[3] > 0.5
    write_labels(davis.root / "Annotations/480p/beta/00004.png", np.zeros_like(davis.masks["beta"][4]))
    assert score().objects[1].j[3] == 1.0
    assert len(evaluate_results(davis.root, {"a": folder}, protocol="davis-2017", cache=cache).methods[0].objects) == 3


def test_damaged_cache_files_are_ignored(davis, tmp_path):
    folder, cache = davis.write_results(tmp_path / "mine", shifted), tmp_path / "cache"
    first = evaluate_results(davis.root, {"a": folder}, cache=cache).methods[0]
    for number, path in enumerate(cached_files(cache)):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content if number else content[:50])
    again = evaluate_results(davis.root, {"a": folder}, cache=cache).methods[0]
    for one, other in zip(first.objects, again.objects):
        np.testing.assert_array_equal(one.j, other.j)
