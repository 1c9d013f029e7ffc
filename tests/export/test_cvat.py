"""The tracking function for CVAT, driven as CVAT's agent does: with the SDK's own types, a shape at a time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import PIL.Image
import pytest

from osmn_tf.errors import InputError

sdk = pytest.importorskip("cvat_sdk.auto_annotation", reason="cvat-sdk is not installed: pip install 'osmn-tf[cvat]'")

from cvat_sdk.masks import decode_mask, encode_mask  # noqa: E402

from osmn_tf.client.cvat import MaskTracker, create, to_polygon  # noqa: E402
from osmn_tf.datasets.annotations.cvat import polygon_mask  # noqa: E402
from osmn_tf.datasets.examples import example_path  # noqa: E402
from osmn_tf.inference.segmenter import VideoSegmenter  # noqa: E402
from osmn_tf.masks.files import read_mask  # noqa: E402
from osmn_tf.video.source import open_source  # noqa: E402
from tests.jobs.drift import SIZE, Drift  # noqa: E402

HEIGHT, WIDTH = SIZE


class Context(sdk.TrackingFunctionShapeContext):
    def __init__(self, kind: str) -> None:
        self.kind = kind

    @property
    def original_shape_type(self) -> str:
        return self.kind


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 120, (HEIGHT, WIDTH, 3), np.uint8)
    frames = []
    for t in range(6):
        frame = ground.copy()
        frame[4:14, 5 + t : 15 + t], frame[20:28, 20:40] = (230, 200, 40), (40, 60, 220)
        frames.append(frame)
    return frames


def masks() -> tuple[np.ndarray, np.ndarray]:
    first, second = np.zeros((HEIGHT, WIDTH), bool), np.zeros((HEIGHT, WIDTH), bool)
    first[4:14, 5:15], second[20:28, 20:40] = True, True
    return first, second


def expected(frames: list[np.ndarray], inside: np.ndarray) -> Iterator[np.ndarray]:
    with VideoSegmenter(Drift()) as segmenter:
        for _, mask in segmenter.track(frames, inside.astype(np.uint8)):
            yield mask > 0


def shape_of(kind: str, inside: np.ndarray) -> sdk.TrackableShape:
    points = encode_mask(inside) if kind == "mask" else to_polygon(inside)
    return sdk.TrackableShape(type=kind, points=points)


@pytest.mark.parametrize("kind", ["mask", "polygon"])
def test_two_shapes_in_turns_are_tracked_as_two_videos(kind: str, frames) -> None:
    """The agent calls for one shape after the other on every frame; each has a state of its own."""
    tracker = MaskTracker(Drift())
    assert isinstance(tracker.spec, sdk.TrackingFunctionSpec)
    assert tracker.spec.supported_shape_types == {"mask", "polygon"}
    context = Context(kind)
    pictures = [tracker.preprocess_image(context, PIL.Image.fromarray(frame)) for frame in frames]
    states = [tracker.init_tracking_state(context, pictures[0], shape_of(kind, inside)) for inside in masks()]
    wanted = [list(expected(frames, inside)) for inside in masks()]
    assert not np.array_equal(wanted[0][1], wanted[1][1])
    for index in range(1, len(frames)):
        for state, true in zip(states, wanted):
            shape = tracker.track(context, pictures[index], state)
            if not true[index].any():
                assert shape is None
                continue
            assert isinstance(shape, sdk.TrackableShape)
            assert shape.type == kind
            if kind == "mask":
                found = decode_mask(shape.points, image_width=WIDTH, image_height=HEIGHT)
                np.testing.assert_array_equal(found, true[index])
            else:
                assert len(shape.points) >= 6
                assert all(isinstance(value, float) for value in shape.points)
                assert 0 <= min(shape.points) < max(shape.points) <= WIDTH


def test_polygons_are_outlines_within_a_pixel() -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    inside = (x - 24) ** 2 / 400 + (y - 16) ** 2 / 144 < 1
    again = polygon_mask(np.array(to_polygon(inside)).reshape(-1, 2), inside.shape)
    assert np.count_nonzero(again & inside) / np.count_nonzero(again | inside) > 0.95
    square = masks()[0]
    np.testing.assert_array_equal(polygon_mask(np.array(to_polygon(square)).reshape(-1, 2), square.shape), square)
    dot = np.zeros((HEIGHT, WIDTH), bool)
    dot[5, 7] = True
    np.testing.assert_array_equal(polygon_mask(np.array(to_polygon(dot)).reshape(-1, 2), dot.shape), dot)


def test_a_lost_object_is_no_shape(frames, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, context = MaskTracker(Drift()), Context("mask")
    state = tracker.init_tracking_state(context, frames[0], shape_of("mask", masks()[0]))
    monkeypatch.setattr(VideoSegmenter, "step", lambda self, frame: np.zeros(frame.shape[:2], np.uint8))
    assert tracker.track(context, frames[1], state) is None
    outside = sdk.TrackableShape(type="polygon", points=[-9.0, -9.0, -5.0, -9.0, -5.0, -5.0])
    with pytest.raises(InputError, match="received an empty one"):
        tracker.init_tracking_state(context, frames[0], outside)


def test_grey_pictures_become_three_channels() -> None:
    picture = PIL.Image.new("L", (WIDTH, HEIGHT), 7)
    assert MaskTracker(Drift()).preprocess_image(Context("mask"), picture).shape == (HEIGHT, WIDTH, 3)


def test_create_is_what_the_command_line_of_cvat_calls() -> None:
    """With the shipped preset: the mask is the segmenter's own."""
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    example = example_path()
    frames, mask = list(open_source(example / "meadow.mp4", end=2)), read_mask(example / "first_mask.png")
    inside = mask == 1
    tracker, context = create(preset="osmn_match_lite", engine="litert"), Context("mask")
    state = tracker.init_tracking_state(context, frames[0], shape_of("mask", inside))
    shape = tracker.track(context, frames[1], state)
    found = decode_mask(shape.points, image_width=mask.shape[1], image_height=mask.shape[0])
    with VideoSegmenter("osmn_match_lite", engine="litert") as segmenter:
        segmenter.start(frames[0], inside.astype(np.uint8))
        np.testing.assert_array_equal(found, segmenter.step(frames[1]) > 0)
    assert found.any()


def test_without_the_sdk() -> None:
    code = "import sys; sys.modules['cvat_sdk'] = None\n"
    code += "try: import osmn_tf.client.cvat\nexcept ImportError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "osmn-tf[cvat]" in done.stdout
