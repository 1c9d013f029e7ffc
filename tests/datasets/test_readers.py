from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from osmn_tf.datasets.coco import decode_segmentation, open_coco
from osmn_tf.datasets.davis import HELD_OUT, open_davis
from osmn_tf.datasets.index import DamagedFileError, DamagedFileWarning, VideoDataset, decode_image, find_overlap
from osmn_tf.datasets.stills import open_stills
from osmn_tf.datasets.youtube_vos import open_youtube_vos
from osmn_tf.errors import InputError
from osmn_tf.masks.labels import labels_of

from .conftest import make_stills, truncate, two_boxes, write_frame, write_labels

# pycocotools 2.0.11 under NumPy 2: nothing of ours.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


class TestDavis:
    def test_2017_sequences_in_the_order_of_the_list(self, davis_root: Path) -> None:
        data = open_davis(davis_root, 2017, "train")
        assert [(s.name, len(s), s.labels, s.first_frames) for s in data.sequences] == [
            ("bee", 4, (1, 2), {1: 0, 2: 0}),
            ("ant", 5, (1, 2), {1: 0, 2: 0}),
        ]
        frame, mask = data["ant"].load(3)
        assert frame.shape == (24, 32, 3)
        assert frame.dtype == mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, two_boxes(shift=3))
        # RGB: red is 40 * index; green is 0 on the left.
        assert abs(int(frame[12, 2, 0]) - 120) < 6
        assert frame[12, 2, 1:].max() < 12

    def test_2016_merges_the_objects(self, davis_root: Path) -> None:
        sequence = open_davis(davis_root, 2016, "val").sequences[0]
        assert sequence.labels == (1,)
        mask = sequence.load_mask(0)
        np.testing.assert_array_equal(mask, two_boxes() > 0)

    def test_2016_reads_black_and_white_masks(self, davis_root: Path) -> None:
        path = davis_root / "Annotations/480p/ant/00000.png"
        cv2.imwrite(str(path), np.uint8(255) * (two_boxes() > 0))
        mask = open_davis(davis_root, 2016, "val").sequences[0].load_mask(0)
        assert sorted(np.unique(mask)) == [0, 1]
        assert mask.sum() == 6 * 8 + 10 * 6

    def test_test_split_has_only_the_first_mask(self, davis_root: Path) -> None:
        for i in range(1, 5):
            (davis_root / f"Annotations/480p/ant/{i:05d}.png").unlink()
        sequence = open_davis(davis_root, 2017, "val").sequences[0]
        assert sequence.annotated == (0,)
        assert sequence.load_mask(2) is None
        assert (sequence.load(2)[1] == 255).all()

    @pytest.mark.parametrize(
        ("removed", "message"),
        [
            ("Annotations/480p/bee/00002.png", r"1 of 4 frames have no mask in .*bee: 00002.png"),
            ("JPEGImages/480p/bee/00002.jpg", r"masks without a frame in .*bee: 00002.png"),
            ("ImageSets/2017/train.txt", r"no split 'train' in .*2017; found: val"),
        ],
    )
    def test_missing_files_are_named(self, davis_root: Path, removed: str, message: str) -> None:
        (davis_root / removed).unlink()
        with pytest.raises(InputError, match=message):
            open_davis(davis_root, 2017, "train")

    def test_lists_of_2016_as_first_published(self, davis_root: Path) -> None:
        for split in ("train", "val"):
            (davis_root / f"ImageSets/2016/{split}.txt").unlink()
        (davis_root / "ImageSets/480p").mkdir()
        pairs = [(name, i) for name, count in (("bee", 4), ("ant", 5)) for i in range(count)]
        lines = [f"/JPEGImages/480p/{n}/{i:05d}.jpg /Annotations/480p/{n}/{i:05d}.png" for n, i in pairs]
        (davis_root / "ImageSets/480p/train.txt").write_text("\n".join(lines) + "\n")
        assert [s.name for s in open_davis(davis_root, 2016, "train").sequences] == ["bee", "ant"]
        with pytest.raises(InputError, match=r"no split 'val' in .*2016; found: train"):
            open_davis(davis_root, 2016, "val")

    def test_the_held_out_sequences_need_no_list(self, davis_root: Path) -> None:
        for kind in ("JPEGImages", "Annotations"):
            for name in HELD_OUT:
                (davis_root / kind / "480p" / name).symlink_to(davis_root / kind / "480p/ant")
        (davis_root / "ImageSets/2016/train.txt").write_text("\n".join(("bee", *HELD_OUT)) + "\n")
        names = [sequence.name for sequence in open_davis(davis_root, 2016, "dev").sequences]
        assert names == ["dog-agility", "hike", "mallard-water", "motocross-bumps", "rollerblade", "train"]
        left = open_davis(davis_root, 2016, "train", leave_out="dev")
        assert [sequence.name for sequence in left.sequences] == ["bee"]
        (davis_root / "ImageSets/2016/dev.txt").write_text("bee\n")
        assert [sequence.name for sequence in open_davis(davis_root, 2016, "dev").sequences] == ["bee"]
        with pytest.raises(InputError, match=r"no split 'dev' in .*2017; found: train, val"):
            open_davis(davis_root, 2017, "dev")

    def test_grey_and_alpha_mask_as_published(self, davis_root: Path) -> None:
        """bear/00077.png of DAVIS 2016 is such a file."""
        path = davis_root / "Annotations/480p/ant/00001.png"
        grey = np.uint8(255) * (two_boxes(shift=1) > 0)
        Image.fromarray(np.stack([grey, np.full_like(grey, 255)], axis=-1), "LA").save(path)
        mask = open_davis(davis_root, 2016, "val").sequences[0].load_mask(1)
        np.testing.assert_array_equal(mask, two_boxes(shift=1) > 0)

    def test_a_list_that_names_a_sequence_twice(self, davis_root: Path) -> None:
        (davis_root / "ImageSets/2017/train.txt").write_text("ant\nbee\nant\n")
        with pytest.raises(InputError, match="names sequences twice: ant"):
            open_davis(davis_root, 2017, "train")

    def test_missing_sequences_and_folders_are_named(self, davis_root: Path, tmp_path: Path) -> None:
        (davis_root / "ImageSets/2017/train.txt").write_text("ant\nelk\nbee\nfly\n")
        with pytest.raises(InputError, match=r"2 of 4 sequences of the split 'train' lack their folder .*: elk, fly"):
            open_davis(davis_root, 2017, "train")
        with pytest.raises(InputError, match=r"expected a folder with JPEGImages.*nowhere"):
            open_davis(tmp_path / "nowhere")
        with pytest.raises(InputError, match="year: expected 2016 or 2017, received 2018"):
            open_davis(davis_root, 2018)

    def test_unknown_sequence_lists_the_names(self, davis_root: Path) -> None:
        with pytest.raises(InputError, match="no sequence 'elk'; it has bee, ant"):
            open_davis(davis_root)["elk"]


