from __future__ import annotations

import numpy as np
import pytest

from osmn_tf import augment
from osmn_tf.errors import InputError
from osmn_tf.masks.prompts import CLICK_RADIUS, box_remark, check_clicks, discs, ellipse, parse_box, parse_clicks


def test_parse_box() -> None:
    assert parse_box("10,20,30,40") == (10, 20, 30, 40)
    assert parse_box(" 10, 20, 30, 40") == (10, 20, 30, 40)
    assert parse_box("-5,0,30,40") == (-5, 0, 30, 40)
    for text in ("", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1.5,2,3,4", "1 2 3 4"):
        with pytest.raises(InputError, match="box: expected X,Y,W,H in whole pixels, like 120,80,200,150, received"):
            parse_box(text)
    with pytest.raises(InputError, match="width and height of 1 or more, received '1,2,0,4'"):
        parse_box("1,2,0,4")


def test_parse_clicks() -> None:
    assert parse_clicks("10,20") == ((10, 20),)
    assert parse_clicks("10,20+ 30,40") == ((10, 20), (30, 40))
    for text in ("", "1", "1,2,3", "1,2+", "1,2;3,4", "a,b", "1.5,2"):
        with pytest.raises(InputError, match=r"click: expected X,Y or X,Y\+X,Y in whole pixels, like"):
            parse_clicks(text)


def test_the_ellipse_touches_the_sides_of_its_box() -> None:
    shape = ellipse((10, 20, 40, 30), (60, 70))
    rows, columns = np.nonzero(shape)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (10, 49, 20, 49)
    assert shape.sum() == pytest.approx(np.pi / 4 * 40 * 30, rel=0.02)
    np.testing.assert_array_equal(shape[20:50, 10:50], shape[20:50, 10:50][::-1, ::-1])


def test_discs_are_as_large_as_in_training() -> None:
    assert CLICK_RADIUS == augment.CLICK_RADIUS
    shape = discs([(30, 40), (70, 40)], (100, 120))
    assert shape[40, 30 + 4]
    assert not shape[40, 30 + 5]
    assert shape[40, 70 - 4]
    assert shape.sum() == 2 * discs([(30, 40)], (100, 120)).sum()
    assert discs([(3, 4)], (10, 10)).sum() == 13  # a radius of two pixels at least


def test_clicks_outside_and_none() -> None:
    check_clicks([(0, 0), (199, 119)], (120, 200))
    with pytest.raises(InputError, match=r"clicks: expected at least one \(x, y\) on the object"):
        check_clicks([], (120, 200))
    for click in ((-1, 5), (200, 5), (5, 120)):
        with pytest.raises(InputError, match="expected a point inside the frame of 200x120 pixels"):
            check_clicks([(1, 1), click], (120, 200))


def test_a_box_that_is_as_good_as_all_of_the_frame_is_remarked_on() -> None:
    assert box_remark((0, 0, 200, 94), (100, 200)) is None
    assert "box 0,5,200,95: it is 95 % of the frame" in str(box_remark((0, 5, 200, 95), (100, 200)))
    found = box_remark((0, 0, 200, 100), (100, 200))
    assert found is not None
    assert found.startswith(
        "box 0,0,200,100: it is 100 % of the frame, so nothing outside of it says what the background"
    )
    assert "\n" not in found
