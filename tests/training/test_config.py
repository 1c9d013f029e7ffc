from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from osmn_tf.errors import InputError
from osmn_tf.training import config as cfg
from osmn_tf.training import schema

STAGES = sorted(cfg.list_configs())


def test_shipped_stages() -> None:
    assert STAGES == [
        "osmn_coco",
        "osmn_davis",
        "osmn_lite_coco",
        "osmn_lite_davis",
        "osmn_lite_frames",
        "osmn_match_clips",
        "osmn_match_frames",
        "osmn_match_prompts",
        "osvos_davis_1",
        "osvos_davis_2",
        "osvos_davis_3",
        "osvos_lite",
        "reconvnet_davis",
        "reconvnet_lite_clips",
        "reconvnet_lite_frames",
        "reconvnet_lite_memory",
        "reconvnet_lite_polish",
        "rvos_lite_clips",
        "rvos_lite_find",
        "rvos_lite_large",
        "rvos_lite_masks",
        "rvos_lite_objects",
        "rvos_youtube",
        "rvos_youtube_own",
        "youtube_vos",
    ]


@pytest.mark.parametrize("name", STAGES)
def test_weight_decay_does_something_or_is_not_there(name: str) -> None:
    config = cfg.load(name)
    taken_off = config.optimizer.weight_decay * config.optimizer.learning_rate * config.train.steps
    assert taken_off == 0 or taken_off > 0.01


@pytest.mark.parametrize("name", STAGES)
def test_trial_of_a_stage(name: str) -> None:
    """All that makes it long is gone, and nothing else."""
    whole, trial = cfg.load(name), cfg.load(name, smoke=True)
    steps = 2 * whole.optimizer.accumulate
    assert (trial.train.steps, trial.train.batch_size, trial.data.size) == (steps, 2, (64, 96))
    assert (trial.validation is None) == (whole.validation is None)
    assert trial.validation is None or (trial.validation.max_frames, trial.validation.every) == (3, steps)
    assert trial.data.length <= 3
    assert (trial.model, trial.loss, trial.task) == (whole.model, whole.loss, whole.task)
    assert (trial.data.sources, trial.data.augment) == (whole.data.sources, whole.data.augment)
    longer = 3 * whole.optimizer.accumulate
    assert cfg.load(name, [f"train.steps={longer}"], smoke=True).train.steps == longer


@pytest.mark.parametrize("name", STAGES)
def test_resolved_configuration_is_the_same_configuration(name: str, tmp_path: Path) -> None:
    config = cfg.load(name)
    config.save(tmp_path / "resolved.yaml")
    assert cfg.load(tmp_path / "resolved.yaml") == config


def test_numbers_of_the_papers() -> None:
    coco, davis, clips, vos = (cfg.load(n) for n in ("osmn_coco", "osmn_davis", "reconvnet_davis", "youtube_vos"))
    assert (coco.train.batch_size, coco.train.steps, coco.data.size) == (8, 300000, (400, 400))
    assert (coco.optimizer.learning_rate, coco.optimizer.drop_at, coco.optimizer.drop_factor) == (1e-5, (200000,), 0.1)
    assert coco.data.sources["coco"].min_area == 0.03
    assert (davis.train.batch_size, davis.train.steps, davis.optimizer.learning_rate) == (4, 50000, 1e-6)
    assert (davis.data.size, davis.model.freeze, list(davis.data.sources)) == ((480, 854), ("*_bn",), ["davis"])
    assert (clips.optimizer.learning_rate, clips.optimizer.group_rates) == (1e-6, {"recurrent": 1e-5})
    assert (clips.loss.lovasz, clips.loss.class_balanced, clips.data.length) == (1.0, 0.0, 5)
    rvos, own = cfg.load("rvos_youtube"), cfg.load("rvos_youtube_own")
    assert (rvos.data.size, rvos.data.length, rvos.train.batch_size, rvos.task.slots) == ((256, 448), 5, 4, 10)
    assert (rvos.optimizer.learning_rate, rvos.optimizer.group_rates) == (1e-6, {"decoder": 1e-3})
    assert [stage.data.own_guide.at(progress) for stage in (rvos, own) for progress in (0, 1)] == [0, 0, 1, 1]
    assert (vos.data.size, vos.optimizer.learning_rate, vos.optimizer.drop_at) == ((256, 448), 1e-5, (200000,))


