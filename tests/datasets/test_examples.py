from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from osmn_tf.datasets.examples import example_path, list_examples
from osmn_tf.datasets.index import decode_mask
from osmn_tf.errors import InputError
from osmn_tf.masks.labels import labels_of
from osmn_tf.video.source import read_video


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "tools" / "make_example.py"
    spec = importlib.util.spec_from_file_location("make_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "make_example", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def areas() -> np.ndarray:
    """Pixels of objects 1..3 in every frame, int [60, 3]."""
    paths = sorted((example_path() / "masks").glob("*.png"))
    assert [path.name for path in paths] == [f"{i:05d}.png" for i in range(60)]
    return np.array([np.bincount(decode_mask(path).ravel(), minlength=4)[1:4] for path in paths])


def test_names() -> None:
    assert list_examples() == ["meadow"]
    assert example_path("meadow") == example_path()
    with pytest.raises(InputError, match="no example 'beach'; there are: meadow"):
        example_path("beach")


def test_video_and_masks_belong_together() -> None:
    frames = list(read_video(example_path() / "meadow.mp4"))
    assert len(frames) == 60
    assert {frame.shape for frame in frames} == {(480, 854, 3)}
    first = decode_mask(example_path() / "first_mask.png")
    np.testing.assert_array_equal(first, decode_mask(example_path() / "masks" / "00000.png"))
    assert labels_of(first) == (1, 2, 3)
    # The car is red, the bird is yellow, in the first frame and in the last.
    for i in (0, 59):
        mask = decode_mask(example_path() / "masks" / f"{i:05d}.png")
        red, green, blue = np.median(frames[i][mask == 1], axis=0)
        assert red > 120 > 90 > max(green, blue)
        red, green, blue = np.median(frames[i][mask == 3], axis=0)
        assert min(red, green) > 105 > 80 > blue


def test_what_the_readme_says_happens() -> None:
    car, ball, bird = areas().T
    np.testing.assert_array_equal(np.flatnonzero(bird == 0), np.arange(27, 38))
    assert min(bird[0], bird[59]) > 3000
    behind = np.flatnonzero(car < 0.996 * np.median(car[:25]))
    assert (behind[0], behind[-1]) == (29, 56)
    assert car.min() < 0.92 * car.max()
    assert ball.min() > 0.95 * ball.max()  # always in front


def test_shipped_files_are_what_the_tool_draws(tool: ModuleType) -> None:
    scene = tool.Scene()
    for i, shown in enumerate(read_video(example_path() / "meadow.mp4")):
        if i in (0, 40):
            frame, mask = scene.render(i)
            assert (mask != decode_mask(example_path() / "masks" / f"{i:05d}.png")).mean() < 1e-4
            assert np.abs(frame.astype(int) - shown).mean() < 5  # compression


def test_small_enough_to_ship() -> None:
    assert (example_path() / "meadow.mp4").stat().st_size < 1.5e6
    assert sum(path.stat().st_size for path in (example_path() / "masks").glob("*")) < 5e5
