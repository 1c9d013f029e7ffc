"""J and F of result folders, or of a preset that is run first, as the DAVIS benchmark defines them.

examples:
  osmn evaluate DAVIS --results results/mine --year 2017 --split val --out scores
  osmn evaluate DAVIS --results OSMN=a/masks --results b --year 2016 --out scores --report
  osmn evaluate DAVIS --preset osmn_match_lite --year 2016 --split val --out scores
  osmn evaluate DAVIS --preset osmn_match_lite --finetune 100 --year 2016 --split val --out tuned_scores
  osmn evaluate my/annotations --results my/masks --protocol folders --out scores
  osmn evaluate traffic/Annotations/480p --preset osmn_match_lite --protocol folders --skip-first --out scores

A folder of results holds SEQUENCE/FRAME.png, named as the annotations are: palette PNGs with the objects as indices, or
black and white masks where there is one object. <out>/METHOD/ receives the official tables global_results-SPLIT.csv and
per-sequence_results-SPLIT.csv, and scores.json with everything per frame; <out>/report.html (with --report) is for
people. Scores of unchanged files are taken from <out>/.cache.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import re
import shutil
from collections.abc import Container
from pathlib import Path

from tqdm import tqdm

from osmn_tf import files
from osmn_tf.cli.quiet import start_backend
from osmn_tf.errors import InputError
from osmn_tf.evaluation import benchmark, run_preset
from osmn_tf.evaluation.protocols import PROTOCOLS, find_sequences
from osmn_tf.evaluation.report import check_packages, write_report
from osmn_tf.inference.adaptation.quality import QUALITIES, check_rate, finetune_steps, quality_of, quality_scale
from osmn_tf.inference.contours import find_contours, open_contours
from osmn_tf.inference.merging import MERGES
from osmn_tf.inference.predictor import ENGINES, PredictorOptions, find_network, parse_size
from osmn_tf.inference.snapping import check_snapping
from osmn_tf.models.presets import find_preset
from osmn_tf.precision import PRECISIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `osmn evaluate`."""
    parser.add_argument("root", metavar="DAVIS_ROOT", help="folder of Annotations, ImageSets and JPEGImages")
    parser.add_argument(
        "--results",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="masks of a method, DIR/SEQUENCE/FRAME.png; repeat to compare methods (NAME: the folder's name)",
    )
    parser.add_argument(
        "--preset",
        action="append",
        default=[],
        help="network that segments every sequence first: a shipped name, a folder (preset, LiteRT export or"
        " SavedModel), a .keras file, or grpc://HOST:PORT/NAME or http://HOST:PORT/NAME; may be repeated",
    )
    parser.add_argument("--engine", choices=ENGINES, help="what runs a preset, as in 'osmn segment' (default: keras)")
    parser.add_argument("--precision", choices=PRECISIONS, help="what a preset computes in (default: float32)")
    parser.add_argument(
        "--merge", choices=MERGES, default="argmax", help="how overlaps of objects are decided (%(default)s)"
    )
    parser.add_argument(
        "--search-everywhere", action="store_true", help="find objects in the whole picture, as in 'osmn segment'"
    )
    parser.add_argument("--network-size", metavar="HxW", help="size at which a preset runs (default: the preset's own)")
    parser.add_argument("--quality", choices=tuple(QUALITIES), help="as in 'osmn segment' (default: fast)")
    parser.add_argument(
        "--finetune",
        type=int,
        metavar="N",
        help="steps of online fine-tuning of a preset (default: none, or what a network needs that cannot do without)",
    )
    parser.add_argument("--time", type=float, metavar="S", help="seconds of it for every object instead")
    parser.add_argument(
        "--finetune-rate", type=float, metavar="RATE", help="learning rate of the steps (default: as osmn segment)"
    )
    parser.add_argument(
        "--snap", action="store_true", help="let masks follow the contours of the frame, as in 'osmn segment'"
    )
    parser.add_argument("--contours", metavar="PRESET", help="with it: network that finds them (default: gradients)")
    parser.add_argument(
        "--objects", type=int, metavar="K", help="unsupervised: at most so many (default: 5, or a preset's own number)"
    )
    parser.add_argument("--year", type=int, choices=(2016, 2017), default=2017, help="DAVIS edition (default 2017)")
    parser.add_argument(
        "--protocol",
        choices=("davis", "davis-unsupervised", "youtube-vos", "folders"),
        default="davis",
        help="rules of the benchmark (default davis: semi-supervised, of the --year)",
    )
    parser.add_argument(
        "--skip-first",
        action="store_true",
        help="with --protocol folders: an object counts after its first annotated frame, which a method is given",
    )
    parser.add_argument("--split", default="val", help="list in ImageSets/YEAR (default val)")
    parser.add_argument("--sequences", nargs="+", metavar="NAME", help="score these sequences only")
    parser.add_argument("--resolution", default="480p", help="folder below Annotations (default 480p)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the tables")
    parser.add_argument(
        "--report", action="store_true", help="write <out>/report.html and <out>/figures/*.png (extra 'report')"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    parser.add_argument("--no-cache", action="store_true", help="compute everything anew")


def run(arguments: argparse.Namespace) -> int:
    """Runs `osmn evaluate` and returns the exit code."""
    if not arguments.results and not arguments.preset:
        raise InputError("expected --results DIR or --preset NAME, received neither")
    protocol = _protocol_name(arguments.protocol, arguments.year, arguments.skip_first)
    presets = {Path(preset).stem: preset for preset in arguments.preset}
    if len(presets) < len(arguments.preset):
        raise InputError(f"--preset: expected networks of different names, received {', '.join(arguments.preset)}")
    results = parse_results(arguments.results, reserved=presets)
    options = PredictorOptions(
        parse_size(arguments.network_size) if arguments.network_size else None,
        merge=arguments.merge,
        precision=arguments.precision,
        objects=arguments.objects,
        search_window=False if arguments.search_everywhere else None,
    )
    rate = check_rate(arguments.finetune_rate)
    finetune_steps(QUALITIES.get(arguments.quality), arguments.finetune, arguments.time)  # also without a preset
    runs = {}
    for name, preset in presets.items():
        quality = quality_of(arguments.quality, functools.partial(_matches, preset))
        steps = finetune_steps(quality, arguments.finetune, arguments.time)
        own = dataclasses.replace(options, scale=quality_scale(quality))
        runs[name] = own, run_preset.Tuning(steps, rate, arguments.time)
    if arguments.snap:
        if not presets:
            raise InputError("--snap: expected a --preset with it, masks of --results stay as they are")
        check_snapping()
        find_contours(arguments.contours)
    elif arguments.contours is not None:
        raise InputError("--contours: expected --snap with it")
    if arguments.report:
        check_packages()
    out = files.ensure_directory(arguments.out, "--out")
    for name, preset in presets.items():
        results[name] = _segment(arguments, preset, protocol, *runs[name], out / "results" / name)
    cache = out / ".cache"
    was_there = cache.exists()
    try:
        # Nothing is shown before the first report: what is wrong with the input is said alone.
        with tqdm(desc="scoring", unit="mask", dynamic_ncols=True, delay=0.001) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            evaluation = benchmark.evaluate_results(
                arguments.root,
                results,
                protocol=protocol,
                split=arguments.split,
                sequences=arguments.sequences,
                resolution=arguments.resolution,
                workers=arguments.workers,
                cache=None if arguments.no_cache else cache,
                progress=progress,
            )
    except InputError:
        if not was_there:
            shutil.rmtree(cache, ignore_errors=True)
        raise
    benchmark.write_tables(evaluation, out)
    report_path = write_report(evaluation, out) if arguments.report else None
    print(format_table(evaluation))
    for method in evaluation.methods:
        print(f"{method.name}: tables and scores.json in {out / method.name}")
    if report_path is not None:
        print(f"report: {report_path}, figures in {out / 'figures'}")
    return 0


def _matches(preset: str) -> bool:
    return find_network(preset).matches


def _segment(
    arguments: argparse.Namespace,
    preset: str,
    protocol: str,
    options: PredictorOptions,
    tuning: run_preset.Tuning,
    folder: Path,
) -> Path:
    """Runs a preset on every sequence and returns the folder of its masks."""
    rules = PROTOCOLS[protocol]
    sequences = find_sequences(
        arguments.root,
        rules,
        split=arguments.split,
        sequences=arguments.sequences,
        resolution=arguments.resolution,
    )
    if run_preset.find_to_evaluate(preset, options, tuning, arguments.engine)[0].needs_backend or arguments.contours:
        start_backend()
    contours = open_contours(arguments.contours) if arguments.snap else None
    track, settings = run_preset.preset_track(preset, options, tuning, arguments.engine, contours)
    if arguments.contours is not None:
        settings["contours"] = run_preset.files_digest(find_preset(arguments.contours))
    with tqdm(desc=preset, unit="frame", dynamic_ncols=True) as bar:

        def progress(sequence: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_postfix_str(sequence, refresh=False)
            bar.update(done - bar.n)

        return run_preset.segment_sequences(track, settings, sequences, rules, folder, progress)


def _protocol_name(name: str, year: int, skip_first: bool) -> str:
    if skip_first:
        if name != "folders":
            raise InputError(f"--skip-first: goes with --protocol folders, {name} has its own rule")
        return "folders-skip-first"
    if name == "davis":
        return f"davis-{year}"
    if name == "davis-unsupervised":
        return f"davis-{year}-unsupervised"
    return name


def parse_results(values: list[str], reserved: Container[str] = ()) -> dict[str, Path]:
    """`[NAME=]DIR` arguments as name -> folder."""
    results: dict[str, Path] = {}
    for value in values:
        name, separator, folder = value.partition("=")
        if not separator:
            name, folder = Path(value).resolve().name, value
        if not re.fullmatch(r"[^/\\.][^/\\]*", name):
            raise InputError(
                f"--results: expected NAME=DIR with a NAME free of slashes and leading dots, got {value!r}"
            )
        if name in results or name in reserved:
            raise InputError(f"--results: two methods are called {name!r}; name them with --results NAME=DIR")
        results[name] = Path(folder)
    return results


def format_table(evaluation: benchmark.Evaluation) -> str:
    """The overall numbers in percent, one method per line."""
    objects = len(evaluation.methods[0].objects)
    width = max(len("method"), *(len(method.name) for method in evaluation.methods))
    rows = {method.name: benchmark.global_row(evaluation, method) for method in evaluation.methods}
    if evaluation.protocol.temporal_stability:
        for method in evaluation.methods:
            rows[method.name]["T-Mean"] = method.t
    columns = next(iter(rows.values()))
    lines = [
        f"{evaluation.protocol.title}, {evaluation.split}: sequences {len(evaluation.sequences)}, objects {objects}",
        f"{'method':<{width}}" + "".join(f"{name:>10}" for name in columns),
    ]
    for name, row in rows.items():
        lines.append(f"{name:<{width}}" + "".join(f"{100 * value:>10.1f}" for value in row.values()))
    return "\n".join(lines)