class TestOverlap:
    def test_sequences_by_name_and_by_file(self, davis_root: Path, tmp_path: Path) -> None:
        train, val = open_davis(davis_root, 2017, "train"), open_davis(davis_root, 2017, "val")
        assert find_overlap(train, val) == ["ant"]
        bee = VideoDataset("bee", [train["bee"]])
        assert find_overlap(bee, val) == []
        # Under another name, behind a link: the same files.
        (davis_root / "JPEGImages/480p/eel").symlink_to(davis_root / "JPEGImages/480p/ant")
        (davis_root / "Annotations/480p/eel").symlink_to(davis_root / "Annotations/480p/ant")
        (davis_root / "ImageSets/2017/eel.txt").write_text("eel\n")
        assert find_overlap(open_davis(davis_root, 2017, "eel"), val) == ["eel"]

    def test_images_by_file(self, davis_root: Path, tmp_path: Path) -> None:
        val = open_davis(davis_root, 2017, "val")
        folder = tmp_path / "mine/frames"
        folder.mkdir(parents=True)
        (folder / "images").symlink_to(davis_root / "JPEGImages/480p/ant")
        (folder / "masks").symlink_to(davis_root / "Annotations/480p/ant")
        assert find_overlap(open_stills(tmp_path / "mine"), val) == [f"frames/{i:05d}" for i in range(5)]
        make_stills(tmp_path / "others")
        assert find_overlap(open_stills(tmp_path / "others"), val) == []


class TestClips:
    def test_starts_and_strides(self, davis_root: Path) -> None:
        data = open_davis(davis_root, 2017, "train")
        assert data.clip_starts(3) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


