from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from osmn_tf import InputError
from osmn_tf.masks import drawing as overlay
from osmn_tf.masks.contact_sheet import ContactSheet, contact_sheet
from osmn_tf.masks.drawing import draw_overlay, write_image
from osmn_tf.masks.matting import cutout


def grey(height: int = 90, width: int = 160, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def square(label: int = 1, height: int = 90, width: int = 160) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[30:60, 40:90] = label
    return mask


def test_colours_are_mixed_by_the_opacity() -> None:
    drawn = draw_overlay(grey(), square(), opacity=0.5, contour=False)
    assert drawn.dtype == np.uint8
    assert drawn[45, 60].tolist() == [140, 50, 50]  # half of 100, half of the first colour, (179, 0, 0)
    assert np.all(drawn[square() == 0] == 100)
    assert np.array_equal(draw_overlay(grey(), square(), opacity=0, contour=False), grey())
    assert draw_overlay(grey(), square(2), opacity=1, contour=False)[45, 60].tolist() == [0, 179, 0]


def test_input_stays_as_it_is() -> None:
    """Also where the objects fill the whole frame, so that nothing is cropped."""
    frame, mask = grey(), np.ones((90, 160), np.uint8)
    draw_overlay(frame, mask)
    assert np.all(frame == 100)
    assert np.all(mask == 1)


def test_contour_is_light_inside_and_dark_outside() -> None:
    drawn = draw_overlay(grey(), square())
    assert drawn[45, 39].tolist() == [40, 40, 40]
    assert drawn[45, 40, 0] > drawn[45, 60, 0] > 100
    assert drawn[45, 37].tolist() == [100, 100, 100]
    assert draw_overlay(grey(1200, 1600), cv2.resize(square(), (1600, 1200)))[600, 396].tolist() == [40, 40, 40]


def test_border_between_two_objects_is_drawn() -> None:
    mask = square()
    mask[30:60, 65:90] = 2
    drawn = draw_overlay(grey(), mask)
    assert drawn[45, 64, 0] > drawn[45, 55, 0]
    assert drawn[45, 65, 1] > drawn[45, 75, 1]


def test_void_and_empty_masks_draw_nothing() -> None:
    assert np.array_equal(draw_overlay(grey(), np.zeros((90, 160), np.uint8)), grey())
    assert np.array_equal(draw_overlay(grey(), square(255)), grey())


def test_labels_keep_distinct_colours() -> None:
    assert len({tuple(color) for color in overlay._COLORS[:255].tolist()}) == 255


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (480, 854), (7, 500)])
def test_other_sizes(shape: tuple[int, int]) -> None:
    frame = np.zeros((*shape, 3), np.uint8)
    assert draw_overlay(frame, np.ones(shape, np.uint8)).shape == frame.shape


def test_arguments() -> None:
    with pytest.raises(
        InputError, match=r"mask: expected uint8 \[90, 160\] like the frame, received uint8 \[90, 161\]"
    ):
        draw_overlay(grey(), np.zeros((90, 161), np.uint8))
    with pytest.raises(InputError, match=r"frame: expected uint8 \[H, W, 3\], received float64"):
        draw_overlay(grey() / 255, square())
    with pytest.raises(InputError, match=r"opacity: expected 0\.\.1, received 1\.5"):
        draw_overlay(grey(), square(), opacity=1.5)


def test_cutout(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(1, 256, (90, 160, 3), dtype=np.uint8)
    mask = square(3)
    mask[0:5] = 7
    result = cutout(frame, mask == 3)
    inside = mask == 3
    assert result.shape == (90, 160, 4)
    assert np.array_equal(result[..., :3][inside], frame[inside])
    assert np.all(result[..., 3] == inside * 255)
    assert not np.any(result[~inside])
    write_image(tmp_path / "c.png", result)
    assert np.array_equal(cv2.imread(str(tmp_path / "c.png"), cv2.IMREAD_UNCHANGED)[..., [2, 1, 0, 3]], result)


def test_write_image(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 16, 3), dtype=np.uint8)
    write_image(tmp_path / "a.png", image)
    assert np.array_equal(cv2.imread(str(tmp_path / "a.png"))[..., ::-1], image)
    with pytest.raises(InputError, match=r"a\.xyz: expected a file name that ends in"):
        write_image(tmp_path / "a.xyz", image)
    with pytest.raises(InputError, match="image: expected uint8"):
        write_image(tmp_path / "b.png", image[..., :2])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    write_image(tmp_path / "grey.png", image[..., 0])
    assert np.array_equal(cv2.imread(str(tmp_path / "grey.png"), cv2.IMREAD_UNCHANGED), image[..., 0])


