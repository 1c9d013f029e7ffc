from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from osmn_tf import InputError
from osmn_tf.masks import png
from osmn_tf.masks.files import read_label_png, read_mask, write_mask
from osmn_tf.masks.labels import PALETTE, labels_of


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def filtered_rows(samples: np.ndarray, filter_type: int) -> bytes:
    """PNG scanlines of 1 byte per pixel, filtered as the standard defines it (section 9.2), byte by byte."""
    height, width = samples.shape
    rows = bytearray()
    for y in range(height):
        rows.append(filter_type)
        for x in range(width):
            left = int(samples[y, x - 1]) if x else 0
            up = int(samples[y - 1, x]) if y else 0
            corner = int(samples[y - 1, x - 1]) if x and y else 0
            estimate = left + up - corner
            paeth = min((left, up, corner), key=lambda v: abs(estimate - v))
            rows.append((int(samples[y, x]) - (0, left, up, (left + up) // 2, paeth)[filter_type]) % 256)
    return bytes(rows)


def png_bytes(
    rows: bytes,
    width: int,
    height: int,
    *,
    color_type: int = 3,
    depth: int = 8,
    palette: bytes = b"",
    extra: bytes = b"",
) -> bytes:
    return (
        png.SIGNATURE
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))
        + (chunk(b"PLTE", palette) if palette else b"")
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def indexed(indices: np.ndarray, palette: np.ndarray = PALETTE) -> bytes:
    return png_bytes(filtered_rows(indices, 0), indices.shape[1], indices.shape[0], palette=palette.tobytes())


def save(path: Path, image: np.ndarray) -> Path:
    """Writes a greyscale, RGB or RGBA image with OpenCV."""
    if image.ndim == 3:
        image = image[:, :, [2, 1, 0, 3][: image.shape[2]]]
    assert cv2.imwrite(str(path), image)
    return path


def three_objects(height: int = 40, width: int = 50) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[5:15, 5:20] = 1
    mask[20:30, 10:30] = 2
    mask[10:35, 35:45] = 3
    return mask


def anti_aliased(height: int = 120, width: int = 160) -> np.ndarray:
    big = np.zeros((height * 8, width * 8), np.uint8)
    cv2.circle(big, (width * 4, height * 4), height * 2, 255, -1)
    return cv2.resize(big, (width, height), interpolation=cv2.INTER_AREA)


def test_palette_is_the_published_one() -> None:
    assert PALETTE.shape == (256, 3)
    assert PALETTE[:12].tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128],
        [0, 128, 128], [128, 128, 128], [64, 0, 0], [192, 0, 0], [64, 128, 0], [192, 128, 0],
    ]  # fmt: skip
    assert PALETTE[255].tolist() == [224, 224, 192]
    assert len({tuple(color) for color in PALETTE.tolist()}) == 256


@pytest.mark.parametrize("shape", [(480, 854), (7, 3), (1, 1)])
def test_round_trip(tmp_path: Path, shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    mask[0, 0] = 9
    write_mask(tmp_path / "m.png", mask)
    assert np.array_equal(read_label_png(tmp_path / "m.png"), mask)
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]


def test_other_tools_read_the_indices_and_the_colours(tmp_path: Path) -> None:
    mask = three_objects()
    write_mask(tmp_path / "m.png", mask)
    assert np.array_equal(cv2.imread(str(tmp_path / "m.png"))[:, :, ::-1], PALETTE[mask])
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image), mask)
        assert image.getpalette() == PALETTE.ravel().tolist()


