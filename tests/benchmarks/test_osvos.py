"""`osmn benchmark osvos`: its simulated detector, its table and its curve."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from support import box_mask, randomise

from osmn_tf.benchmarks import osvos as benchmark
from osmn_tf.benchmarks.osvos import DisturbedOracle, Measurement, format_table, lower_bound
from osmn_tf.cli.main import main
from osmn_tf.errors import InputError
from osmn_tf.inference.contours import Contours


def test_disturbed_instances() -> None:
    """Of 400 frames: three of ten instances are missed, none is where it was, and decoys are as many as the frames."""
    mask = box_mask(60, 200, (20, 40, 90, 120))
    oracle = DisturbedOracle([mask] * 400)
    counts, moves = [], []
    frame = np.zeros((60, 200, 3), np.uint8)
    for index in range(400):
        found = oracle(index, frame)
        assert {one.category for one in found} == {1}
        near = [one.mask for one in found if (one.mask & (mask == 1)).any()]
        assert len(found) - len(near) == 1  # the decoy is one and a half widths away
        counts.append(len(near))
        rows, columns = np.nonzero(near[0]) if near else ([30], [105])
        moves.append((np.mean(rows) - 29.5, np.mean(columns) - 104.5))
    assert counts[0] == 1
    # Three standard deviations of a share of 400.
    assert abs(np.mean(counts) - 0.7) < 3 * np.sqrt(0.21 / 400)
    rows, columns = np.abs(np.array(moves)).max(axis=0)
    assert (round(rows), round(columns)) == (2, 3)
    again = DisturbedOracle([mask] * 400)(7, frame)
    assert all((a.mask == b.mask).all() for a, b in zip(oracle(7, frame), again, strict=True))
    assert [one.mask.sum() for one in DisturbedOracle([mask], 0, 0, decoys=False)(0, frame)] == [600]


def test_lower_bound() -> None:
    assert lower_bound([2.0, 2.0, 2.0]) == 2.0
    assert lower_bound([1.0, -1.0]) == -1.0  # one resample in four has the loss twice
    assert 0.5 < lower_bound([1.0, 2.0, 3.0, 2.0, 1.0, 2.0]) < 11 / 6


def test_table() -> None:
    rows = [("+ parent", 0.8), ("+ one-shot", 0.6), ("20 steps", 0.7), ("the instances alone", 0.5)]
    measured = [
        Measurement(row, name, j + shift, j, np.nan if name == "a" else 0.3, 0.5 * (j > 0.5), 0.25 * (j > 0.5))
        for row, j in rows
        for name, shift in (("a", 0.0), ("b", 0.1))
    ]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in format_table(measured).splitlines()]
    assert lines[2][:6] == ["+ one-shot", "65.0", "60.0", "30.0", "62.5", ""]
    assert lines[3] == ["+ parent", "85.0", "80.0", "30.0", "82.5", "+20.0, +20.0", "0.50", "0.25", "77.4, 78.1, 33.5"]
    assert lines[4][0] == "20 steps"
    assert lines[5][6:8] == ["", ""]


def test_snapped_masks_stand_after_the_same_masks_before() -> None:
    """Their gain is over these; a part's gain is over the part before, snapped or not."""
    rows = [("+ parent", 0.6), ("+ parent, snapped", 0.7), ("+ semantics", 0.65), ("0 steps", 0.5)]
    measured = [Measurement(row, "a", j, j, 0.3, 0.5, 0.25) for row, j in (*rows, ("0 steps, snapped", 0.4))]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in format_table(measured).splitlines()]
    assert [(line[0], line[5]) for line in lines[2:]] == [
        ("+ parent", ""),
        ("+ parent, snapped", "+10.0"),
        ("+ semantics", "+5.0"),
        ("0 steps", ""),
        ("0 steps, snapped", "-10.0"),
    ]
    assert lines[3][-1] == "79.8, 80.6, 37.8"
    assert list(benchmark.rows_of(reversed(measured))) == [
        "+ parent",
        "+ parent, snapped",
        "+ semantics",
        "0 steps",
        "0 steps, snapped",
    ]


