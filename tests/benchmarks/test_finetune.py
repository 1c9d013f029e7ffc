"""`osmn benchmark finetune` and `osmn evaluate --finetune` on a small data set and a small network."""

import json

import pytest

from osmn_tf.benchmarks.finetune import CurvePoint, format_table
from osmn_tf.cli.main import main

pytestmark = pytest.mark.usefixtures("loaded_once", "eagerly")


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    from support import TINY_VGG, randomise

    from osmn_tf.models.osmn import OSMN

    folder = tmp_path_factory.mktemp("presets") / "tiny"
    model = OSMN(**TINY_VGG, network_size=(64, 96))
    randomise(model, seed=2).save_to_preset(str(folder))
    return folder


def test_curve_of_a_data_set(davis, preset, capsys):
    what = ["--preset", str(preset), "--year", "2017", "--sequences", "beta"]
    numbers = ["--steps", "2", "0", "1", "--rates", "1e-2", "1e-30"]
    code = main(["benchmark", "finetune", str(davis.root), *what, *numbers])
    output = capsys.readouterr()
    assert code == 0
    assert output.err.count("beta: rate ") == 6
    lines = [line.split() for line in output.out.splitlines()]
    assert lines[0] == ["learning", "rate", "0.01"]
    assert lines[1] == ["steps", "0", "1", "2"]
    curve = lines[2]
    assert curve[0] == "beta"
    assert lines[3] == ["mean", *curve[1:]]
    assert float(lines[4][2]) == 0.0 < float(lines[4][4])
    # A rate of nothing leaves the network as it is; the other one does not.
    idle = lines[7]
    assert idle == ["beta", curve[1], curve[1], curve[1]]
    assert curve[3] != curve[1]


def test_curves_are_averaged_over_sequences():
    points = [
        CurvePoint(name, 1e-4, steps, j, 0.1 * steps, 1.0)
        for name, scores in (("a", (0.5, 0.7)), ("longer", (0.25, 0.35)))
        for steps, j in zip((0, 100), scores)
    ]
    assert format_table(points).splitlines() == [
        "learning rate 0.0001",
        "steps               0     100",
        "a                50.0    70.0",
        "longer           25.0    35.0",
        "mean             37.5    52.5",
        "seconds, mean     0.0    10.0",
    ]


def test_evaluate_with_fine_tuning(davis, preset, tmp_path):
    def evaluate(*arguments):
        fixed = ["evaluate", str(davis.root), "--preset", str(preset), "--sequences", "beta", "--workers", "1"]
        assert main([*fixed, "--out", str(tmp_path / "scores"), *arguments]) == 0
        record = json.loads((tmp_path / "scores/results/tiny/beta.json").read_text())
        masks = sorted((tmp_path / "scores/results/tiny/beta").glob("*.png"))
        return record["settings"].get("finetune"), [path.read_bytes() for path in masks]

    settings, plain = evaluate()
    assert settings is None
    settings, tuned = evaluate("--finetune", "3", "--finetune-rate", "1e-3")
    assert settings == {"steps": 3, "learning_rate": 0.001}
    assert tuned != plain
    assert evaluate()[1] == plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["benchmark", "finetune", "--rates", "0"], "--finetune-rate"),
        (["benchmark", "finetune", "--steps", "-1"], "--steps"),
        (["evaluate", "--out", "o", "--finetune", "-1"], "--finetune"),
    ],
)
def test_bad_input(arguments, message, davis, preset, capsys):
    assert main([*arguments, "--preset", str(preset), str(davis.root)]) == 2
    assert message in capsys.readouterr().err
