"""Tables of videos: what a row becomes, and what is refused before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from osmn_tf.errors import InputError
from osmn_tf.inference.predictor import PredictorOptions
from osmn_tf.jobs.options import SegmentOptions
from osmn_tf.jobs.outputs import Look
from osmn_tf.jobs.rows import column_names, columns_of, make_rows, options_of, read_table
from osmn_tf.masks.files import write_mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos, as far as a table can tell, a mask for each, and detections."""
    for name in ("bear.mp4", "dog.mp4", "found.json"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("bear.png", "dog.png", "late.png"):
        write_mask(tmp_path / name, np.ones((4, 4), np.uint8))
    return tmp_path


def test_a_csv_and_a_jsonl_table_say_the_same(folder: Path) -> None:
    (folder / "a.csv").write_text(
        "video,mask,box,detections,end,both_ways,network_size,overlay,sheet,coco,out\n"
        "bear.mp4,bear.png;7:late.png,,,9,yes,96x160,no,,tracks/bear.json,sub\n"
        'dog.mp4,,"1,2,3,4; 5:5,6,7,8",,,,,dog.webm,0,,\n'
        "./dog.mp4,,,found.json,,,,,,,other\n"
    )
    rows: list[dict[str, Any]] = [
        {
            "video": "bear.mp4",
            "mask": ["bear.png", "7:late.png"],
            "end": 9,
            "both_ways": True,
            "network_size": "96x160",
            "overlay": False,
            "coco": "tracks/bear.json",
            "out": "sub",
        },
        {"video": "dog.mp4", "box": ["1,2,3,4", "5:5,6,7,8"], "overlay": "dog.webm", "sheet": False},
        {"video": "dog.mp4", "detections": "found.json", "out": "other"},
    ]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    base = {"merge": "soft", "sheet": True, "mask": ["0:{name}.png"]}
    expected = [
        SegmentOptions(
            str(folder / "bear.mp4"),
            {0: str(folder / "bear.png"), 7: str(folder / "late.png")},
            end=9,
            both_ways=True,
            network=PredictorOptions((96, 160), "soft"),
            out="results/sub",
            outputs={"sheet": None, "coco": "results/tracks/bear.json"},
        ),
        SegmentOptions(
            str(folder / "dog.mp4"),
            boxes={0: ((1, 2, 3, 4),), 5: ((5, 6, 7, 8),)},
            network=PredictorOptions(merge="soft"),
            out="results/",
            outputs={"overlay": "results/dog.webm"},
        ),
        SegmentOptions(
            str(folder / "dog.mp4"),
            detections=str(folder / "found.json"),
            network=PredictorOptions(merge="soft"),
            out="results/other",
        ),
    ]
    for name in ("a.csv", "a.jsonl"):
        table = read_table(folder / name, "results", base)
        assert [row.name for row in table] == ["sub/bear", "dog", "other/dog"]
        assert [row.number for row in table] == [1, 2, 3]
        found = [options_of(row.columns, "results") for row in table]
        for row, options in zip(found, expected, strict=True):
            assert str(row.video).replace("/./", "/") == options.video
            assert {**vars(row), "video": ""} == {**vars(options), "video": ""}


def test_what_a_command_says_holds_for_the_rows_that_do_not(folder: Path) -> None:
    options = SegmentOptions(
        "",
        {0: "{name}.png"},
        every=2,
        finetune=3,
        network=PredictorOptions((96, 160), recover=False, precision="mixed_bfloat16"),
        outputs={"sheet": None, "cutouts": None, "coco": "{name}.json"},
    )
    base = columns_of(options)
    (folder / "a.csv").write_text('video,every,box\nbear.mp4,,\ndog.mp4,3,"1,1,2,2"\n')
    base |= {"mask": [f"0:{folder}/{{name}}.png"], "detections": f"{folder}/found.json"}
    first, second = read_table(folder / "a.csv", folder / "out", base)
    assert first.options.masks == {0: f"{folder}/bear.png"}
    assert (first.options.every, first.options.finetune, first.options.network) == (2, 3, options.network)
    assert set(first.options.outputs) == {"sheet", "cutouts", "coco"}
    assert Path(first.options.outputs["coco"] or "").name == "bear.json"
    assert second.options.detections == f"{folder}/found.json"
    assert (second.options.every, second.options.masks, second.options.boxes) == (3, {}, {0: ((1, 1, 2, 2),)})


def test_a_row_that_says_where_objects_are_takes_no_click_of_the_command(folder: Path) -> None:
    (folder / "a.csv").write_text("video,mask\nbear.mp4,bear.png\ndog.mp4,\n")
    first, second = read_table(folder / "a.csv", folder / "out", columns_of(SegmentOptions("", clicks={0: [[(2, 1)]]})))
    assert (len(first.options.masks), first.options.clicks) == (1, {})
    assert (second.options.masks, second.options.clicks) == ({}, {0: (((2, 1),),)})


def test_options_survive_as_columns() -> None:
    options = SegmentOptions(
        "a.mp4",
        {0: "/m/a.png", 5: "/m/b.png"},
        resize_mask=True,
        start=0,
        end=9,
        preset="reconvnet_lite",
        network=PredictorOptions((96, 160), "soft", exclusive=False, threads=2, engine="litert", search_window=False),
        finetune_rate=1e-4,
        outputs={"sheet": None, "coco": "/m/a.json"},
        boxes={0: ((1, 2, 3, 4),), 5: ((5, 6, 7, 8),)},
        clicks={0: (((9, 8), (7, 6)), ((5, 4),)), 3: (((2, 1),),)},
        ends={2: 9},
        look=Look(opacity=0.25),
        force=True,
        out="results/",
    )
    columns = columns_of(options)
    assert set(columns) <= set(column_names())
    assert options_of(json.loads(json.dumps(columns)), "results") == options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a column 'video', received nothing"),
        ("video,mask\n", "has no rows"),
        ("film,mask\nbear.mp4,bear.png\n", "expected a column 'video', received 'film', 'mask'"),
        ("video,mask,colour\nbear.mp4,bear.png,red\n", "received 'colour'"),
        ("video,mask,mask\nbear.mp4,bear.png,\n", "a column is there twice"),
        ("video,mask\nbear.mp4\n", "row 1: expected 2 cells, as the header has"),
        ("video,mask\nbear.mp4,bear.png,5\n", "row 1: expected 2 cells, as the header has"),
        ("video,mask,until\nbear.mp4,bear.png,1\n", "--until: expected LABEL:N"),
        ("video,mask,opacity\nbear.mp4,bear.png,3\n", r"--opacity: expected 0\.\.1"),
        ("video,mask,feather\nbear.mp4,bear.png,nan\n", "--feather: expected 0 or more pixels, received nan"),
        ("video,mask\n,bear.png\n", "row 1: expected a video, received none"),
        ("video,mask\nbear.mp4,bear.png\ncat.mp4,dog.png\n", r"row 2: there is no .*cat\.mp4"),
        ("video,mask\nbear.mp4,cat.png\n", r"row 1: there is no .*cat\.png"),
        ("video,detections\nbear.mp4,cat.json\n", r"row 1: there is no .*cat\.json"),
        ("video,mask\nbear.mp4,bear.png\nbear.mp4,dog.png\n", r"row 2: its results would be those of row 1 \(bear\)"),
        ("video,mask,coco\nbear.mp4,bear.png,a.json\ndog.mp4,dog.png,a.json\n", "would be those of row 1"),
        ("video,mask,end\nbear.mp4,bear.png,soon\n", "row 1: end: expected int, received 'soon'"),
        ("video,mask,both_ways\nbear.mp4,bear.png,perhaps\n", "both_ways: expected bool, received 'perhaps'"),
        ("video,mask,network_size\nbear.mp4,bear.png,big\n", "expected HxW"),
        ("video,mask,merge\nbear.mp4,bear.png,best\n", "merge: expected one of"),
        ('video,box\nbear.mp4,"1,2,3"\n', "box: expected X,Y,W,H"),
        ('video,mask\nbear.mp4,"bear.png\n', "no CSV"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(text: str, message: str, folder: Path) -> None:
    (folder / "a.csv").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_table(folder / "a.csv", folder / "out")
    assert "\n" not in str(caught.value)
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"video": "bear.mp4", "mask": "bear.png"}\n{"video": ', "line 2: no JSON"),
        ('["bear.mp4"]\n', "line 1: expected an object"),
        ('{"mask": "bear.png"}\n', "line 1: expected a column 'video'"),
        ('{"video": "bear.mp4", "mask": 3}\n', "mask: expected a text or a list of texts"),
        ('{"video": "bear.mp4", "mask": "bear.png", "end": 2.5}\n', "end: expected int, received 2.5"),
        ('{"video": "bear.mp4", "mask": "bear.png", "end": true}\n', "end: expected int, received True"),
        ('{"video": "bear.mp4", "mask": "bear.png", "end": 1e999}\n', "end: expected int, received inf"),
        ('{"video": "bear.mp4", "mask": "bear.png", "network_size": 5}\n', r"expected tuple\[int, int\], received 5"),
        ('{"video": 5}\n', "row 1: video: expected str, received 5"),
        ('{"video": "bear.mp4", "out": ["pets"]}\n', r"row 1: out: expected str, received \['pets'\]"),
        ("\n", "has no rows"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_a_wrong_jsonl_table(text: str | bytes, message: str, folder: Path) -> None:
    (folder / "a.jsonl").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read_table(folder / "a.jsonl", folder / "out")


def test_other_files_are_no_tables(folder: Path) -> None:
    with pytest.raises(InputError, match=r"expected a \.csv or a \.jsonl file"):
        read_table(folder / "bear.mp4", folder)
    with pytest.raises(InputError, match="cannot read"):
        read_table(folder / "none.csv", folder)


def test_a_message_names_some_of_many_problems(folder: Path) -> None:
    rows = [{"video": f"{folder}/{index}.mp4", "mask": "x"} for index in range(5)]
    with pytest.raises(InputError, match=r"video 1: there is no .*0\.mp4; .*2\.mp4 \(and 2 more\)$"):
        make_rows(rows, folder)
