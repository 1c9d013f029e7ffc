from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from osmn_tf.datasets.coco_tfrecord import open_coco_tfrecord
from osmn_tf.datasets.index import DamagedFileError, DamagedFileWarning
from osmn_tf.errors import InputError

tf = pytest.importorskip("tensorflow")


def png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


def example(image: np.ndarray, masks: list[np.ndarray], crowd: list[int]) -> bytes:
    """A record as Model Garden's script writes it."""

    def bytes_list(values: list[bytes]) -> object:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    feature = {
        "image/height": tf.train.Feature(int64_list=tf.train.Int64List(value=[image.shape[0]])),
        "image/width": tf.train.Feature(int64_list=tf.train.Int64List(value=[image.shape[1]])),
        "image/source_id": bytes_list([b"7"]),
        "image/format": bytes_list([b"jpeg"]),
        "image/encoded": bytes_list([png(image[..., ::-1])]),
        "image/object/is_crowd": tf.train.Feature(int64_list=tf.train.Int64List(value=crowd)),
        "image/object/area": tf.train.Feature(float_list=tf.train.FloatList(value=[float(m.sum()) for m in masks])),
        "image/object/mask": bytes_list([png(mask) for mask in masks]),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def box(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((20, 30), np.uint8)
    mask[rows, columns] = 1
    return mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    image = np.zeros((20, 30, 3), np.uint8)
    image[..., 0], image[..., 1] = 200, 30
    masks = [
        box(slice(0, 2), slice(0, 5)),  # 10 of 600 pixels: too small
        box(slice(2, 8), slice(2, 8)),  # 36
        box(slice(4, 16), slice(4, 20)),  # 192
        box(slice(0, 20), slice(0, 30)),  # a crowd
    ]
    with tf.io.TFRecordWriter(str(tmp_path / "train-00000-of-00002.tfrecord")) as writer:
        writer.write(example(image, masks, [0, 0, 0, 1]))
        writer.write(example(image // 2, masks[:1], [0]))
    with tf.io.TFRecordWriter(str(tmp_path / "train-00001-of-00002.tfrecord")) as writer:
        writer.write(example(image, masks[1:2], [0]))
    return tmp_path


def test_instances(folder: Path) -> None:
    data = open_coco_tfrecord(folder)
    assert [item.name[-10:] for item in data.items] == ["tfrecord/0", "tfrecord/1", "tfrecord/0"]
    image, mask = data.load(0)
    np.testing.assert_array_equal(image[0, 0], [200, 30, 0])
    expected = np.zeros((20, 30), np.uint8)
    expected[4:16, 4:20] = 1
    expected[2:8, 2:8] = 2
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(data.items[0].read_mask(), expected)
    image, mask = data.load(1)
    assert (image[0, 0, 0], mask.max()) == (100, 0)
    assert open_coco_tfrecord(folder, min_area=0.01).load(1)[1].sum() == 10
    assert len(open_coco_tfrecord(folder / "train-00001-of-00002.tfrecord")) == 1


def test_truncated_file_is_named(folder: Path) -> None:
    path = folder / "train-00000-of-00002.tfrecord"
    content = path.read_bytes()
    for length in (len(content) - 1, len(content) // 2, 5):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"train-00000-of-00002\.tfrecord is truncated"):
            open_coco_tfrecord(folder)


def test_damaged_record_is_skipped(folder: Path) -> None:
    path = folder / "train-00000-of-00002.tfrecord"
    content = bytearray(path.read_bytes())
    start = content.index(b"\x89PNG")
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)
    data = open_coco_tfrecord(folder)
    with pytest.raises(DamagedFileError, match="expected a JPEG or PNG image in the record"):
        data.items[0].load()
    with pytest.warns(DamagedFileWarning, match="skipped damaged item 1 of 3"):
        image, _ = data.load(0)
    assert image[0, 0, 0] == 100


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \*\.tfrecord files at"):
        open_coco_tfrecord(tmp_path)
    with pytest.raises(InputError, match=r"no \*\.tfrecord files at"):
        open_coco_tfrecord(tmp_path / "absent.tfrecord")