class TestStills:
    def test_items(self, stills_root: Path) -> None:
        data = open_stills(stills_root)
        assert [item.name for item in data.items] == [f"cups/{i}" for i in range(6)] + ["hats/0", "hats/1"]
        image, mask = data.load(1)
        assert image.shape == (24, 32, 3)
        assert labels_of(mask) == (1, 2)
        assert (mask[0] == 255).all()
        assert len(open_stills(stills_root, ["hats"])) == 2
        assert len(open_stills(stills_root / "cups")) == 6
        assert len(pickle.loads(pickle.dumps(data))) == 8

    def test_unpaired_files_are_named(self, stills_root: Path) -> None:
        (stills_root / "cups/masks/3.png").unlink()
        with pytest.raises(InputError, match=r"1 images in .*cups without their mask: 3"):
            open_stills(stills_root)
        with pytest.raises(InputError, match=r"no boots in .*; found: cups, hats"):
            open_stills(stills_root, ["boots"])
        (stills_root / "hats/images/1.png").write_bytes((stills_root / "hats/images/1.jpg").read_bytes())
        with pytest.raises(InputError, match=r"several images in .*hats with one mask: 1"):
            open_stills(stills_root, ["hats"])

    def test_damaged_image_is_replaced_by_the_next_and_counted(self, stills_root: Path) -> None:
        truncate(stills_root / "cups/images/1.jpg")
        truncate(stills_root / "cups/masks/2.png")
        data = open_stills(stills_root)
        with pytest.warns(DamagedFileWarning) as record:
            image, _ = data.load(1)
        assert [str(w.message).split(":")[1].strip() for w in record] == [
            "skipped damaged item 1 of 8",
            "skipped damaged item 2 of 8",
        ]
        assert abs(int(image[12, 2, 0]) - 120) < 6  # cups/3
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no second warning for the same item
            np.testing.assert_array_equal(data.load(2)[0], image)
        assert len(data.damaged) == 2

    def test_mask_of_another_size_counts_as_damaged(self, stills_root: Path) -> None:
        write_labels(stills_root / "hats/masks/1.png", two_boxes(30, 40))
        data = open_stills(stills_root)
        with pytest.raises(DamagedFileError, match="hats/1: mask of 40x30, but its image has 32x24"):
            data.items[7].load()
        with pytest.warns(DamagedFileWarning):
            image, _ = data.load(7)  # wraps round to the first
        np.testing.assert_array_equal(image, data.load(0)[0])

    def test_many_damaged_images_are_an_error(self, stills_root: Path) -> None:
        for i in range(5):
            truncate(stills_root / f"cups/images/{i}.jpg")
        with (
            pytest.warns(DamagedFileWarning),
            pytest.raises(DamagedFileError, match="more than 3 of 8 items are damaged"),
        ):
            open_stills(stills_root).load(0)

    def test_every_reader_hears_that_there_are_too_many(self, stills_root: Path) -> None:
        """Several threads read: one that meets a file that another one has counted must not go on either."""
        for i in range(5):
            truncate(stills_root / f"cups/images/{i}.jpg")
        data = open_stills(stills_root)
        with pytest.warns(DamagedFileWarning), pytest.raises(DamagedFileError, match="more than 3 of 8"):
            data.load(0)
        with pytest.raises(DamagedFileError, match=r"more than 3 of 8 items are damaged, the last: "):
            data.load(0)


class TestCoco:
    def test_instances(self, coco_root: Path) -> None:
        data = open_coco(coco_root)
        assert [(item.name, item.labels) for item in data.items] == [("train2017/000000000001", (1, 2))]
        image, mask = data.load(0)
        assert image.shape == (20, 30, 3)
        expected = np.zeros((20, 30), np.uint8)
        expected[3:15, 2:12] = 1
        expected[:, 10:15] = 2  # the smaller is on top
        np.testing.assert_array_equal(mask, expected)

    def test_area_threshold(self, coco_root: Path) -> None:
        assert [item.labels for item in open_coco(coco_root, min_area=0.02).items] == [(1, 2, 3), (1,)]
        assert [item.labels for item in open_coco(coco_root, min_area=0.17).items] == [(1,)]
        with pytest.raises(InputError, match="expected at least one annotated image"):
            open_coco(coco_root, min_area=0.9)

    def test_compressed_run_lengths_equal_uncompressed(self) -> None:
        from pycocotools import mask as rle_tools

        mask = two_boxes() > 0
        runs = rle_tools.encode(np.asfortranarray(mask.astype(np.uint8)))
        np.testing.assert_array_equal(decode_segmentation(runs, 24, 32), mask)
        text = {"size": [24, 32], "counts": runs["counts"].decode()}
        np.testing.assert_array_equal(decode_segmentation(text, 24, 32), mask)
        with pytest.raises(DamagedFileError, match=r"run-length mask of size \[24, 31\]"):
            decode_segmentation(text, 24, 31)

    def test_missing_image_is_named(self, coco_root: Path) -> None:
        (coco_root / "train2017/000000000001.jpg").unlink()
        with pytest.raises(InputError, match=r"1 of 1 images are not in .*train2017: 000000000001.jpg"):
            open_coco(coco_root)

    def test_json_that_is_no_coco(self, coco_root: Path) -> None:
        path = coco_root / "annotations/instances_train2017.json"
        content = json.loads(path.read_text())
        del content["images"][0]["width"]
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match="an entry of 'images' has no width"):
            open_coco(coco_root)
        path.write_text(json.dumps({"images": [7], "annotations": []}))
        with pytest.raises(InputError, match="an entry of 'images' has no id, file_name, height and 1 more"):
            open_coco(coco_root)
        content["images"][0]["width"] = "64"
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match="an entry of 'images' has the width '64'"):
            open_coco(coco_root)
        for image in content["images"]:
            image["width"] = -64
        path.write_text(json.dumps(content))
        with pytest.raises(DamagedFileError, match="instance 1 cannot be drawn"):
            open_coco(coco_root).items[0].read_mask()
        path.write_text('{"images": []}')
        with pytest.raises(InputError, match="no list 'annotations'"):
            open_coco(coco_root)
        path.write_text('{"images": [')
        with pytest.raises(InputError, match="no complete JSON"):
            open_coco(coco_root)


