from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco

from osmn_tf import InputError
from osmn_tf.masks.coco import TrackWriter


def clip() -> list[np.ndarray]:
    """Object 1 moves, object 9 leaves and returns, void pixels are around; 30 x 40."""
    masks = []
    for index in range(5):
        mask = np.zeros((30, 40), np.uint8)
        mask[5:15, 4 + index : 14 + index] = 1
        if index not in (2, 3):
            mask[20:26, 20:31] = 9
        mask[29] = 255
        masks.append(mask)
    return masks


def test_round_trip(tmp_path: Path) -> None:
    writer = TrackWriter("dog", (30, 40))
    for index, mask in enumerate(clip()):
        writer.add(index, mask, f"frame{index}")
    writer.save(tmp_path / "tracks.json")
    content = json.loads((tmp_path / "tracks.json").read_text())
    assert content["videos"] == [
        {
            "id": 1,
            "name": "dog",
            "width": 40,
            "height": 30,
            "length": 5,
            "file_names": ["frame0", "frame1", "frame2", "frame3", "frame4"],
        }
    ]
    first, second = content["annotations"]
    assert (first["id"], first["label"], first["score"], first["video_id"], first["category_id"]) == (1, 1, 1.0, 1, 1)
    assert (second["id"], second["label"], second["score"]) == (2, 9, 1.0)
    assert content["categories"][0]["id"] == 1
    for annotation in (first, second):
        assert (annotation["height"], annotation["width"], annotation["length"]) == (30, 40, 5)
        for index, mask in enumerate(clip()):
            expected = mask == annotation["label"]
            encoded = annotation["segmentations"][index]
            if not expected.any():
                assert encoded is annotation["bboxes"][index] is annotation["areas"][index] is None
                continue
            assert encoded["size"] == [30, 40]
            assert np.array_equal(coco.decode(encoded), expected)
            assert annotation["areas"][index] == expected.sum()
    assert first["bboxes"][3] == [7, 5, 10, 10]
    assert second["bboxes"] == [[20, 20, 11, 6], [20, 20, 11, 6], None, None, [20, 20, 11, 6]]
    assert second["areas"] == [66, 66, None, None, 66]


def test_encoding_of_a_known_mask() -> None:
    """COCO's uncompressed counts run down the columns and begin with background: here 3, 2, 1."""
    writer = TrackWriter("x", (3, 2))
    writer.add(0, np.array([[0, 1], [0, 1], [0, 0]], np.uint8))
    encoded = writer.content()["annotations"][0]["segmentations"][0]
    assert encoded == {"size": [3, 2], "counts": "321"}


def test_frames_in_any_order_and_again() -> None:
    masks = clip()
    forward, backward = TrackWriter("x", (30, 40)), TrackWriter("x", (30, 40))
    for index, mask in enumerate(masks):
        forward.add(index, mask)
    for index in reversed(range(5)):
        backward.add(index, masks[0])
        backward.add(index, masks[index])
    assert forward.content() == backward.content()
    forward.add(3, masks[0] * 0)
    assert forward.content()["annotations"][0]["segmentations"][3] is None
    assert forward.content()["videos"][0]["file_names"][3] == "00003"


def test_object_that_was_replaced_everywhere_and_missing_frames() -> None:
    writer = TrackWriter("x", (30, 40))
    writer.add(2, clip()[0])
    writer.add(2, clip()[2])
    content = writer.content()
    assert [annotation["label"] for annotation in content["annotations"]] == [1]
    assert content["annotations"][0]["segmentations"][:2] == [None, None]
    assert content["videos"][0]["length"] == 3
    assert TrackWriter("x", (30, 40)).content()["annotations"] == []


def test_arguments() -> None:
    writer = TrackWriter("x", (30, 40))
    with pytest.raises(InputError, match=r"mask: expected uint8 \[30, 40\], received uint8 \[30, 41\]"):
        writer.add(0, np.zeros((30, 41), np.uint8))
    with pytest.raises(InputError, match="received bool"):
        writer.add(0, np.zeros((30, 40), bool))
    with pytest.raises(InputError, match="index: expected 0 or more, received -1"):
        writer.add(-1, clip()[0])


def test_confidence_of_a_track_is_that_of_the_frames_in_which_it_was_found() -> None:
    writer = TrackWriter("dog", (30, 40))
    for index, mask in enumerate(clip()):
        writer.add(index, mask, confidence={1: 0.5 + 0.1 * index, 9: 0.25 * index} if index else None)
    first, second = writer.content()["annotations"]
    assert first["frame_scores"] == [None, 0.6, 0.7, 0.8, 0.9]
    assert first["score"] == pytest.approx(0.75)
    assert second["frame_scores"] == [None, 0.25, None, None, 1.0]
    assert second["score"] == pytest.approx(0.625)