def test_write_mask_refuses_other_arrays(tmp_path: Path) -> None:
    write_mask(tmp_path / "bool.png", np.eye(4, dtype=bool))
    assert np.array_equal(read_label_png(tmp_path / "bool.png"), np.eye(4))
    for wrong in (np.zeros((4, 4), np.int32), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(InputError, match=r"mask: expected uint8 or bool \[H, W\], received"):
            write_mask(tmp_path / "no.png", wrong)
    assert not (tmp_path / "no.png").exists()


@pytest.mark.parametrize("filter_type", range(5))
@pytest.mark.parametrize("color_type", [0, 3])
def test_every_filter_type(tmp_path: Path, filter_type: int, color_type: int) -> None:
    mask = np.random.default_rng(filter_type).integers(0, 256, (13, 21), dtype=np.uint8)
    palette = PALETTE.tobytes() if color_type == 3 else b""
    data = png_bytes(filtered_rows(mask, filter_type), 21, 13, color_type=color_type, palette=palette)
    (tmp_path / "m.png").write_bytes(data)
    assert np.array_equal(read_label_png(tmp_path / "m.png"), mask)


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("color_type", [0, 3])
def test_fewer_than_8_bits(tmp_path: Path, depth: int, color_type: int) -> None:
    mask = np.random.default_rng(depth).integers(0, 2**depth, (5, 11), dtype=np.uint8)
    bits = ((mask[:, :, None] >> np.arange(depth - 1, -1, -1)) & 1).reshape(5, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    palette = PALETTE[: 2**depth].tobytes() if color_type == 3 else b""
    data = png_bytes(rows, 11, 5, color_type=color_type, depth=depth, palette=palette)
    (tmp_path / "m.png").write_bytes(data)
    assert np.array_equal(read_label_png(tmp_path / "m.png"), mask)


def test_transparency_and_gamma_chunks_do_not_change_the_indices(tmp_path: Path) -> None:
    mask = three_objects()
    extra = chunk(b"tRNS", b"\0") + chunk(b"tEXt", b"a\0b")
    data = png_bytes(filtered_rows(mask, 4), 50, 40, palette=PALETTE.tobytes(), extra=extra)
    (tmp_path / "m.png").write_bytes(data)
    assert np.array_equal(read_label_png(tmp_path / "m.png"), mask)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.95, 0.999])
def test_truncated_file(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "m.png"
    write_mask(path, three_objects(100, 100))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InputError, match=r"m\.png: .*(truncated|empty)"):
        read_label_png(path)


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    write_mask(path, three_objects())
    data = path.read_bytes()
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"m\.png"):
            read_label_png(path)


def test_pixels_missing_behind_valid_checksums(tmp_path: Path) -> None:
    rows = filtered_rows(three_objects(), 0)[:1000]
    (tmp_path / "m.png").write_bytes(png_bytes(rows, 50, 40, palette=PALETTE.tobytes()))
    with pytest.raises(InputError, match=r"m\.png: the PNG file is corrupt"):
        read_label_png(tmp_path / "m.png")


