"""Annotation files: every format there and back, what other tools make of them, and damaged ones."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from osmn_tf.cli.main import main
from osmn_tf.datasets.annotations import Annotations, archives, read_annotations, write_annotations
from osmn_tf.datasets.annotations.cvat import fill_runs, polygon_mask, runs_of
from osmn_tf.errors import InputError
from osmn_tf.masks.coco import TrackWriter
from osmn_tf.masks.files import read_label_png

SIZE = (36, 50)


def video() -> Annotations:
    """Six frames: object 2 is in all, 7 comes in frame 1, is hidden in frame 2, and leaves behind frame 3."""
    masks = {}
    for index in range(5):
        mask = np.zeros(SIZE, np.uint8)
        mask[5:15, 2 + 3 * index : 14 + 3 * index] = 2
        mask[8:10, 5 + 3 * index] = 0  # a hole
        if index in (1, 3):
            mask[20:30, 10:40] = 7
            mask[0, 49] = 7
        masks[index] = mask
    return Annotations(SIZE, masks, names={2: "dog", 7: "cat & mouse"}, length=6)


def same(first: Annotations, second: Annotations) -> bool:
    return first.masks.keys() == second.masks.keys() and all(
        np.array_equal(first.masks[index], second.masks[index]) for index in first.masks
    )


@pytest.mark.parametrize("name", ["a.xml", "images.xml", "a.json", "a.zip", "mots", "masks"])
def test_there_and_back(name: str, tmp_path: Path) -> None:
    before = video()
    write_annotations(before, tmp_path / name, {"mots": "mots", "images.xml": "cvat-images"}.get(name))
    after = read_annotations(tmp_path / name)
    assert same(before, after)
    assert after.length == (6 if name.endswith((".xml", ".json")) else 5)
    if name != "masks":
        assert (after.name(2), after.name(7)) == ("dog", "cat & mouse")
    # And once more, in every other format.
    for other in ("b.xml", "b.json", "b.zip", "b"):
        write_annotations(after, tmp_path / other)
        again = read_annotations(tmp_path / other)
        assert all(np.array_equal(again.masks[index], mask) for index, mask in before.masks.items())


def test_runs_are_those_of_cvat_s_own_sdk() -> None:
    masks = pytest.importorskip("cvat_sdk.masks", reason="cvat-sdk is not installed: pip install 'osmn-tf[cvat]'")
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (3, 7), (36, 50)):
        inside = rng.random(shape) > 0.6
        inside.flat[0] = True
        lengths, (left, top, width, height) = runs_of(inside)
        assert [*lengths, left, top, left + width - 1, top + height - 1] == masks.encode_mask(inside)
        np.testing.assert_array_equal(fill_runs(lengths, (left, top, width, height), shape), inside)


def test_cvat_decodes_every_shape(tmp_path: Path) -> None:
    """With its SDK, from the attributes that its importer makes the points of."""
    masks = pytest.importorskip("cvat_sdk.masks", reason="cvat-sdk is not installed: pip install 'osmn-tf[cvat]'")
    write_annotations(video(), tmp_path / "a.xml")
    root = ElementTree.parse(tmp_path / "a.xml").getroot()
    assert [label.text for label in root.findall("meta/task/labels/label/name")] == ["dog", "cat & mouse"]
    seen = 0
    for track in root.findall("track"):
        label, shown = int(track.attrib["group_id"]), []
        assert track.attrib["label"] == video().name(label)
        # Of a track of masks CVAT takes the first shape, and shows it until one is outside.
        for shape in track.findall("mask"):
            assert set(shape.attrib) == {
                "frame", "keyframe", "outside", "occluded", "rle", "left", "top", "width", "height", "z_order"
            }  # fmt: skip
            index = int(shape.attrib["frame"])
            shown.append((index, shape.attrib["outside"]))
            left, top, width, height = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
            points = [int(part) for part in shape.attrib["rle"].split(",")]
            points += [left, top, left + width - 1, top + height - 1]
            decoded = masks.decode_mask(points, image_width=SIZE[1], image_height=SIZE[0])
            if len(shown) == 1:
                np.testing.assert_array_equal(decoded, video().masks[index] == label)
                seen += 1
        assert shown == [(shown[0][0], "0"), (shown[0][0] + 1, "1")]
    assert seen == 7


def test_pycocotools_decodes_the_coco_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_annotations(video(), tmp_path / "a.json")
    coco = COCO(str(tmp_path / "a.json"))
    assert {category["name"] for category in coco.loadCats(coco.getCatIds())} == {"dog", "cat & mouse"}
    for index, mask in video().masks.items():
        for entry in coco.loadAnns(coco.getAnnIds(imgIds=[index + 1])):
            inside = mask == entry["attributes"]["track_id"]
            np.testing.assert_array_equal(coco.annToMask(entry), inside)
            assert entry["area"] == inside.sum()


def test_mots_pixels_are_class_and_object(tmp_path: Path) -> None:
    write_annotations(video(), tmp_path / "mots", "mots")
    pixels = cv2.imread(str(tmp_path / "mots/instances/00001.png"), cv2.IMREAD_UNCHANGED)
    assert pixels.dtype == np.uint16
    assert set(np.unique(pixels)) == {0, 1002, 2007}
    assert (tmp_path / "mots/instances/labels.txt").read_text() == "dog\ncat & mouse\n"


def test_what_cvat_exports(tmp_path: Path) -> None:
    """Ids from 0, no groups, polygons, another start, shapes between key frames, in an archive."""
    text = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
 <meta><task><start_frame>10</start_frame><stop_frame>12</stop_frame>
  <original_size><width>50</width><height>36</height></original_size></task><dumped>now</dumped></meta>
 <track id="0" label="dog" source="manual">
  <polygon frame="10" keyframe="1" outside="0" occluded="0" points="10.00,5.00;20.00,5.00;20.00,15.00;10.00,15.00" z_order="0"/>
  <polygon frame="11" keyframe="0" outside="0" occluded="0" points="11.00,5.00;21.00,5.00;21.00,15.00;11.00,15.00" z_order="2"/>
 </track>
 <track id="1" label="cat" source="manual">
  <mask frame="11" keyframe="1" outside="0" occluded="0" rle="0, 100" left="15" top="10" width="10" height="10" z_order="1"/>
 </track>
</annotations>"""  # noqa: E501
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        archive.writestr("annotations.xml", text)
    found = read_annotations(tmp_path / "export.zip")
    assert (found.labels, found.length, list(found.masks)) == ((1, 2), 3, [0, 1])
    assert (found.name(1), found.name(2)) == ("dog", "cat")
    expected = np.zeros(SIZE, np.uint8)
    expected[5:15, 10:20] = 1
    np.testing.assert_array_equal(found.masks[0], expected)
    assert found.masks[1][12, 18] == 1  # in front, by its z_order
    assert found.masks[1][18, 22] == 2