# Contact sheets


class Recorder(ContactSheet):
    """Remembers in the tiles' corner which frame they show."""

    drawn = 0

    def _draw(self, frame: np.ndarray, mask: np.ndarray, title: str, *, given: bool = False) -> np.ndarray:
        self.drawn += 1
        tile = super()._draw(frame, mask, title, given=given)
        tile[-1, -1] = (int(title.split()[0]) >> 8, int(title.split()[0]) & 255, given)
        return tile


def shown(sheet: Recorder, tile: tuple[int, int], columns: int) -> list[int]:
    """Numbers of the frames on the sheet."""
    image = sheet.image()
    height, width = tile
    gap = 2
    rows = (image.shape[0] - gap) // (height + gap)
    corners = [
        image[(row + 1) * (height + gap) - 1, (column + 1) * (width + gap) - 1]
        for row in range(rows)
        for column in range(columns)
    ]
    return [int(corner[0]) << 8 | int(corner[1]) for corner in corners if corner[2] < 2]


@pytest.mark.parametrize("count", [1, 5, 12, 13, 47, 200, 1000, 3001])
@pytest.mark.parametrize("given", [0, 3, None])
def test_sheet_shows_evenly_spaced_frames(count: int, given: int | None) -> None:
    frame, mask = grey(18, 32), np.zeros((18, 32), np.uint8)
    columns = min(4, count)
    sheet = Recorder(tiles=12, columns=4, tile_width=64)
    for index in range(count):
        sheet.add(frame, mask, given=index == given)
        assert len(sheet._kept) <= 49
    numbers = shown(sheet, (36, 64), columns)
    assert numbers == sorted(set(numbers))
    assert len(numbers) == min(12, count)
    assert numbers[-1] == count - 1
    if given is not None and given < count:
        assert given in numbers
    if given != 3:
        assert numbers[0] == 0
        steps = np.diff(numbers)
        if count > 12:
            assert steps.max() <= 1.3 * (count - 1) / 11 + 1
            assert steps.min() >= 0.7 * (count - 1) / 11 - 1
    # Most frames of a long video are never drawn.
    assert sheet.drawn <= min(count, 50 + 25 * np.log2(count + 1)) + 2


def test_sheet_layout_and_marks() -> None:
    frames = [grey(90, 160, 60)] * 7
    masks = [square()] * 7
    image = contact_sheet(frames, masks, tiles=6, columns=3, tile_width=160, given=2)
    assert image.shape == (2 * 92 + 2, 3 * 162 + 2, 3)
    assert np.all(image[:2] == 255)
    yellow = np.all(image == (255, 200, 0), axis=-1)
    ys, xs = np.nonzero(yellow)
    assert (ys.max() - ys.min(), xs.max() - xs.min()) == (89, 159), "one tile is framed"
    plain = contact_sheet(frames, masks, tiles=6, columns=3, tile_width=160, given=None)
    assert not np.any(np.all(plain == (255, 200, 0), axis=-1))


def test_a_title_that_is_no_utf_8() -> None:
    """In a process of its own: it was a segmentation fault."""
    code = (
        "import numpy as np; from osmn_tf.masks.contact_sheet import ContactSheet; sheet = ContactSheet();"
        "sheet.add(np.zeros((90, 160, 3), np.uint8), np.zeros((90, 160), np.uint8), 'caf\\udce9'); sheet.image()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_titles_of_upright_pictures_fit() -> None:
    sheet = ContactSheet(tiles=1, columns=1, tile_width=160)
    sheet.add(np.full((320, 180, 3), 200, np.uint8), np.zeros((320, 180), np.uint8), "00000 given")
    beside = sheet.image()[8, 2:-2]  # within the margins, on the left of and above the letters
    assert (beside[:5] == 50).all()
    assert (beside[-5:] == 200).all()


def test_sheet_arguments() -> None:
    with pytest.raises(InputError, match="contact sheet: expected at least one frame"):
        contact_sheet([], [])
    with pytest.raises(InputError, match="columns: expected 1 or more, received 0"):
        ContactSheet(columns=0)
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is shorter"):
        contact_sheet([grey()] * 2, [square()])