def test_absent_folder_and_other_formats(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.png: cannot read the mask \(No such file"):
        read_mask(tmp_path / "none.png")
    with pytest.raises(InputError, match="cannot read the mask"):
        read_mask(tmp_path)
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(InputError, match=r"text\.png: expected a mask image"):
        read_mask(tmp_path / "text.png")
    with pytest.raises(InputError, match=r"text\.png: expected a PNG file"):
        read_label_png(tmp_path / "text.png")


def test_read_label_png_interprets_nothing(tmp_path: Path) -> None:
    mask = three_objects()
    assert np.array_equal(read_label_png(save(tmp_path / "a.png", mask * 85)), mask * 85)
    with pytest.raises(InputError, match="in colour without a palette"):
        read_label_png(save(tmp_path / "b.png", PALETTE[mask]))
    with pytest.raises(InputError, match="16-bit values reach 900"):
        read_label_png(save(tmp_path / "c.png", mask.astype(np.uint16) * 300))
    assert np.array_equal(read_label_png(save(tmp_path / "d.png", mask.astype(np.uint16))), mask)


# What counts as a mask


def test_palette_indices_are_labels(tmp_path: Path) -> None:
    mask = three_objects()
    foreign = np.random.default_rng(0).integers(0, 256, (4, 3), dtype=np.uint8)
    for name, palette in (("pascal", PALETTE), ("foreign", foreign)):
        (tmp_path / f"{name}.png").write_bytes(indexed(mask, palette))
        assert np.array_equal(read_mask(tmp_path / f"{name}.png"), mask)


def test_void_beside_labels_stays_and_255_alone_is_the_object(tmp_path: Path) -> None:
    mask = three_objects()
    mask[30:32, 10:30] = 255
    (tmp_path / "void.png").write_bytes(indexed(mask))
    assert np.array_equal(read_mask(tmp_path / "void.png"), mask)
    assert np.array_equal(read_mask(save(tmp_path / "grey.png", mask)), mask)
    alone = np.where(mask == 1, 255, 0).astype(np.uint8)
    (tmp_path / "alone.png").write_bytes(indexed(alone))
    assert np.array_equal(read_mask(tmp_path / "alone.png"), mask == 1)
    assert np.array_equal(read_mask(save(tmp_path / "binary.png", alone)), mask == 1)


def test_palette_of_greys_is_read_as_greys(tmp_path: Path) -> None:
    white_first = np.array([[255] * 3, [0] * 3], np.uint8)
    (tmp_path / "a.png").write_bytes(indexed(1 - (three_objects() == 2).astype(np.uint8), white_first))
    assert np.array_equal(read_mask(tmp_path / "a.png"), three_objects() == 2)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    (tmp_path / "b.png").write_bytes(indexed(three_objects(), ramp))
    assert np.array_equal(read_mask(tmp_path / "b.png"), three_objects())
    (tmp_path / "c.png").write_bytes(indexed(anti_aliased(), ramp))
    with pytest.raises(
        InputError,
        match=r"c\.png: expected 0 and 255, or labels, but it has other grey values \(.* more\) in \d+ pixels",
    ):
        read_mask(tmp_path / "c.png")


@pytest.mark.parametrize("value", [1, 255])
def test_one_bit_and_bool(tmp_path: Path, value: int) -> None:
    mask = three_objects() == 2
    assert np.array_equal(read_mask(save(tmp_path / "m.png", mask.astype(np.uint8) * value)), mask)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in mask)
    (tmp_path / "bit.png").write_bytes(png_bytes(rows, 50, 40, color_type=0, depth=1))
    assert np.array_equal(read_mask(tmp_path / "bit.png"), mask)


@pytest.mark.parametrize("labels", [(1, 2, 3), (1, 5, 10), (50, 100, 150), (7, 7, 7), (254, 1, 253)])
def test_greyscale_labels(tmp_path: Path, labels: tuple[int, int, int]) -> None:
    mask = np.array([0, *labels], np.uint8)[three_objects()]
    assert np.array_equal(read_mask(save(tmp_path / "m.png", mask)), mask)


def test_tiny_object_with_a_small_label_is_kept(tmp_path: Path) -> None:
    mask = three_objects()
    mask[38, 2] = 4
    mask[38, 6:8] = 5
    assert np.array_equal(read_mask(save(tmp_path / "m.png", mask)), mask)


def test_anti_aliased_greyscale_names_the_stray_values(tmp_path: Path) -> None:
    mask = anti_aliased()
    stray = np.count_nonzero((mask > 0) & (mask < 255))
    smallest = ", ".join(str(v) for v in np.unique(mask)[1:7])
    with pytest.raises(InputError) as caught:
        read_mask(save(tmp_path / "soft.png", mask))
    assert f"soft.png: expected 0 and 255, or labels, but it has other grey values ({smallest}" in str(caught.value)
    assert f"more) in {stray} pixels" in str(caught.value)
    assert "threshold" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("peak", [40, 200, 254])
def test_soft_edges_below_255_are_noticed(tmp_path: Path, peak: int) -> None:
    mask = np.round(anti_aliased().astype(np.float32) * (peak / 255)).astype(np.uint8)
    with pytest.raises(InputError, match="expected 0 and 255, or labels"):
        read_mask(save(tmp_path / "soft.png", mask))


def test_few_levels_beside_255_are_refused(tmp_path: Path) -> None:
    mask = np.array([0, 128, 255, 255], np.uint8)[three_objects()]
    with pytest.raises(InputError, match=r"it has other grey values \(128\) in 150 pixels"):
        read_mask(save(tmp_path / "m.png", mask))
    hard = np.where(three_objects() == 2, 255, 0).astype(np.uint8)
    hard[20, 10:30] = 17
    with pytest.raises(InputError, match=r"it has other grey values \(17\) in 20 pixels"):
        read_mask(save(tmp_path / "m.png", hard))


def test_jpeg_mask(tmp_path: Path) -> None:
    hard = np.where(anti_aliased() >= 128, 255, 0).astype(np.uint8)
    with pytest.raises(InputError, match=r"m\.jpg: expected 0 and 255, or labels"):
        read_mask(save(tmp_path / "m.jpg", hard))
    assert np.array_equal(read_mask(save(tmp_path / "m.bmp", hard)), hard == 255)


@pytest.mark.parametrize("alpha", [False, True])
def test_colours_of_the_palette(tmp_path: Path, alpha: bool) -> None:
    mask = three_objects() * 11
    colors = PALETTE[mask]
    if alpha:
        opaque = np.where(mask == 33, 0, 255).astype(np.uint8)
        colors = np.dstack([colors, opaque])
        mask = np.where(mask == 33, 0, mask)
    assert np.array_equal(read_mask(save(tmp_path / "m.png", colors)), mask)


def test_grey_with_alpha_is_read_as_grey(tmp_path: Path) -> None:
    """A mask of DAVIS 2016 as published (bear/00077.png) is in grey and alpha."""
    mask = three_objects()
    grey = np.where(mask == 2, 255, 0).astype(np.uint8)
    for name, alpha in (("opaque", np.full_like(mask, 255)), ("clear", np.where(mask == 3, 0, 255).astype(np.uint8))):
        Image.fromarray(np.dstack([grey, alpha]), "LA").save(tmp_path / f"{name}.png")
        assert np.array_equal(read_label_png(tmp_path / f"{name}.png"), grey)
        assert np.array_equal(read_mask(tmp_path / f"{name}.png"), mask == 2)
    Image.fromarray(np.dstack([mask, np.where(mask == 3, 0, 255).astype(np.uint8)]), "LA").save(tmp_path / "cut.png")
    assert np.array_equal(read_mask(tmp_path / "cut.png"), np.where(mask == 3, 0, mask))  # transparent: background


def test_colour_black_and_white_and_grey(tmp_path: Path) -> None:
    mask = three_objects()
    for value in (1, 255):
        one = np.repeat(((mask == 2) * value).astype(np.uint8)[:, :, None], 3, axis=2)
        assert np.array_equal(read_mask(save(tmp_path / "m.png", one)), mask == 2)
    labels = np.repeat(mask[:, :, None], 3, axis=2)
    assert np.array_equal(read_mask(save(tmp_path / "m.png", labels)), mask)


def test_stray_colours_are_named(tmp_path: Path) -> None:
    colors = PALETTE[three_objects()].copy()
    colors[0, :5] = (10, 20, 30)
    colors[1, 0] = (255, 0, 0)
    with pytest.raises(InputError, match=r"it has other colours \(#0a141e, #ff0000\) in 6 pixels"):
        read_mask(save(tmp_path / "m.png", colors))
    colors = np.dstack([PALETTE[three_objects()], np.full((40, 50), 255, np.uint8)])
    colors[3, 3, 3] = 100
    with pytest.raises(InputError, match="partly transparent in 1 pixel"):
        read_mask(save(tmp_path / "m.png", colors))


def test_16_bits(tmp_path: Path) -> None:
    mask = three_objects()
    assert np.array_equal(read_mask(save(tmp_path / "a.png", mask.astype(np.uint16))), mask)
    assert np.array_equal(read_mask(save(tmp_path / "b.png", (mask == 3).astype(np.uint16) * 65535)), mask == 3)
    with pytest.raises(InputError, match=r"16-bit values: 1000, 2000, 3000"):
        read_mask(save(tmp_path / "c.png", mask.astype(np.uint16) * 1000))


def test_empty_mask(tmp_path: Path) -> None:
    empty = np.zeros((20, 30), np.uint8)
    for name, content in (("grey", empty), ("rgb", PALETTE[empty])):
        with pytest.raises(InputError, match=f"{name}.png: the mask is empty"):
            read_mask(save(tmp_path / f"{name}.png", content))
    write_mask(tmp_path / "index.png", empty)
    with pytest.raises(InputError, match="the mask is empty"):
        read_mask(tmp_path / "index.png")


def test_size(tmp_path: Path) -> None:
    mask = three_objects()
    path = tmp_path / "m.png"
    write_mask(path, mask)
    assert np.array_equal(read_mask(path, size=(40, 50)), mask)
    with pytest.raises(
        InputError, match=r"expected a mask of the frame's size, 100x80, but it is 50x40 .*--resize-mask"
    ):
        read_mask(path, size=(80, 100))
    doubled = read_mask(path, size=(80, 100), resize=True)
    assert np.array_equal(doubled, np.repeat(np.repeat(mask, 2, axis=0), 2, axis=1))
    assert np.array_equal(read_mask(path, size=(40, 50), resize=True), mask)
    tiny = np.zeros((40, 50), np.uint8)
    tiny[0, 0] = 1
    write_mask(path, tiny)
    with pytest.raises(InputError, match="empty after scaling it to 5x4"):
        read_mask(path, size=(4, 5), resize=True)


def test_labels_of() -> None:
    assert labels_of(np.array([[0, 3, 254], [255, 3, 1]], np.uint8)) == (1, 3, 254)
    assert labels_of(np.zeros((3, 2, 2), np.uint8)) == ()


@pytest.mark.real_data
def test_davis_annotations() -> None:
    root = os.environ.get("OSMN_DATA_ROOT")
    if not root:
        pytest.skip("OSMN_DATA_ROOT is not set")
    path = Path(root, "davis/Annotations/480p/bear/00000.png")
    raw = read_label_png(path)
    assert raw.shape == (480, 854)
    assert np.unique(raw).tolist() == [0, 255]
    assert np.array_equal(read_mask(path, size=(480, 854)), raw == 255)
