"""Masks that come from files of annotations, as CVAT exports them: which frames they are of, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from osmn_tf.datasets.annotations import Annotations, write_annotations
from osmn_tf.errors import InputError
from osmn_tf.jobs import given
from osmn_tf.jobs.given import given_objects
from osmn_tf.jobs.many import run_here, segment_many
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.jobs.rows import columns_of, options_of, read_table
from osmn_tf.masks.files import read_label_png, write_mask
from osmn_tf.video.source import open_source
from osmn_tf.video.writer import write_video
from tests.jobs.drift import LENGTH, SIZE, options_for, run

TRACK = """<annotations><version>1.1</version>
 <meta><task><start_frame>{start}</start_frame><stop_frame>9</stop_frame>
  <original_size><width>{width}</width><height>{height}</height></original_size></task></meta>
 <track id="0" label="dog">
  <polygon frame="4" keyframe="1" outside="0" points="5,4;15,4;15,10;5,10"/>
  <polygon frame="5" keyframe="0" outside="0" points="6,4;16,4;16,10;6,10"/>
  <polygon frame="6" keyframe="1" outside="0" points="7,4;17,4;17,10;7,10"/>
  <polygon frame="7" keyframe="1" outside="1" points="7,4;17,4;17,10;7,10"/>
 </track>
</annotations>"""


def two_objects() -> dict[int, np.ndarray]:
    return {int(number): np.asarray(mask) for number, mask in options_for(Path(), Path()).masks.items()}


def masks_in(folder: Path) -> list[np.ndarray]:
    return [read_label_png(path) for path in sorted(folder.glob("*.png"))]


def track(path: Path, start: int = 0, size: tuple[int, int] = SIZE) -> Path:
    path.write_text(TRACK.format(start=start, width=size[1], height=size[0]))
    return path


@pytest.mark.parametrize("name", ["a.xml", "images.xml", "a.json", "a.zip"])
def test_every_annotated_frame_is_given(name: str, frames: Path, tmp_path: Path) -> None:
    """The results are those of a mask for each of them, in a folder whose frames are known by their names."""
    settings = {"both_ways": True, "outputs": {}, "finetune": None}
    run(options_for(frames, tmp_path / "expected", **settings))
    kind = "cvat-images" if name == "images.xml" else None
    write_annotations(Annotations(SIZE, two_objects(), length=LENGTH), tmp_path / name, kind)
    given = options_for(frames, tmp_path / "out", masks={}, annotations=tmp_path / name, **settings)
    assert run(given).frames == LENGTH
    for mask, expected in zip(masks_in(tmp_path / "out/frames"), masks_in(tmp_path / "expected/frames"), strict=True):
        np.testing.assert_array_equal(mask, expected)
    assert run(given).already_done
    # The same masks of another file are the same command.
    write_annotations(Annotations(SIZE, two_objects(), length=LENGTH), tmp_path / "other.json")
    assert run(
        options_for(frames, tmp_path / "out", masks={}, annotations=tmp_path / "other.json", **settings)
    ).already_done


def given_frames(options: SegmentOptions) -> dict[int, np.ndarray]:
    """Frame -> mask, of those that the job takes from its files."""
    source = open_source(options.video, start=options.start, end=options.end, every=options.every)
    return {source.number(index): mask for index, mask in given_objects(options, source).masks.items()}


def test_key_frames_of_the_selection_count(frames: Path, tmp_path: Path) -> None:
    """What CVAT puts between key frames nobody has drawn; numbers are the video's, also of a task that begins later."""
    for start in (0, 4):
        path = track(tmp_path / "a.xml", start)
        found = given_frames(SegmentOptions(frames, annotations=path))
        assert list(found) == [4, 6]
        assert (found[4][5, 5], found[6][5, 5], found[6][5, 16]) == (1, 0, 1)
    assert list(given_frames(SegmentOptions(frames, annotations=path, start=5))) == [6]
    assert list(given_frames(SegmentOptions(frames, annotations=path, end=6))) == [4]
    assert list(given_frames(SegmentOptions(frames, annotations=path, every=4))) == [4]
    assert list(given_frames(SegmentOptions(frames, {6: path}))) == [6]
    mask = np.full(SIZE, 3, np.uint8)
    assert list(given_frames(SegmentOptions(frames, {0: mask}, annotations=path))) == [0, 4, 6]
    larger = track(tmp_path / "b.xml", size=(2 * SIZE[0], 2 * SIZE[1]))
    found = given_frames(SegmentOptions(frames, annotations=larger, resize_mask=True))
    assert list(found) == [4, 6]
    assert (found[4].shape, found[4][3, 4], found[4][7, 4]) == (SIZE, 1, 0)


def frames_with(folder: Path, label: int = 1) -> list[int]:
    return [index for index, mask in enumerate(masks_in(folder)) if (mask == label).any()]


