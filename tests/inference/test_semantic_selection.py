"""The greedy choice of instances, what becomes of it in later frames, and the classifier's weight."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from osmn_tf.datasets.coco import decode_segmentation
from osmn_tf.datasets.detections import Instance
from osmn_tf.errors import InputError
from osmn_tf.inference.semantic_selection import classifier_weight, propagate_selection, select_instances

PERSON, BICYCLE, DOG = 1, 2, 18


def box(top, bottom, left, right):
    mask = np.zeros((20, 30), bool)
    mask[top:bottom, left:right] = True
    return mask


def instance(category, *sides, score=0.9):
    return Instance(category, score, box(*sides))


RIDER = instance(PERSON, 2, 10, 8, 14)
BIKE = instance(BICYCLE, 9, 18, 4, 18)
WALKER = instance(PERSON, 4, 18, 22, 28)


# Selection --------------------------------------------------------------------------------------------------------


def test_one_instance_that_fits_is_taken_alone():
    assert select_instances([WALKER, RIDER, BIKE], RIDER.mask) == [1]
    assert select_instances([], RIDER.mask) == []
    assert select_instances([WALKER], RIDER.mask) == []
    assert select_instances([WALKER], np.zeros((20, 30), bool)) == []


def test_several_instances_make_one_object():
    assert select_instances([WALKER, RIDER, BIKE], RIDER.mask | BIKE.mask) == [2, 1]


def test_stops_when_the_union_gets_no_better():
    given = box(0, 10, 0, 10)
    half, rest_and_more, inside = (
        instance(DOG, 0, 10, 0, 6), instance(DOG, 0, 20, 6, 16), instance(DOG, 2, 4, 2, 4)
    )  # fmt: skip
    # 60 / 100 with the first; all three would be 100 / 260.
    assert select_instances([inside, rest_and_more, half], given) == [2]
    # 40 of the missing 40 and 40 more: (60 + 40) / 140 = 0.71 is better.
    assert select_instances([half, instance(DOG, 0, 10, 6, 14)], given) == [0, 1]


def test_of_equal_instances_the_first_is_taken():
    assert select_instances([RIDER, instance(DOG, 2, 10, 8, 14)], RIDER.mask) == [0]


def _images():
    root = os.environ.get("OSMN_DATA_ROOT")
    if not root:
        return []
    content = json.loads((Path(root) / "coco_mini" / "annotations" / "instances_val2017.json").read_text())
    found = defaultdict(list)
    for annotation in content["annotations"]:
        found[annotation["image_id"]].append(annotation)
    return [(image, found[image["id"]]) for image in content["images"]]


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_every_coco_object_is_found_among_all_instances_of_its_image():
    images = _images()
    if not images:
        pytest.skip("OSMN_DATA_ROOT is not set: it names a folder with coco_mini/")
    objects = 0
    for image, objects_of_image in images:
        height, width = image["height"], image["width"]
        instances = [
            Instance(a["category_id"], 1.0, decode_segmentation(a["segmentation"], height, width))
            for a in objects_of_image
        ]
        for index, annotation in enumerate(objects_of_image):
            if annotation["area"] > 0.03 * height * width and not annotation["iscrowd"]:
                objects += 1
                assert select_instances(instances, instances[index].mask) == [index], image["file_name"]
    assert objects == 465


# Propagation ------------------------------------------------------------------------------------------------------


def test_as_many_of_each_category_as_were_selected():
    foreground = box(2, 18, 4, 18)
    other_rider = instance(PERSON, 2, 6, 10, 18)
    found = propagate_selection([other_rider, BIKE, RIDER], foreground, [PERSON, BICYCLE])
    assert found == [1, 2]  # by IoU 126 / 224 and 48 / 224; the other rider's is 32 / 224
    assert propagate_selection([other_rider, BIKE, RIDER], foreground, [PERSON, PERSON]) == [2, 0]
    assert propagate_selection([BIKE, RIDER], foreground, [DOG]) == []
    assert propagate_selection([], foreground, [DOG]) == []


def test_what_misses_the_foreground_is_left_out():
    assert propagate_selection([WALKER, RIDER], box(2, 10, 8, 14), [PERSON, PERSON]) == [1]
    assert propagate_selection([WALKER], np.zeros((20, 30), bool), [PERSON]) == []


def test_masks_of_another_size():
    small = Instance(DOG, 0.5, np.ones((4, 5), bool))
    for function in (
        lambda: select_instances([small], RIDER.mask),
        lambda: propagate_selection([small], RIDER.mask, [DOG]),
    ):
        with pytest.raises(InputError, match=r"expected masks of the video's size \[20, 30\], received \[4, 5\]"):
            function()


# The weight -------------------------------------------------------------------------------------------------------


def test_weight_is_the_filtered_union():
    masks = [box(0, 20, 0, 10), box(0, 20, 5, 15)]
    hard = classifier_weight(masks, (20, 30), sigma=0)
    assert hard.dtype == np.float32
    np.testing.assert_array_equal(hard, box(0, 20, 0, 15))
    row = classifier_weight(masks, (20, 30), sigma=2.0)[7]
    # A step between the columns 14 and 15, under a Gaussian: the normal distribution at half a pixel from it.
    assert row[14] + row[15] == pytest.approx(1.0, abs=1e-5)
    assert row[14] == pytest.approx(0.597, abs=5e-3)
    assert row[0] == pytest.approx(1.0, abs=1e-5)
    assert row[29] == pytest.approx(0.0, abs=1e-5)
    assert np.all(np.diff(row) <= 1e-7)


def test_without_instances_the_weight_is_zero():
    weight = classifier_weight([], (4, 6))
    assert weight.shape == (4, 6)
    assert not weight.any()


@pytest.mark.parametrize(
    ("masks", "sigma", "message"),
    [
        ([], -1.0, "sigma: expected 0 or more, received -1.0"),
        ([], float("nan"), "sigma: expected 0 or more, received nan"),
        ([np.zeros((3, 3), bool)], 1.0, r"masks: expected \[4, 6\], received \[3, 3\]"),
    ],
)
def test_wrong_arguments_of_the_weight(masks, sigma, message):
    with pytest.raises(InputError, match=message):
        classifier_weight(masks, (4, 6), sigma)
