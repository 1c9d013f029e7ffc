"""Trains a network from a configuration, or continues an interrupted run.

examples:
  osmn train osmn_match_frames --run-dir runs/frames --set data.root=/data
  osmn train my_stage.yaml --run-dir runs/mine --set optimizer.learning_rate=1e-5 --set train.batch_size=2
  osmn train reconvnet_davis --smoke --run-dir runs/trial --set data.root=/data
  osmn train --list

Run the same command again after an interruption: it continues behind the last checkpoint, with the same result.
The run's folder gets the presets best/ (highest J) and final/; 'osmn segment --preset runs/mine/best' takes them.
"""

from __future__ import annotations

import argparse
import os

from osmn_tf.cli import quiet
from osmn_tf.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `osmn train`."""
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="name of a configuration, or a YAML file")
    parser.add_argument("--config", dest="config_option", metavar="CONFIG", help="the same as an option")
    parser.add_argument("--run-dir", metavar="DIR", help="folder of the run: checkpoint, log, presets")
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace a value of the configuration, as section.key=value (repeatable)",
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="a trial of the stage: two steps of two small samples, and a validation of three frames a video",
    )
    parser.add_argument("--list", action="store_true", help="list the configurations that ship with the package")
    parser.add_argument("--check", action="store_true", help="print the resolved configuration and stop")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Runs `osmn train` and returns the exit code."""
    quiet.start_backend(initialise=False)
    from osmn_tf.training import config as cfg

    if arguments.list:
        for name, path in cfg.list_configs().items():
            with open(path, encoding="utf-8") as file:
                print(f"{name:<28}{file.readline().removeprefix('#').strip()}")
        return 0
    names = [name for name in (arguments.config, arguments.config_option) if name]
    if len(names) != 1:
        raise InputError(f"CONFIG: expected one configuration, received {len(names)} ('osmn train --list' names some)")
    config = cfg.load(names[0], arguments.settings, arguments.smoke)
    if arguments.check:
        import yaml

        print(yaml.safe_dump(config.to_dict(), sort_keys=False, width=100), end="")
        return 0
    if not arguments.run_dir:
        raise InputError("--run-dir: a folder for the run is required")

    from osmn_tf.training import stages

    result = stages.train(config, arguments.run_dir, progress=not arguments.quiet)
    ending = "stopped early" if result.stopped_early else "done"
    print(f"{ending} after {result.step} steps: {os.path.join(arguments.run_dir, 'final')}")
    if result.best is not None:
        print(
            f"best at step {result.best['step']:.0f}: J {result.best['j_mean']:.3f}, F {result.best['f_mean']:.3f}: "
            f"{os.path.join(arguments.run_dir, 'best')}"
        )
    return 0