@pytest.mark.parametrize("name", ["osmn_coco", "osmn_davis", "reconvnet_davis", "youtube_vos"])
def test_stages_of_the_papers_change_what_the_papers_change(name: str) -> None:
    data = cfg.load(name).data
    (source,) = data.sources.values()
    assert source.motion == 0
    assert getattr(source, "reverse", 0) == 0
    assert not data.augment.colours
    assert (data.augment.shift, data.augment.rotation, data.augment.flip) == (0, 0, 0)
    assert data.guide_jitter


def test_task_by_name_with_settings_or_the_networks_own() -> None:
    assert [cfg.load(name).task.kind for name in ("osmn_coco", "reconvnet_davis")] == ["osmn", "reconvnet"]
    # A ReConvNet may be trained like an OSMN, but not the other way round.
    assert cfg.load("reconvnet_lite_frames", ["task=osmn"]).task.kind == "osmn"
    with pytest.raises(InputError, match=r"task\.kind: expected one of .*osmn, .*reconvnet.*, received 'dance'"):
        cfg.load("osmn_coco", ["task=dance"])
    with pytest.raises(InputError, match=r"task\.speed: unknown key"):
        cfg.load("osmn_coco", ["task={kind: osmn, speed: 3}"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer.learningrate=1", r"optimizer\.learningrate: unknown key \(did you mean learning_rate\?\); valid"),
        ("optimizer.learning_rate=fast", r"optimizer\.learning_rate: expected a number, received 'fast'"),
        ("optimizer.learning_rate=true", r"optimizer\.learning_rate: expected a number, received True"),
        ("optimizer.learning_rate=.nan", r"optimizer\.learning_rate: expected a number, received nan"),
        ("optimizer.learning_rate=-1", r"optimizer\.learning_rate: expected a positive number, received -1\.0"),
        ("train.batch_size=2.5", r"train\.batch_size: expected a whole number, received 2\.5"),
        ("train.precision=float64", r"train\.precision: expected one of float32, mixed_bfloat16, mixed_float16"),
        ("train.steps=1500", r"train\.steps: 1500 is no multiple of checkpoint_every, 1000"),
        ("data.size=[400]", r"data\.size: expected a list of 2, received \[400\]"),
        ("data.length=3", r"data\.length: OSMN trains on single frames, expected 1, received 3"),
        ("data.augment.scale=[2, 1]", r"data\.augment\.scale: expected a range of positive numbers"),
        ("data.sources.coco.kind=foo", r"data\.sources\.coco\.kind: expected one of davis, youtube_vos, coco"),
        ("data.sources.coco.kind=[coco]", r"data\.sources\.coco\.kind: expected one of .*, received \['coco'\]"),
        (
            "data.sources.more={kind: synthetic, options: {motion: -1}}",
            r"data\.sources\.more\.options\.motion: expected 0 or more, received -1\.0",
        ),
        (
            "data.sources.coco.year=2016",
            r"data\.sources\.coco\.year: unknown key; valid keys: allow_overlap, fit, min_area, motion",
        ),
        ("data.sources.coco=null", r"data\.sources: expected at least one"),
        (
            "data.sources.more={kind: stills, path: x, share: 1}",
            r"data\.sources: give a share to all of them or",
        ),
        ("data.own_guide.end=1", r"data\.own_guide: the first frame of a clip has no own prediction"),
        ("model.arguments.backbne=x", r"model\.arguments\.backbne: unknown key \(did you mean backbone\?\)"),
        ("model.arguments.recurrence=replace", r"model\.arguments\.recurrence: unknown key"),
        ("model.arguments.guide_size=big", r"model\.arguments\.guide_size: expected a whole number, received 'big'"),
        (
            "optimizer.group_rates.tail=1e-5",
            r"optimizer\.group_rates: expected groups of the task osmn \(recurrent, ",
        ),
        ("optimizer.group_rates.recurrent=0", r"optimizer\.group_rates\.recurrent: expected a positive number"),
        ("model.network=OSMM", r"model\.network: expected one of .*OSMN.*, received 'OSMM'"),
        ("optimizer.accumulate=3", r"optimizer\.accumulate: 3 does not divide train\.checkpoint_every"),
        ("optimizer.drop_at=[5, 5]", r"optimizer\.drop_at: expected ascending steps, received \[5, 5\]"),
        ("optimizer.drop_at=[]", r"optimizer\.drop_at: goes together with the schedule 'steps'"),
        ("loss.class_balanced=0", r"loss\.class_balanced: every term has the weight 0"),
        ("validation.every=1500", r"validation\.every: 1500 is no multiple of train\.checkpoint_every"),
        ("train=5", r"train: expected a mapping, received 5"),
        ("x", r"--set: expected section\.key=value, received 'x'"),
        ("train.steps=[", r"--set train\.steps: the value is no YAML"),
    ],
)
def test_mistakes_are_one_line_that_says_where(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        cfg.load("osmn_coco", [setting])
    assert "\n" not in str(caught.value)


def test_settings_and_numbers_written_as_text() -> None:
    config = cfg.load("osmn_coco", ["optimizer.learning_rate=1e-5", "train.batch_size=4", "data.root=/data"])
    assert (config.optimizer.learning_rate, config.train.batch_size, config.data.root) == (1e-5, 4, "/data")
    assert cfg.load("osmn_coco", ["train.steps=1e3"]).train.steps == 1000
    assert cfg.load("osmn_coco", ["train.steps=50"]).train.interval == 50  # shorter than an interval


def test_base_by_relative_path_and_its_mistakes(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: osmn_coco\ntrain: {batch_size: 3}\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\ntrain: {seed: 7}\n")
    config = cfg.load(tmp_path / "b.yaml")
    assert (config.train.batch_size, config.train.seed, config.train.steps) == (3, 7, 300000)
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    with pytest.raises(InputError, match="its own base"):
        cfg.load(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_text("train: [\n")
    with pytest.raises(InputError, match="no readable YAML"):
        cfg.load(tmp_path / "c.yaml")
    (tmp_path / "d.yaml").write_text("- 1\n")
    with pytest.raises(InputError, match="expected a mapping, received a list"):
        cfg.load(tmp_path / "d.yaml")
    with pytest.raises(InputError, match="no configuration of that name; there are osmn_coco"):
        cfg.load("osmn_cocoo")


def test_required_keys() -> None:
    data = cfg.load("osmn_coco").to_dict()
    del data["train"]["steps"]
    with pytest.raises(InputError, match=r"^train\.steps: a value is required$"):
        cfg.parse(data)


def test_curriculum() -> None:
    curriculum = cfg.CurriculumConfig(start=0.2, end=1.0, until=0.5)
    assert [curriculum.at(x) for x in (0.0, 0.25, 0.5, 0.9)] == pytest.approx([0.2, 0.6, 1.0, 1.0])


def test_schema_converts_nested_types() -> None:
    @dataclasses.dataclass(frozen=True)
    class Inner:
        names: tuple[str, ...] = ()
        size: tuple[int, float] = (1, 2.0)

    assert schema.convert({"names": ["a"], "size": ["3", "1e-5"]}, Inner | None, "x") == Inner(("a",), (3, 1e-5))
    assert schema.convert(None, Inner | None, "x") is None
    with pytest.raises(InputError, match=r"^x\.names\[1\]: expected a text, received 3$"):
        schema.convert({"names": ["a", 3]}, Inner, "x")


def test_shipped_files_are_yaml_with_a_heading() -> None:
    for path in cfg.list_configs().values():
        text = path.read_text()
        assert text.startswith("# ")
        assert isinstance(yaml.safe_load(text), dict)


def test_prompts_need_matching() -> None:
    with pytest.raises(InputError, match=r"task\.prompts: only a network with matching"):
        cfg.load("osmn_lite_frames", ["task={kind: osmn, prompts: 0.5}"])
    assert cfg.load("osmn_match_prompts", ["task.prompts=0.5"]).task.prompts == 0.5