def test_an_object_is_gone_where_its_track_is_outside(frames: Path, tmp_path: Path) -> None:
    """From there to its next shape, also backwards; what is said beside the file goes first."""
    path = track(tmp_path / "a.xml")
    one = np.zeros(SIZE, np.uint8)
    one[4:10, 5:15] = 1
    run(SegmentOptions(frames, annotations=path, out=tmp_path / "end"))
    assert frames_with(tmp_path / "end/frames") == [4, 5, 6]
    run(SegmentOptions(frames, annotations=path, ends={1: 9}, out=tmp_path / "until"))
    assert frames_with(tmp_path / "until/frames") == [4, 5, 6, 7, 8]
    run(SegmentOptions(frames, {8: one}, annotations=path, out=tmp_path / "again"))
    assert frames_with(tmp_path / "again/frames") == [4, 5, 6, 8, 9]
    # Frames 4, 6 and 8: what is outside from 7 on is not in frame 8.
    run(SegmentOptions(frames, annotations=path, every=2, out=tmp_path / "every"))
    assert frames_with(tmp_path / "every/frames") == [2, 3]
    late = TRACK.format(start=0, width=SIZE[1], height=SIZE[0]).replace(
        '  <polygon frame="4"',
        '  <polygon frame="2" keyframe="1" outside="1" points="5,4;15,4;15,10"/>\n  <polygon frame="4"',
    )
    path.write_text(late)
    run(SegmentOptions(frames, annotations=path, both_ways=True, out=tmp_path / "both"))
    assert frames_with(tmp_path / "both/frames") == [0, 1, 4, 5, 6]
    path.write_text(
        late.replace('frame="7"', 'frame="5"').replace(
            '<polygon frame="5" keyframe="0"', '<polygon frame="9" keyframe="1"'
        )
    )
    run(SegmentOptions(frames, annotations=path, out=tmp_path / "gap"))
    assert frames_with(tmp_path / "gap/frames") == [4, 6, 7, 8, 9]


def test_a_track_of_one_shape_ends_where_it_is_outside_later(frames: Path, tmp_path: Path) -> None:
    path = track(tmp_path / "a.xml")
    text = path.read_text()
    path.write_text("".join(line for line in text.splitlines() if 'frame="5"' not in line and 'frame="6"' not in line))
    run(SegmentOptions(frames, annotations=path, out=tmp_path / "end"))
    assert frames_with(tmp_path / "end/frames") == [4, 5, 6]


def test_a_mask_of_cvat_says_nothing_of_what_follows(frames: Path, tmp_path: Path) -> None:
    """CVAT writes a mask as a track of one frame that is outside in the next."""
    write_annotations(Annotations(SIZE, {0: two_objects()[0]}, length=LENGTH), tmp_path / "a.xml", "cvat")
    run(SegmentOptions(frames, annotations=tmp_path / "a.xml", out=tmp_path / "out"))
    assert all(mask.any() for mask in masks_in(tmp_path / "out/frames"))


