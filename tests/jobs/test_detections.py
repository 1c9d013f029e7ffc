"""`osmn segment --mask PNG --detections JSON`: a detector's file beside a mask, from end to end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle_tools

from osmn_tf.cli.main import main
from osmn_tf.errors import InputError
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.inference.semantic import SemanticPredictor
from osmn_tf.jobs import segment as job
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.jobs.outputs import Look
from osmn_tf.jobs.segment import segment
from osmn_tf.masks.files import read_label_png, write_mask
from tests.inference.test_semantic import LEFTS, MASKS, SIZE, Blurred, boxes, scene


def encoded(mask: np.ndarray) -> dict[str, Any]:
    runs = rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}


def document() -> dict[str, Any]:
    images = [
        {"id": index, "file_name": f"clip/{index:05d}.png", "height": SIZE[0], "width": SIZE[1]}
        for index in range(len(LEFTS))
    ]
    found = [
        {"image_id": index, "category_id": 3, "score": 0.9, "segmentation": encoded(mask)}
        for index, left in enumerate(LEFTS)
        for mask in boxes(left)
    ]
    return {"images": images, "categories": [{"id": 3, "name": "box"}], "annotations": found}


@pytest.fixture
def options(tmp_path: Path) -> SegmentOptions:
    (tmp_path / "clip").mkdir()
    for index, left in enumerate(LEFTS):
        cv2.imwrite(str(tmp_path / f"clip/{index:05d}.png"), scene(left)[..., ::-1])
    write_mask(tmp_path / "mask.png", MASKS[0].astype(np.uint8))
    (tmp_path / "found.json").write_text(json.dumps(document()))
    return SegmentOptions(
        tmp_path / "clip", {0: tmp_path / "mask.png"}, detections=tmp_path / "found.json", out=tmp_path / "out"
    )


def opened(options: SegmentOptions) -> VideoSegmenter:
    return VideoSegmenter(Blurred())


def test_the_decoy_is_left_out(options: SegmentOptions, tmp_path: Path) -> None:
    def masks() -> list[np.ndarray]:
        return [read_label_png(path) for path in sorted((tmp_path / "out/clip").glob("*.png"))]

    segment(dataclasses.replace(options, detections=None), open_segmenter=opened)
    alone = masks()
    outcome = segment(dataclasses.replace(options, force=True), open_segmenter=opened)
    assert outcome.frames == len(LEFTS)
    for left, first, mask in zip(LEFTS[1:], alone[1:], masks()[1:]):
        decoy = boxes(left)[1]
        assert first[decoy].all()
        assert not mask[decoy][5:-5].any()


def test_another_score_that_counts_is_another_command(options: SegmentOptions) -> None:
    segment(options, open_segmenter=opened)
    assert segment(options, open_segmenter=opened).already_done
    with pytest.raises(InputError, match="exists already; use --force"):
        segment(dataclasses.replace(options, min_score=0.95), open_segmenter=opened)


def test_selected_frames_keep_their_instances(options: SegmentOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second frame from the second on: their numbers in the file are those in the folder."""
    asked: list[list[np.ndarray]] = []
    advance = SemanticPredictor.advance

    def noted(self: SemanticPredictor, frame: np.ndarray) -> Any:
        result = advance(self, frame)
        asked.append([one.mask for one in self.found])
        return result

    monkeypatch.setattr(SemanticPredictor, "advance", noted)
    chosen = dataclasses.replace(options, start=1, every=2, masks={1: MASKS[1].astype(np.uint8)})
    segment(chosen, open_segmenter=opened)
    (found,) = asked
    assert any((mask == boxes(LEFTS[3])[0]).all() for mask in found)


@pytest.mark.parametrize("snap", [False, True])
def test_what_was_selected_is_in_the_overlay(
    snap: bool, options: SegmentOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """White outlines around the object, and frames of the other results as they are."""
    shown: list[np.ndarray] = []
    monkeypatch.setattr(
        SemanticPredictor, "explain", lambda self, frame: shown.append(frame) or np.full_like(frame, 255)
    )
    if snap:
        pytest.importorskip("skimage", reason="scikit-image is not installed: pip install 'osmn-tf[snapping]'")
    plain = dataclasses.replace(options, outputs={"overlay": None}, look=Look(opacity=0.0), snap=snap)
    segment(dataclasses.replace(plain, explain=True), open_segmenter=opened)
    assert len(shown) == len(LEFTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["images"].pop(), "is of another video"),
        (lambda content: [image.update(height=10) for image in content["images"]], "is of another size"),
        (lambda content: content["annotations"][2].pop("score"), "instance 2: expected 'score'"),
        (lambda content: content["annotations"][1].update(category_id=9), "category_id 9 is not in the list"),
        (lambda content: content["annotations"].clear(), "has no instances"),
        (None, "is no complete JSON file"),
    ],
)
def test_bad_files_in_one_line(options: SegmentOptions, tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "found.json"
    content = document()
    if change is None:
        path.write_text(path.read_text()[:-30])
    else:
        change(content)
        path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as error:
        segment(options, open_segmenter=opened)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_list_of_images_may_be_in_another_file(options: SegmentOptions, tmp_path: Path) -> None:
    content = document()
    (tmp_path / "found.json").write_text(json.dumps(content["annotations"]))
    with pytest.raises(InputError, match="has no list 'images'"):
        segment(options, open_segmenter=opened)
    (tmp_path / "images.json").write_text(json.dumps({"images": content["images"]}))
    outcome = segment(dataclasses.replace(options, detection_images=tmp_path / "images.json"), open_segmenter=opened)
    assert outcome.frames == len(LEFTS)


def test_arguments_arrive(options: SegmentOptions, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    asked: list[SegmentOptions] = []
    monkeypatch.setattr(
        job, "segment", lambda options, **more: asked.append(options) or job.Outcome("clip", already_done=True)
    )
    words = [str(options.video), "--mask", "m.png", "--detections", "d.json", "--detection-images", "i.json"]
    assert main(["segment", *words, "--explain", "--time", "2.5"]) == 0
    (found,) = asked
    assert (found.detections, found.detection_images, found.explain, found.time) == ("d.json", "i.json", True, 2.5)
    monkeypatch.undo()
    assert main(["segment", str(options.video), "--mask", str(options.masks[0]), "--explain"]) == 2
    assert "--explain and --detection-images: expected --detections with them" in capsys.readouterr().err
