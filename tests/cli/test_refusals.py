"""A command that refuses leaves nothing behind: neither its folder, nor those above it that it has created."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from osmn_tf.cli.main import main
from osmn_tf.masks.drawing import write_image
from osmn_tf.masks.files import write_mask
from osmn_tf.models import presets


@pytest.fixture(scope="module", autouse=True)
def _loaded_once() -> Iterator[None]:
    """Commands share a network: most of them have loaded it when they refuse."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "load", functools.cache(presets.load))
        yield


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Runs `osmn WORDS... OPTION <nested folder>`, which has to be refused with a message, and leave no folder."""

    def run(*words: object, message: str, option: str = "--out") -> None:
        out = tmp_path / "above" / "out"
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert main([*map(str, words), option, str(out)]) == 2
        error = capsys.readouterr().err
        assert f"osmn {words[0]}: error: " in error
        assert message in error
        assert sorted(tmp_path.rglob("*")) == before

    return run


def make_davis(root: Path) -> Path:
    """Two sequences of four frames with masks of an object, as DAVIS 2017 has them."""
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("one\ntwo\n")
    labels = np.zeros((40, 60), np.uint8)
    labels[10:30, 10:30] = 1
    for name in ("one", "two"):
        for t in range(4):
            for place in (root / "Annotations/480p" / name, root.parent / "results" / name):
                place.mkdir(parents=True, exist_ok=True)
                write_mask(place / f"{t:05d}.png", labels)
            (root / "JPEGImages/480p" / name).mkdir(parents=True, exist_ok=True)
            write_image(root / "JPEGImages/480p" / name / f"{t:05d}.png", np.zeros((40, 60, 3), np.uint8))
    return root


def test_segment(refused: Callable[..., None], video: Path, mask: Path, tmp_path: Path) -> None:
    refused("segment", video, "--mask", tmp_path / "none.png", message="none.png")
    refused("segment", video, "--mask", mask, "--preset", "no_such", message="no_such")


def test_evaluate(refused: Callable[..., None], tiny_preset: Path, tmp_path: Path) -> None:
    davis = make_davis(tmp_path / "davis")
    words = ("evaluate", davis, "--workers", "1")
    refused(*words, "--results", tmp_path / "nothing", message="nothing")
    refused(*words, "--preset", "no_such", message="no_such")
    # A network that is refused when it is about to segment.
    (davis / "Annotations_unsupervised").symlink_to(davis / "Annotations")
    no_masks = ("--protocol", "davis-unsupervised", "--preset", tiny_preset)
    refused(*words, *no_masks, "--finetune", "1", message="--finetune: there is nothing to fine-tune on")
    # The scores of 'one' were kept before 'two' was found to be damaged.
    (tmp_path / "results/two/00001.png").write_bytes(b"no PNG")
    refused(*words, "--results", tmp_path / "results", message="00001.png")


def test_train(refused: Callable[..., None], tmp_path: Path) -> None:
    words = ("train", "osmn_match_frames", "--quiet", "--smoke", "--set", f"data.root={tmp_path}")
    refused(*words, message=str(tmp_path), option="--run-dir")


def test_export(refused: Callable[..., None], tiny_preset: Path) -> None:
    litert = ("export", "--preset", tiny_preset, "--format", "litert")
    refused(*litert, "--quantize", "int8", message="calibration")
    refused(*litert, "--network-size", "8x8", message="network_size")
    refused("export", "--preset", tiny_preset, "--format", "saved-model", "--name", "a/b", message="name")


def test_import_tf1(refused: Callable[..., None], tmp_path: Path) -> None:
    refused("import-tf1", tmp_path / "none.ckpt", message="none.ckpt")


def test_export_tf1(refused: Callable[..., None], tiny_preset: Path) -> None:
    refused("export-tf1", "--preset", tiny_preset, message="model")


def test_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = list(tmp_path.iterdir())
    for target in (tmp_path / "above" / "masks", tmp_path / "masks"):
        assert main(["convert", str(tmp_path / "none.xml"), str(target)]) == 2
        assert "osmn convert: error: " in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == before


def test_benchmark(refused: Callable[..., None], tiny_preset: Path, tmp_path: Path) -> None:
    davis = make_davis(tmp_path / "davis")
    refused("benchmark", "osvos", davis, "--preset", "osvos_lite", "--split", "none", message="none")
    refused("benchmark", "litert", davis, "--preset", tiny_preset, "--split", "none", message="none")


def test_the_folder_stays_where_something_is_in_it(tiny_preset: Path, tmp_path: Path) -> None:
    out = tmp_path / "above" / "out"
    out.mkdir(parents=True)
    (out / "notes.txt").write_text("mine")
    command = ["export", "--preset", str(tiny_preset), "--format", "litert", "--quantize", "int8", "--out", str(out)]
    assert main([*command, "--force"]) == 2
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()
    assert main(command) == 2
    assert out.is_dir()  # it was not the command that created it
