"""The ablation of RVOS: what is trained, and how it is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from support import BACKEND, box_mask

from osmn_tf.benchmarks import recurrence
from osmn_tf.cli.main import main
from osmn_tf.errors import InputError
from osmn_tf.inference.predictor import Prediction, Predictor
from osmn_tf.training import config as cfg

CONFIG = """
model:
  network: RVOS
  arguments:
    backbone: short
    hidden_channels: 8
    network_size: [64, 96]
task: {kind: rvos, slots: 2, find: 0.5}
data:
  sources: {drawn: {kind: synthetic, samples: 4, options: {max_objects: 2}}}
  size: [32, 64]
  length: 2
  own_guide: {start: 0.5, end: 0.5}
loss: {soft_iou: 1.0}
optimizer: {learning_rate: 1.0e-3}
train: {steps: 1, batch_size: 1, deterministic: false}
"""


class Swapping(Predictor):
    """Gives every object the place where it was given, and from the second step on two objects that of each other."""

    network_size = None
    steps = 0

    @property
    def objects(self) -> int:
        return len(self.masks)

    def forget(self) -> None:
        self.masks = np.zeros((0, 1, 1), np.uint8)
        self.steps = 0

    def begin(self, frame: np.ndarray, masks: np.ndarray | None) -> None:
        assert masks is not None
        self.masks = masks

    def keep(self, indices: Sequence[int]) -> None:
        raise AssertionError

    def advance(self, frame: np.ndarray) -> Prediction:
        self.steps += 1
        numbers = np.arange(1, len(self.masks) + 1)
        if self.steps > 1:
            numbers[:2] = numbers[:2][::-1].copy()
        return Prediction((self.masks * numbers[:, None, None]).max(0).astype(np.uint8))

    def snapshot(self) -> dict[str, np.ndarray]:
        raise AssertionError

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        raise AssertionError


def test_switched_identities_are_counted() -> None:
    """Objects 1 and 2 are right in one frame of three; object 3 always, and it is gone in the last frame."""
    mask = box_mask(32, 48, (2, 12, 2, 20), (16, 30, 2, 20), (4, 28, 26, 44))
    masks = np.stack([mask] * 4)
    masks[3][mask == 3] = 0
    predictor = Swapping()
    predictor.forget()
    frames = np.zeros((4, 32, 48, 3), np.uint8)
    alone = np.where(masks == 3, 3, 0).astype(np.uint8)
    j, switches = recurrence.score_clips(predictor, [(frames, masks), (frames, alone)])
    assert j == pytest.approx([np.mean([1 / 3, 1 / 3, 2 / 3]), 2 / 3])
    assert switches == pytest.approx([np.mean([2 / 3, 2 / 3, 0]), 0])


def test_a_table_has_paired_differences_with_their_errors() -> None:
    both = recurrence.Row("both", (0.5, 0.7, 0.9), (0.2, 0.1, 0.0))
    spatial = recurrence.Row("spatial", (0.4, 0.6, 0.5), (0.2, 0.1, 0.3))
    table = recurrence.format_table([spatial, both]).splitlines()
    # J: -10, -10 and -40: their standard deviation is 17.32, over the root of three.
    assert " ".join(table[1].split()) == "spatial 50.0 -20.0 ± 10.0 20.0 +10.0 ± 10.0 54.7 37.3"
    assert table[2].split() == ["both", "70.0", "10.0", "63.1", "44.5"]
    assert "±" not in recurrence.format_table([spatial])


def test_variants(tmp_path: Path) -> None:
    (tmp_path / "rvos.yaml").write_text(CONFIG)
    config = cfg.load(tmp_path / "rvos.yaml", ["data.own_guide.start=0.25", "data.own_guide.end=1.0"])
    for name, (kind, own) in recurrence.VARIANTS.items():
        variant = recurrence.variant_config(config, name)
        assert variant.model.arguments["recurrence"] == kind
        assert list(variant.model.arguments["network_size"]) == [32, 64]
        guide = variant.data.own_guide
        assert (guide.at(0), guide.at(1), variant.task.find) == ((0.25, 1.0, 0.0) if own else (0.0, 0.0, 0.0))
        assert variant.train == config.train
    assert set(recurrence.PUBLISHED) == set(recurrence.VARIANTS)
    with pytest.raises(InputError, match="CONFIG: expected a stage of the task rvos, received osmn"):
        next(recurrence.measure(cfg.load("osmn_coco"), tmp_path))
    with pytest.raises(InputError, match=r"task\.slots: expected 2 or more"):
        next(recurrence.measure(cfg.load("rvos_lite_masks"), tmp_path))
    with pytest.raises(InputError, match=r"--variants: expected some of spatial, .*, received 'x'"):
        next(recurrence.measure(config, tmp_path, variants=["x"]))
    with pytest.raises(InputError, match="--clips, --frames: expected at least 1 and 2, received 1 and 1"):
        next(recurrence.measure(config, tmp_path, clips=1, frames=1))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a training run; how it is shared out among backends is elsewhere")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`:UserWarning")
@pytest.mark.usefixtures("eagerly")
def test_the_command_trains_and_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rvos.yaml").write_text(CONFIG)
    words = ["benchmark", "recurrence", str(tmp_path / "rvos.yaml"), "--run-dir", str(tmp_path / "runs")]
    assert main([*words, "--clips", "2", "--frames", "3", "--variants", "both", "--quiet"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["recurrence", "J"]
    name, j, switches, *published = row.split()
    assert (name, published) == ("both", ["63.1", "44.5"])
    assert 0 <= float(j) <= 100
    assert 0 <= float(switches) <= 100
    assert (tmp_path / "runs/both/final/config.json").is_file()