class TestYouTubeVos:
    def test_objects_with_their_own_first_frames(self, youtube_vos_root: Path) -> None:
        sequence = open_youtube_vos(youtube_vos_root)["v1"]
        assert len(sequence) == 11
        assert sequence.first_frames == {1: 0, 2: 5}
        assert sequence.annotated == (0, 5, 10)
        assert labels_of(sequence.load(0)[1]) == (1,)
        assert labels_of(sequence.load(10)[1]) == (1, 2)
        assert (sequence.load(3)[1] == 255).all()

    def test_objects_that_were_never_annotated_are_none(self, youtube_vos_root: Path) -> None:
        path = youtube_vos_root / "train/meta.json"
        content = json.loads(path.read_text())
        content["videos"]["v1"]["objects"]["3"] = {"category": "cat", "frames": []}
        content["videos"]["v2"] = {"objects": {"1": {"category": "cat", "frames": []}}}
        path.write_text(json.dumps(content))
        assert [(s.name, s.first_frames) for s in open_youtube_vos(youtube_vos_root).sequences] == [
            ("v1", {1: 0, 2: 5})
        ]

    def test_missing_first_mask_is_named(self, youtube_vos_root: Path) -> None:
        (youtube_vos_root / "train/Annotations/v1/00005.png").unlink()
        with pytest.raises(InputError, match=r"first masks of objects missing in .*v1: 00005.png"):
            open_youtube_vos(youtube_vos_root)

    def test_meta_of_another_format(self, youtube_vos_root: Path) -> None:
        (youtube_vos_root / "train/meta.json").write_text('{"videos": {"v1": {"objects": {"x": {}}}}}')
        with pytest.raises(InputError, match=r"meta.json: expected \{\"videos\""):
            open_youtube_vos(youtube_vos_root)


class TestImages:
    @pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff\xe0", b"GIF89a and no more", b"\x89PNG\r\n\x1a\n"])
    def test_damaged_content(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(DamagedFileError, match=r"a\.jpg: "):
            decode_image(tmp_path / "a.jpg")

    def test_every_truncation_is_noticed(self, tmp_path: Path) -> None:
        write_frame(tmp_path / "whole.jpg", 64, 64)
        content = (tmp_path / "whole.jpg").read_bytes()
        for length in (30, 200, len(content) // 2, len(content) - 2):
            (tmp_path / "cut.jpg").write_bytes(content[:length])
            with pytest.raises(DamagedFileError):
                decode_image(tmp_path / "cut.jpg")


@pytest.mark.real_data
class TestRealData:
    def test_davis(self, real_data_root: Path) -> None:
        data = open_davis(real_data_root / "davis", 2016, "trainfull")
        assert len(data) == 30
        assert sum(len(s) for s in data.sequences) == 2079
        frame, mask = data["surf"].load(0)
        assert frame.shape == (480, 854, 3)
        assert labels_of(mask) == (1,)

    def test_coco(self, real_data_root: Path) -> None:
        data = open_coco(real_data_root / "coco_mini", "train2017")
        assert 200 < len(data) <= 335
        for index in range(0, len(data), 40):
            _, mask = data.load(index)
            assert labels_of(mask)[0] == 1

    def test_stills(self, real_data_root: Path) -> None:
        data = open_stills(real_data_root / "stills")
        assert len(data) == 1938
        for index in range(0, len(data), 100):
            assert labels_of(data.load(index)[1])
        assert not data.damaged
