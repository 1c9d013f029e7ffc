"""What all commands of `osmn` have in common: plugins, and a backend under another name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from osmn_tf.cli.main import main


def test_plugin_is_imported_before_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "my_output.py"
    plugin.write_text(
        "from osmn_tf.jobs.outputs import Output, outputs\n\n"
        "@outputs.register('mine')\nclass Mine(Output):\n    title, ending = 'mine', '.txt'\n"
    )
    from osmn_tf.jobs.outputs import outputs

    assert main(["--plugin", str(plugin), "presets"]) == 0
    try:
        assert outputs.get("mine") is sys.modules["my_output"].Mine
    finally:
        del sys.modules["my_output"], outputs._items["mine"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a Python file"),
        ("import nothing_of_this_name", "cannot be imported (ModuleNotFoundError: No module named 'nothing_of_this"),
        ("1 +", "cannot be imported (SyntaxError"),
    ],
)
def test_plugin_that_cannot_be_imported(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = tmp_path / "broken_plugin.py"
    if content is not None:
        plugin.write_text(content)
    assert main(["--plugin", str(plugin), "presets"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("osmn presets: error: --plugin: ")
    assert message in error
    assert error.count("\n") == 1
    assert "broken_plugin" not in sys.modules


def test_the_backend_is_looked_for_by_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """The distribution may be called tensorflow-cpu; no distribution of the name 'tensorflow' is asked for."""
    from osmn_tf.cli.quiet import start_backend
    from osmn_tf.errors import MissingDependencyError

    monkeypatch.setattr("importlib.metadata.version", lambda name: pytest.fail(f"asked for {name}"))
    start_backend(initialise=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "keras" else object())
    with pytest.raises(MissingDependencyError, match=r"'keras'.*osmn-tf\[tf\]"):
        start_backend()


@pytest.mark.parametrize(
    ("words", "command", "message"),
    [
        ((), "osmn", "the following arguments are required: COMMAND"),
        (("segmnt",), "osmn", "invalid choice: 'segmnt'"),
        (("segment", "a.mp4", "--quality", "great"), "osmn segment", "argument --quality: invalid choice: 'great'"),
        (("segment", "a.mp4", "--finetune", "many"), "osmn segment", "argument --finetune: invalid int value: 'many'"),
        (("segment", "a.mp4", "--masks", "a\nb"), "osmn segment", "unrecognized arguments: --masks a b"),
        (("evaluate", "DAVIS"), "osmn evaluate", "the following arguments are required: --out"),
        (("export", "--preset", "x", "--format", "onnx"), "osmn export", "argument --format: invalid choice: 'onnx'"),
        (("train", "--what"), "osmn train", "unrecognized arguments: --what"),
        (("import-tf1",), "osmn import-tf1", "the following arguments are required: CHECKPOINT"),
        (("export-tf1",), "osmn export-tf1", "the following arguments are required: --preset, --out"),
        (("convert", "a.xml"), "osmn convert", "the following arguments are required: TO"),
        (("web", "--port", "x"), "osmn web", "argument --port: invalid int value: 'x'"),
        (("presets", "all"), "osmn presets", "unrecognized arguments: all"),
        (("benchmark",), "osmn benchmark", "the following arguments are required: PART"),
        (("benchmark", "litert"), "osmn benchmark litert", "the following arguments are required: DAVIS_ROOT"),
        (("benchmark", "litert", "D", "--x"), "osmn benchmark litert", "unrecognized arguments: --x"),
    ],
)
def test_words_that_are_not_understood_are_one_line(
    words: tuple[str, ...], command: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{command}: error: ")
    assert message in error
    assert error.endswith(f" (see '{command} --help')\n")
    assert error.count("\n") == 1


def test_a_path_that_the_system_refuses_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Too long a name here, since a folder that is closed is open to root."""
    name = "x" * 300
    assert main(["convert", name, str(tmp_path / "a.xml")]) == 2
    assert capsys.readouterr().err == f"osmn convert: error: {name}: File name too long\n"
    with pytest.raises(OSError, match="too long"):
        main(["--debug", "convert", name, str(tmp_path / "a.xml")])