class Counted(Contours):
    """The frame's first channel, a count of the frames looked at, and a tenth of a second each."""

    strength = 0.5

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        self.seen += 1
        time.sleep(0.1)
        return (frame[..., 0] / 255).astype(np.float32)


def test_contours_of_a_frame_are_found_once() -> None:
    """And count every time; not those of frames that have no object, or whose mask is given."""
    pytest.importorskip("skimage", reason="scikit-image is not installed: pip install 'osmn-tf[snapping]'")
    frame = np.zeros((20, 40, 3), np.uint8)
    frame[:, 20] = 255
    short = box_mask(20, 40, (0, 20, 0, 17))
    masks, source = [short, short, np.zeros_like(short), short], Counted()
    known = benchmark._KnownContours(source)
    assert known.name == "Counted"
    snapped, (seconds, cpu_seconds) = known.snap(masks, [frame] * 4, {0: short})
    np.testing.assert_array_equal(snapped[0], short)
    assert not snapped[2].any()
    for index in (1, 3):
        assert snapped[index][0, [16, 17, 19, 21]].tolist() == [1, 1, 1, 0]
    assert source.seen == 3  # one to compile
    assert seconds > max(0.2, cpu_seconds)
    again, (seconds, _) = known.snap(masks, [frame] * 4, {0: short})
    assert source.seen == 3
    assert seconds > 0.2
    np.testing.assert_array_equal(again, snapped)


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from osmn_tf.models.osvos import OSVOS

    folder = tmp_path_factory.mktemp("presets") / "tiny"
    arguments = {"network_size": (32, 64), "batch_statistics": False}
    randomise(OSVOS("short", "refinement", **arguments), seed=3).save_to_preset(folder)
    return folder


@pytest.mark.usefixtures("loaded_once", "eagerly")
def test_every_row_and_the_curve(
    davis, preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["benchmark", "osvos", str(davis.root), "--year", "2016", "--split", "val", "--preset", str(preset)]
    command += ["--sequences", "beta", "--steps", "1", "--dial", "0", "2", "--out", str(tmp_path / "kept")]
    assert main([*command, "--plot", str(tmp_path / "dial.png")]) == 0
    output = capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in output.splitlines() if line.startswith("|")]
    assert set(rows[2:]) == {
        "+ parent",
        "+ semantics",
        "the instances alone",
        "+ semantics, true instances",
        "0 steps",
        "2 steps",
    }
    assert (tmp_path / "dial.png").read_bytes()[:4] == b"\x89PNG"
    # The same command goes on from what it has kept: nothing is segmented again.
    monkeypatch.setattr(benchmark, "_measure_one", None)
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[:-1] == output.splitlines()[:-1]
    monkeypatch.undo()
    pytest.importorskip("skimage", reason="scikit-image is not installed: pip install 'osmn-tf[snapping]'")
    assert main([*command, "--dial", "0", "--snap", "--plot", str(tmp_path / "snapped.png")]) == 0
    snapped = {line.split("|")[1].strip(): line for line in capsys.readouterr().out.splitlines() if "|" in line}
    assert snapped.keys() - set(rows) == {f"{row}, snapped" for row in ("+ parent", "+ semantics", "0 steps")}
    assert (tmp_path / "snapped.png").read_bytes() != (tmp_path / "dial.png").read_bytes()
    assert main(command) == 0  # without it: what was kept before
    assert capsys.readouterr().out.splitlines()[:-1] == output.splitlines()[:-1]
    broken = next((tmp_path / "kept").glob("*-0_steps-0-0.json"))
    broken.write_text(json.dumps([{"row": "x"}]))
    assert main(command) == 2
    assert "is damaged" in capsys.readouterr().err


def test_refuses(davis, tiny_reconvnet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_reconvnet.save_to_preset(tmp_path / "other")
    assert main(["benchmark", "osvos", str(davis.root), "--preset", str(tmp_path / "other")]) == 2
    assert "--preset: expected an OSVOS, received a ReConvNet" in capsys.readouterr().err
    assert main(["benchmark", "osvos", str(davis.root), "--contours", "presets/hed"]) == 2
    assert "--contours: expected --snap with it" in capsys.readouterr().err
    plan = benchmark.Plan(None, None, steps=0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--steps and --dial: expected 1 or more"):
        list(benchmark.measure(plan, davis.root))