@pytest.mark.parametrize("name", ["b.xml", "images.xml", "b.json", "b.zip", "masks"])
def test_what_begins_behind_the_first_frame_stays_there(name: str, tmp_path: Path) -> None:
    shape = MASK.format("0, 12", 1).replace('frame="0"', 'frame="11"')
    text = cvat_text(shape, ids=(0,)).replace(b"<start_frame>0<", b"<start_frame>10<")
    (tmp_path / "a.xml").write_bytes(text.replace(b"<stop_frame>3<", b"<stop_frame>12<"))
    words = ["--format", "cvat-images"] if name == "images.xml" else []
    assert main(["convert", str(tmp_path / "a.xml"), str(tmp_path / name), "--frames", "14", *words]) == 0
    found = read_annotations(tmp_path / name)
    assert list(found.numbers().values()) == [11]
    if name.endswith("xml"):
        assert (found.first, found.length) == (10, 4)


def test_shapes_without_groups_are_told_apart_by_their_class(tmp_path: Path) -> None:
    write_annotations(video(), tmp_path / "a.xml")
    text = (tmp_path / "a.xml").read_text()
    for label in (2, 7):
        text = text.replace(f' group_id="{label}"', "")
    (tmp_path / "b.xml").write_text(text)
    found = read_annotations(tmp_path / "b.xml")
    assert (found.name(1), found.name(2)) == ("dog", "cat & mouse")
    for index, mask in video().masks.items():
        np.testing.assert_array_equal(found.masks[index], np.choose(np.searchsorted([0, 2, 7], mask), [0, 1, 2]))