def test_boxes_of_tracks_get_masks(frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A polygon goes before a box; boxes of the command line get labels behind those of the file."""
    asked: list[tuple] = []

    def make(frame: np.ndarray, *boxes: tuple[int, int, int, int]) -> np.ndarray:
        mask = np.zeros(frame.shape[:2], np.uint8)
        for label, (x, y, width, height) in enumerate(boxes, 1):
            mask[y : y + height, x : x + width] = label
        asked.append(boxes)
        return mask

    monkeypatch.setattr(given, "mask_from_box", make)
    path = track(tmp_path / "a.xml")
    box = '<box frame="{}" keyframe="{}" outside="0" xtl="{}" ytl="4" xbr="{}" ybr="10"/>'
    boxes = box.format(4, 1, 13, 25) + box.format(5, 0, 14, 26) + box.format(8, 1, 20, 30)
    path.write_text(path.read_text().replace("</track>", f'</track><track id="6" label="cat">{boxes}</track>'))
    found = given_frames(SegmentOptions(frames, annotations=path))
    assert list(found) == [4, 6, 8]
    assert asked == [((13, 4, 12, 6),), ((20, 4, 10, 6),)]
    assert found[4][5].tolist() == [0] * 5 + [1] * 10 + [7] * 10 + [0] * (SIZE[1] - 25)
    assert set(np.unique(found[8])) == {0, 7}
    found = given_frames(SegmentOptions(frames, {8: path}, boxes={0: [(1, 1, 5, 5)]}))
    assert {number: set(np.unique(mask)) for number, mask in found.items()} == {0: {0, 8}, 8: {0, 7}}
    larger = (2 * SIZE[0], 2 * SIZE[1])
    path.write_text(
        TRACK.format(start=0, width=larger[1], height=larger[0]).split("<polygon")[0]
        + '<box frame="3" outside="0" xtl="10" ytl="4" xbr="30" ybr="20"/></track></annotations>'
    )
    found = given_frames(SegmentOptions(frames, annotations=path, resize_mask=True))
    assert list(found) == [3]
    assert asked[-1] == ((5, 2, 10, 8),)
    outcome = run(SegmentOptions(frames, annotations=path, resize_mask=True, out=tmp_path / "out"))
    assert [title for title, _ in outcome.results if "first mask" in title] == ["first mask"]
    monkeypatch.setattr(given, "mask_from_box", lambda frame, *boxes: np.zeros(frame.shape[:2], np.uint8))
    with pytest.raises(InputError, match="--mask, frame 3: the other objects cover all of object 1, which has a box"):
        given_frames(SegmentOptions(frames, annotations=path, resize_mask=True))


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        (TRACK.format(start=0, width=90, height=70), {}, r"--mask .*a\.xml: expected annotations of the video's size"),
        (TRACK.format(start=0, width=SIZE[1], height=SIZE[0])[:400], {}, r"a\.xml: no XML"),
        (TRACK.format(start=0, width=SIZE[1], height=SIZE[0])[:200] + "</annotations>", {}, r"a\.xml: "),
        ("", {}, r"a\.xml: no XML"),
        (TRACK.replace("</track>", "").split("<track")[0] + "</annotations>", {}, "it has no object in any frame"),
        (TRACK.replace('frame="6"', 'frame="60"'), {}, "for frame 60, but the selection has 10 frames"),
        (TRACK, {"start": 7}, r"no annotated frame \(it has 4, 6\) is among those selected"),
        (TRACK, {"masks": {4: np.ones(SIZE, np.uint8)}}, r"a\.xml: frame 4 has a mask already"),
        (TRACK, {"masks": {5: "a.xml"}, "annotations": None}, r"--mask 5:a\.xml: expected an annotated frame, "),
        (None, {}, "there is no such file"),
    ],
)  # fmt: skip
def test_what_is_refused(
    content: str | None, settings: dict, message: str, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("a.xml").write_text(content.format(start=0, width=SIZE[1], height=SIZE[0]))
    with pytest.raises(InputError, match=message) as caught:
        run(SegmentOptions(frames, **{"annotations": tmp_path / "a.xml", "out": tmp_path / "out", **settings}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_detector_s_results_are_no_annotations(frames: Path, tmp_path: Path) -> None:
    for text in (
        '[{"image_id": 1, "score": 0.5}]',
        '{"images": [{"id": 1, "height": 9, "width": 9}], "annotations": [{}]}',
    ):
        (tmp_path / "found.json").write_text(text)
        with pytest.raises(InputError, match=r"found\.json: .*no COCO file of one video"):
            run(SegmentOptions(frames, annotations=tmp_path / "found.json", out=tmp_path / "out"))


def test_a_column_of_a_table(frames: Path, tmp_path: Path) -> None:
    """One video by its own annotations beside one with a mask, from a table and back to columns."""
    write_video(tmp_path / "clip.mp4", list(open_source(frames)), 10)
    track(tmp_path / "clip.xml")
    write_mask(tmp_path / "clip.png", two_objects()[0])
    with open(tmp_path / "jobs.csv", "w", newline="") as file:
        lines = [["video", "mask", "overlay", "sheet", "out"], ["clip.mp4", "clip.xml", "no", "no", "xml"]]
        csv.writer(file).writerows([*lines, ["clip.mp4", "clip.png; 4:clip.xml", "no", "no", "both"]])
    first, second = read_table(tmp_path / "jobs.csv", tmp_path / "out", {"mask": ["{name}.json"]})
    assert (first.options.annotations, first.options.masks) == (str(tmp_path / "clip.xml"), {})
    assert second.options.masks == {0: str(tmp_path / "clip.png"), 4: str(tmp_path / "clip.xml")}
    for row in (first, second):
        again = options_of(columns_of(row.options), tmp_path)
        assert (again.annotations, again.masks) == (row.options.annotations, row.options.masks)
    (tmp_path / "bad.csv").write_text("video,mask\nclip.mp4,clip.xml; clip.json\n")
    with pytest.raises(InputError, match=r"row 1: --mask .*clip\.json: expected one file of annotations, received "):
        read_table(tmp_path / "bad.csv", tmp_path / "out")
    (tmp_path / "gone.csv").write_text("video,mask\nclip.mp4,gone.xml\n")
    with pytest.raises(InputError, match=r"row 1: there is no .*gone\.xml"):
        read_table(tmp_path / "gone.csv", tmp_path / "out")
    assert segment_many([first], run_here(1)).done == 1
    found = masks_in(tmp_path / "out/xml/clip")
    assert len(found) == LENGTH
    assert not np.any(found[:4])
    for number, mask in given_frames(first.options).items():
        np.testing.assert_array_equal(found[number], mask)
    # What is in the file counts, not its name.
    track(tmp_path / "clip.xml", size=SIZE).write_text((tmp_path / "clip.xml").read_text().replace("17,4", "19,4"))
    assert segment_many(read_table(tmp_path / "jobs.csv", tmp_path / "out")[:1], run_here(1)).before == 0
