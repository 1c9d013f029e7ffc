"""Entry point of the `osmn` command. Imports only the subcommand that runs, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from osmn_tf.cli.options import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_OK, Parser
from osmn_tf.errors import InputError
from osmn_tf.files import no_empty_folders
from osmn_tf.version import __version__

# name -> (module, one-line help). The module is imported only when the subcommand is asked for.
COMMANDS: dict[str, tuple[str, str]] = {
    "segment": ("osmn_tf.cli.segment", "masks of one or more objects in every frame of a video"),
    "evaluate": ("osmn_tf.cli.evaluate", "J and F of a preset or of result folders on a DAVIS folder"),
    "train": ("osmn_tf.cli.train", "train a network from a configuration, or continue an interrupted run"),
    "benchmark": ("osmn_tf.cli.benchmark", "measure the speed of a part on this machine"),
    "web": ("osmn_tf.cli.web", "click an object in a page and see it tracked, in the browser alone"),
    "export": ("osmn_tf.cli.export", "write a preset as a SavedModel (TF Serving) or for LiteRT"),
    "import-tf1": ("osmn_tf.cli.import_tf1", "turn a checkpoint of the original OSMN release into a preset"),
    "import-hed": ("osmn_tf.cli.import_hed", "turn HED's weights into a preset of contours, for 'osmn segment --snap'"),
    "export-tf1": ("osmn_tf.cli.export_tf1", "write a preset as a checkpoint for the original OSMN code"),
    "convert": ("osmn_tf.cli.convert", "masks to and from CVAT, COCO and MOTS files"),
    "presets": ("osmn_tf.cli.presets", "list the models that ship with this installation"),
}


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The argument parser; only `command`'s own arguments are filled in."""
    parser = Parser(
        prog="osmn",
        description="One-shot video object segmentation: a video and one mask in, a mask in every frame out.",
        epilog="'osmn COMMAND --help' explains a command and gives examples.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30),
    )
    parser.add_argument("--version", action="version", version=f"osmn_tf {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE.py",
        help="import this file first: the networks, tasks, ... that it registers are there then; repeatable",
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module_name, summary) in COMMANDS.items():
        if name == command:
            module = importlib.import_module(module_name)
            subparser = subparsers.add_parser(
                name,
                help=summary,
                description=module.__doc__,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
        else:
            subparsers.add_parser(name, help=summary, add_help=False)
    return parser


def import_plugin(path: str) -> None:
    """Runs a Python file as a module, so that what it registers is there.

    Raises:
        InputError: there is no such file, or it raises something.
    """
    from osmn_tf.cli.quiet import captured_stderr

    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise InputError(f"--plugin: expected a Python file, received {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # classes of it are looked up there
    try:
        with captured_stderr():
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"--plugin: {path} cannot be imported ({reason})") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code.

    0: done. 1: partly done (what was done is kept). 2: bad input, nothing was written. 130: interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # TensorFlow and Keras make hundreds of thousands of objects that stay, and Python would look through them again and
    # again: a sixth of the time that they take to be imported.
    gc.set_threshold(max(10_000, gc.get_threshold()[0]), *gc.get_threshold()[1:])
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may have what it has no characters for
        sys.stdout.reconfigure(errors="backslashreplace")
    command = next((word for word in argv if word in COMMANDS), None)
    arguments = build_parser(command).parse_args(argv)
    try:
        for path in arguments.plugin:
            import_plugin(path)
        with no_empty_folders():
            code: int = arguments.run(arguments)
    except InputError as error:
        if arguments.debug:
            raise
        print(f"osmn {arguments.command}: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        if arguments.debug:
            raise
        print(f"osmn {arguments.command}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`osmn ... | head`): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:
        if arguments.debug:
            raise
        # A path below a folder that is closed, or one that is too long: any look at it is refused.
        place = "" if error.filename is None else f"{error.filename}: "
        print(f"osmn {arguments.command}: error: {place}{error.strerror or error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return code


if __name__ == "__main__":
    sys.exit(main())