def test_polygons_and_pixels() -> None:
    square = polygon_mask(np.array([[10, 5], [20, 5], [20, 15], [10, 15]]), SIZE)
    expected = np.zeros(SIZE, bool)
    expected[5:15, 10:20] = True
    np.testing.assert_array_equal(square, expected)


def test_tracks_of_segment_are_read_too(tmp_path: Path) -> None:
    writer = TrackWriter("dog", SIZE)
    for index, mask in video().masks.items():
        writer.add(index, mask)
    writer.save(tmp_path / "tracks.json")
    assert same(read_annotations(tmp_path / "tracks.json"), video())


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_annotations(video(), tmp_path / "masks")
    (tmp_path / "masks/00000.png").unlink()
    words = ["--name", "2=dog", "--name", "7=cat", "--frames", "20"]
    assert main(["convert", str(tmp_path / "masks"), str(tmp_path / "a.xml"), *words]) == 0
    assert capsys.readouterr().out.endswith("a.xml: 4 of 20 frames, objects 2 (dog), 7 (cat)\n")
    assert main(["convert", str(tmp_path / "a.xml"), str(tmp_path / "a.xml")]) == 2
    assert "use --force" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "a.xml"), str(tmp_path / "back")]) == 0
    for index in range(1, 5):
        written = read_label_png(tmp_path / f"back/{index:05d}.png")
        np.testing.assert_array_equal(written, video().masks[index])
    (tmp_path / "back/mine.txt").write_text("mine")
    assert main(["convert", str(tmp_path / "a.xml"), str(tmp_path / "back")]) == 2
    assert "mine.txt is in the way" in capsys.readouterr().err
    for wrong in (["--name", "dog"], ["--format", "cvat", "--name", "x=y"]):
        assert main(["convert", str(tmp_path / "a.xml"), str(tmp_path / "b.xml"), *wrong]) == 2
        assert "expected LABEL=NAME" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "a.xml"), str(tmp_path / "no/b.xml")]) == 2


def cvat_text(shape: str, size: str = "50", ids: tuple[int, int] = (0, 1)) -> bytes:
    tracks = "".join(f'<track id="{number}" label="a" source="x">{shape}</track>' for number in ids)
    return (
        "<annotations><meta><task><start_frame>0</start_frame><stop_frame>3</stop_frame><original_size>"
        f"<width>{size}</width><height>36</height></original_size></task></meta>{tracks}</annotations>"
    ).encode()


BOX = '<box frame="0" outside="0" xtl="1.4" ytl="1" xbr="{}" ybr="5.2" {}/>'
MASK = '<mask frame="0" outside="0" rle="{}" left="{}" top="2" width="4" height="3" z_order="0"/>'


