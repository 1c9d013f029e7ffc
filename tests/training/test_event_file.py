from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from osmn_tf.errors import InputError
from osmn_tf.training.event_file import EventWriter, masked_crc32c


def test_checksum() -> None:
    # CRC-32C of "123456789" is 0xE3069283 (its published check value).
    crc = 0xE3069283
    assert masked_crc32c(b"123456789") == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_tensorflow_reads_what_was_written(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    writer = EventWriter(tmp_path / "logs")
    writer.scalars({"loss": 0.5, "val_j_mean": 0.25}, 300)
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[..., 0] = 200
    writer.image("overlay", picture, 7)
    (path,) = (tmp_path / "logs").iterdir()
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(path))]  # checks the checksums
    events = [tf.compat.v1.Event.FromString(record) for record in records]
    assert events[0].file_version == "brain.Event:2"
    assert events[1].step == 300
    assert {v.tag: v.simple_value for v in events[1].summary.value} == {"loss": 0.5, "val_j_mean": 0.25}
    assert (events[2].step, events[2].summary.value[0].tag) == (7, "overlay")
    image = events[2].summary.value[0].image
    assert (image.height, image.width, image.colorspace) == (20, 30, 3)
    decoded = tf.io.decode_jpeg(image.encoded_image_string).numpy()
    assert decoded.shape == (20, 30, 3)
    assert np.abs(decoded.astype(int) - picture).max() < 12


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        EventWriter(tmp_path / "logs")
