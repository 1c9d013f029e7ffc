"""Detections from files and functions: what is read, and every way in which it can be wrong."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from pycocotools import mask as rle_tools

from osmn_tf.datasets.coco import encode_segmentation
from osmn_tf.datasets.detections import FunctionDetections, Instance, read_detections
from osmn_tf.datasets.index import DamagedFileError
from osmn_tf.errors import InputError

# pycocotools 2.0.11 under NumPy 2: nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SIZE = (20, 30)
NAMES = ["00000.jpg", "00001.jpg", "00002.jpg"]


def square(top, bottom, left, right):
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


MASK = square(3, 15, 2, 12)
POLYGON = [[2.0, 3.0, 12.0, 3.0, 12.0, 15.0, 2.0, 15.0]]
# Down the columns: 2 columns and 3 pixels of background, then 10 times 12 pixels of the object and 8 of background.
RUNS = {"size": [20, 30], "counts": [43, *([12, 8] * 9), 12, 365]}
COMPRESSED = {
    "size": [20, 30],
    "counts": rle_tools.encode(np.asfortranarray(MASK.astype(np.uint8)))["counts"].decode(),
}


def images(folder="", first=1):
    return [
        {"id": first + i, "file_name": f"{folder}{name}", "height": 20, "width": 30} for i, name in enumerate(NAMES)
    ]  # fmt: skip


def result(image=1, category=18, segmentation=None, score=0.5, **extra):
    return {
        "image_id": image, "category_id": category, "segmentation": segmentation or POLYGON, "score": score, **extra
    }  # fmt: skip


def track(video=1, category=18, score=0.5, segmentations=(RUNS, None, POLYGON)):
    return {"video_id": video, "category_id": category, "score": score, "segmentations": list(segmentations)}


def video(number=1, folder="bear", **changes):
    names = [f"{folder}/{name}" for name in NAMES]
    return {"id": number, "file_names": names, "height": 20, "width": 30, "length": 3, **changes}


@pytest.fixture
def write(tmp_path):
    def write(content, name="detections.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


# What is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segmentation", [POLYGON, RUNS, COMPRESSED], ids=["polygon", "runs", "compressed"])
def test_coco_results_with_the_list_of_images_in_a_file_of_its_own(write, segmentation):
    path = write([result(1, 18, segmentation, 0.5), result(3, 7, segmentation, 0.25), result(1, 7, RUNS, 1)])
    listing = write({"images": images("bear/")[::-1], "categories": [{"id": 7}, {"id": 18, "name": "dog"}]}, "i.json")
    found = read_detections(path, NAMES, SIZE, images=listing)
    assert len(found) == 3
    assert (found.size, found.categories) == (SIZE, {7: "7", 18: "dog"})
    facts = [[(one.category, one.score) for one in found(index)] for index in range(3)]
    assert facts == [[(7, 1.0), (18, 0.5)], [], [(7, 0.25)]]
    for one in (*found(0), *found(2)):
        assert one.mask.dtype == bool
        np.testing.assert_array_equal(one.mask, MASK)


def test_one_file_without_names_of_frames(write):
    """A video file's frames have no names: the list's order counts."""
    path = write({"images": images(), "annotations": [result(2)]})
    found = read_detections(path, 3, SIZE)
    assert [len(found(index)) for index in range(3)] == [0, 1, 0]


def test_frames_are_found_by_name(write):
    path = write({"images": images(), "annotations": [result(2, score=0.4), result(3, score=0.6)]})
    found = read_detections(path, ["00002.png", "00001"], SIZE)
    assert [one.score for index in range(2) for one in found(index)] == [0.6, 0.4]


def test_the_video_s_folder_chooses_among_several(write):
    entries = images("bear/") + images("ant/", first=4)
    path = write({"images": entries, "annotations": [result(1, 1), result(4, 2)]})
    assert [one.category for one in read_detections(path, NAMES, SIZE, video="ant")(0)] == [2]
    with pytest.raises(InputError, match="has several images named '00000': which video is meant"):
        read_detections(path, NAMES, SIZE)


@pytest.mark.parametrize("frames", [NAMES, 3])
def test_youtube_vis(write, frames):
    path = write({"videos": [video()], "annotations": [track(), track(category=7, score=0.75)]})
    found = read_detections(path, frames, SIZE)
    assert [[one.category for one in found(index)] for index in range(3)] == [[7, 18], [], [7, 18]]
    np.testing.assert_array_equal(found(2)[1].mask, MASK)


def test_youtube_vis_results_of_several_videos(write):
    path = write([track(1, 1), track(2, 2)])
    listing = write({"videos": [video(1, "bear"), video(2, "x", name="ant")]}, "videos.json")
    for name, category in (("bear", 1), ("ant", 2)):
        found = read_detections(path, NAMES[::-1], SIZE, images=listing, video=name)
        assert [one.category for one in found(0)] == [category]
    with pytest.raises(InputError, match="has 2 videos, and none of them alone is named 'cow'"):
        read_detections(path, NAMES, SIZE, images=listing, video="cow")


def test_low_scores_are_left_out(write):
    path = write({"images": images(), "annotations": [result(score=0.3), result(score=0.7)]})
    assert [one.score for one in read_detections(path, NAMES, SIZE, min_score=0.5)(0)] == [0.7]


def test_a_frame_that_the_video_does_not_have(write):
    found = read_detections(write({"images": images(), "annotations": [result()]}), NAMES, SIZE)
    with pytest.raises(InputError, match="has 3 frames, frame 3 was asked for"):
        found(3)


# Functions --------------------------------------------------------------------------------------------------------


def test_functions():
    frame = np.zeros((*SIZE, 3), np.uint8)
    instances = [Instance(1, 0.2, MASK), Instance(2, 0.9, MASK), Instance(3, 0.5, MASK)]
    found = FunctionDetections(lambda received: instances if received is frame else [], min_score=0.5)
    assert [one.category for one in found(0, frame)] == [2, 3]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("mask", "detections: frame 4: expected Instance objects, received str"),
        (Instance(1, 0.5, MASK[:9]), r"detections: frame 4: expected masks bool \[20, 30\], received bool \[9, 30\]"),
        (Instance(1, 0.5, MASK * 1), r"detections: frame 4: expected masks bool \[20, 30\], received int64"),
        (Instance(1, 2.0, MASK), "detections: frame 4: expected a score from 0 to 1, received 2.0"),
    ],
)
def test_what_a_function_may_not_give(result, message):
    with pytest.raises(InputError, match=message):
        FunctionDetections(lambda frame: [result])(4, np.zeros((*SIZE, 3), np.uint8))


# What is refused --------------------------------------------------------------------------------------------------


def refused(path, message, frames=NAMES, size=SIZE, **arguments):
    with pytest.raises(InputError, match=message) as caught:
        read_detections(path, frames, size, **arguments)
    text = str(caught.value)
    assert text.startswith(("detections: ", "min_score: "))
    assert "\n" not in text


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"score": None}, "instance 0: expected a score from 0 to 1, received None"),
        ({"score": 97}, "instance 0: expected a score from 0 to 1, received 97"),
        ({"score": float("nan")}, "instance 0: expected a score from 0 to 1, received nan"),
        ({"category_id": 99}, "instance 0: category_id 99 is not in the list of categories"),
        ({"category_id": "dog"}, "instance 0: category_id: expected a whole number, received 'dog'"),
        ({"image_id": 8}, "instance 0: image_id 8 is not in the list of images"),
        ({"image_id": [8]}, r"instance 0: image_id: expected a number or a text, received \[8\]"),
        ({"segmentation": [[1, 2, 3, 4]]}, "instance 0: damaged segmentation .*without a polygon of three points"),
        ({"segmentation": [["a"] * 6]}, "instance 0: damaged segmentation .*a polygon with something else than"),
        ({"segmentation": [[1, 1, 4, 1, 4, math.nan]]}, "instance 0: damaged segmentation .*a point that is not in or"),
        ({"segmentation": [[1, 1, 1e9, 1, 4, 4]]}, "instance 0: damaged segmentation .*a point that is not in or near"),
        ({"segmentation": "mask.png"}, "instance 0: damaged segmentation .*received str"),
        ({"segmentation": {**RUNS, "size": [30, 20]}}, r"expected .* of size \[20, 30\], received size \[30, 20\]"),
    ],
)
def test_damaged_instances(write, entry, message):
    content = {
        "images": images(), "annotations": [{**result(), **entry}], "categories": [{"id": 18}]
    }  # fmt: skip
    refused(write(content), message)


def test_instances_without_scores(write):
    """The annotations of a data set are no detections."""
    annotation = result()
    del annotation["score"]
    refused(
        write({"images": images(), "annotations": [annotation]}),
        "instance 0: expected 'score', received only image_id, category_id, segmentation",
    )


def test_another_video(write):
    path = write({"images": images(), "annotations": [result()]})
    refused(path, "is of another video: it has no frame7 among its 3 images", frames=["frame7"])
    refused(path, "is of another video: expected 5 images, received 3", frames=5)
    path = write({"videos": [video()], "annotations": [track()]})
    refused(path, "is of another video: it has no a, b, c and 1 more among its 3 images", frames=list("abcd"))
    refused(path, "is of another video: expected 5 frames, received 3", frames=5)
    path = write({"videos": [video()], "annotations": [track(segmentations=[RUNS])]})
    refused(path, "instance 0: expected 3 segmentations, one a frame, received 1")
    path = write({"videos": [video()], "annotations": [track(video=4)]})
    refused(path, "instance 0: video_id 4 is not in the list of videos")


def test_another_size(write):
    path = write({"images": images(), "annotations": [result()]})
    refused(path, "is of another size: expected 854x480, received 30x20", size=(480, 854))
    path = write({"videos": [video()], "annotations": [track()]})
    refused(path, "is of another size: expected 854x480, received 30x20", size=(480, 854))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no complete JSON file"),
        ('[{"image_id": 1, "categ', "is no complete JSON file"),
        ("[]", "has no instances"),
        ('{"images": [], "annotations": []}', "has no instances"),
        ("[1, 2]", "expected a list of instances, or one under 'annotations'"),
        ('{"images": []}', "expected a list of instances, or one under 'annotations'"),
        ([result()], "has no list 'images': give the file that lists the images the detector was run on"),
        ([track()], "has no list 'videos': give the file that lists the videos the detector was run on"),
        ({"images": [{"id": 1}], "annotations": [result()]}, "expected 'file_name', received only id"),
        ({"images": images(), "annotations": [result()], "categories": [1]}, "'categories' has an entry without"),
        ({"videos": [video(file_names=3)], "annotations": [track()]}, "expected 'file_names' as a list of names"),
    ],
)
def test_what_is_no_file_of_detections(write, content, message):
    refused(write(content), message)


def test_files_that_are_not_there(write, tmp_path):
    refused(tmp_path / "none.json", "cannot read .*none.json .No such file")
    refused(write([result()]), "cannot read .*none.json", images=tmp_path / "none.json")
    refused(write([result()]), "expected a score from 0 to 1, received 3", min_score=3)


# Run lengths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_of_any_mask(seed):
    rng = np.random.default_rng(seed)
    mask = rng.uniform(0, 1, (37, 300)) < (0.5, 0.01, 0.999, 0.0)[seed]
    if seed == 1:
        mask[:, 20:260] = False  # long runs, whose differences are negative
    encoded = rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    for counts in (encoded["counts"], encoded["counts"].decode()):
        found = encode_segmentation({"size": [37, 300], "counts": counts}, 37, 300)
        np.testing.assert_array_equal(rle_tools.decode(found), mask)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([200, 100], "do not add up to 20 x 30 pixels"),
        ([200, 500, -100], "do not add up to 20 x 30 pixels"),
        ([200.5, 399.5], "do not add up to 20 x 30 pixels"),
        (COMPRESSED["counts"][:-1], "do not add up|expected run lengths"),
        (COMPRESSED["counts"] + "4", "do not add up to 20 x 30 pixels"),
        ("", "expected run lengths as 'counts', received str"),
        ("ÄÖ", "expected run lengths as 'counts', received str"),
        ("ooooooooo0", "expected run lengths as 'counts', received str"),
        (["a"], "do not add up|expected run lengths"),
        (None, "expected run lengths as 'counts', received NoneType"),
        (600, "expected run lengths as 'counts', received int"),
    ],
)
def test_damaged_run_lengths(counts, message):
    """pycocotools alone fills what is missing with whatever is in the memory."""
    with pytest.raises(DamagedFileError, match=message):
        encode_segmentation({"size": [20, 30], "counts": counts}, 20, 30)