@pytest.mark.parametrize(("end", "is_seen"), [(1, False), (3, True)])
def test_a_track_that_ends_later_than_a_mask_of_cvat_does(end: int, is_seen: bool, tmp_path: Path) -> None:
    """In its last frame the object is seen to be gone; behind a mask of one frame nobody has looked."""
    gone = MASK.format("0, 12", 1).replace('frame="0" outside="0"', f'frame="{end}" outside="1"')
    (tmp_path / "a.xml").write_bytes(cvat_text(MASK.format("0, 12", 1) + gone))
    found = read_annotations(tmp_path / "a.xml")
    assert found.hidden == ({label: [range(end, sys.maxsize)] for label in (1, 2)} if is_seen else {})
    assert {index: mask.any() for index, mask in found.masks.items()} == {0: True} | ({end: False} if is_seen else {})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xml", b"<annotations>", "no XML"),
        ("a.xml", b"<html/>", "received <html>"),
        ("a.xml", cvat_text(MASK.format("0, 11", 1)), "do not add up"),
        ("a.xml", cvat_text(MASK.format("-1, 13", 1)), "do not add up"),
        ("a.xml", cvat_text(MASK.format("0, 12", 48)), "is not inside 50x36"),
        ("a.xml", cvat_text(MASK.format("0, x", 1)), "damaged"),
        ("a.xml", cvat_text(BOX.format(5, "").replace("box", "cuboid")), "a <cuboid>"),
        ("a.xml", cvat_text(BOX.format(1.2, "")), "a <box> of 0x4 pixels"),
        ("a.xml", cvat_text(BOX.format(5, 'rotation="30.0"')), "a <box> that is turned"),
        ("a.xml", cvat_text(BOX.format("x", "")), "damaged"),
        ("a.xml", cvat_text(BOX.format("1e400", "")), "damaged.*infinity"),
        ("a.xml", cvat_text('<polygon frame="0" points="1,1;4,4"/>'), "a polygon of 2 points"),
        ("a.xml", cvat_text('<polygon frame="0" points="1,1;1e9,1;4,4"/>'), "a point that is not in or near 50x36"),
        ("a.xml", cvat_text("", "9999999999"), "a size of"),
        ("a.xml", cvat_text(MASK.format("0, 12", 1), ids=(3, 3)), "which shapes are the same object"),
        (
            "a.xml",
            cvat_text("", ids=()).replace(b"</meta>", b'</meta><image id="0" width="50" height="36"/>'),
            "damaged.*'name'",
        ),
        ("a.json", b"{", "damaged"),
        (
            "a.json",
            json.dumps({"images": [{"id": 1, "height": 4, "width": 4}], "annotations": []}).encode(),
            "no 'file_name'",
        ),
        ("a.json", b'{"images": [{"id": 1, "height": 1e400, "width": 4}], "annotations": []}', "no COCO.*infinity"),
        ("a.json", b"[]", "no COCO file"),
        ("a.json", json.dumps({"images": [], "annotations": []}).encode(), "no COCO file"),
        (
            "a.json",
            json.dumps({"images": [{"id": 1, "height": 4, "width": 4}], "annotations": [{"id": 1}]}).encode(),
            "track_id",
        ),
        ("a.zip", b"PK", r"no \.zip file"),
        ("a.txt", b"x", r"expected \.xml"),
    ],
)
def test_damaged_files(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_annotations(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_archives_are_never_unpacked_and_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MOST_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../outside/annotations.xml", b" " * 100_000)
    before = sorted(tmp_path.parent.iterdir())
    with pytest.raises(InputError, match="larger than"):
        read_annotations(tmp_path / "a.zip")
    assert sorted(tmp_path.parent.iterdir()) == before
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("readme.txt", b"")
    with pytest.raises(InputError, match="received none"):
        read_annotations(tmp_path / "b.zip")
    with pytest.raises(InputError, match="there is no such file"):
        read_annotations(tmp_path / "c.zip")


def test_frames_are_known_by_name_in_a_folder_and_by_number_in_a_video(tmp_path: Path) -> None:
    masks = {index: np.full(SIZE, value, np.uint8) for index, value in enumerate((1, 0, 2))}
    named = Annotations(SIZE, masks, {0: "00040", 1: "00041", 2: "00050"})
    assert list(named.numbers().values()) == [40, 50]  # in frame 1 there is no object
    assert list(named.numbers(["00030", "00040", "00050"]).values()) == [1, 2]
    with pytest.raises(InputError, match="it has no 00050 among its 2 images"):
        named.numbers(["00030", "00040"])
    of_a_video = Annotations(SIZE, masks, {0: "frame_000010", 1: "frame_000011", 2: "frame_000012"}, first=10)
    assert list(of_a_video.numbers().values()) == [10, 12]
    assert list(of_a_video.numbers([f"{index:05d}" for index in range(20)]).values()) == [10, 12]
    assert list(of_a_video.numbers([f"frame_{index:06d}" for index in range(8, 14)]).values()) == [2, 4]
    with pytest.raises(InputError, match="it has no frame_000012 among its 2 images"):
        of_a_video.numbers(["frame_000010", "frame_000011"])
    other = Annotations(SIZE, masks, {0: "cat", 1: "dog", 2: "cow"}, first=3)
    assert (
        list(other.numbers().values()) == list(Annotations(SIZE, masks, first=3).numbers(["a", "b"]).values()) == [3, 5]
    )
    assert other.numbers() == {0: 3, 2: 5}


def test_boxes_are_no_masks(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_bytes(cvat_text(BOX.format(80.5, 'rotation="0.0"')))
    found = read_annotations(tmp_path / "a.xml")
    assert (found.boxes, found.labels) == ({0: {1: (1, 1, 49, 4), 2: (1, 1, 49, 4)}}, ())  # inside the frame
    assert found.numbers() == {0: 0}
    with pytest.raises(InputError, match="frame 0: it has a box, which is no mask; 'osmn segment --mask' makes masks"):
        write_annotations(found, tmp_path / "masks")
    assert not (tmp_path / "masks").exists()
