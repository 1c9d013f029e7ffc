"""Follows one or more objects through a video, from a mask of them in one frame, or what stands out in the first.

The video is a file (mp4, mov, avi, mkv, webm, gif) or a folder of images. The mask is a PNG of the video's size: a
palette or grey image in which 0 is background and the value k is object k, or a black and white image (one object);
or a file of annotations, such as CVAT exports, with masks, polygons or boxes of the objects in one frame or several.
Without a mask, say where the objects are: --box around one, or --click on one; a network makes the masks, and
NAME_first_mask_preview.png shows them. Their labels are 1, 2 and so on, behind those of the masks. With none of these,
the objects are what stands out in the first frame, or in the first one in which something does.

Written below --out, for a video called NAME:
    NAME/00000.png, ...     a palette PNG for every frame (the format of DAVIS)
    NAME_overlay.mp4        the video with the objects coloured in
    NAME_sheet.png          a contact sheet
An interrupted run keeps what is done; the same command continues it. A file that it has not written itself is never
removed or overwritten.

Several videos, or a table of them (--list), are segmented by --workers processes, each of which loads the network once.
What became of each video is a line of OUT/results.jsonl; one that cannot be segmented does not stop the others. Several
machines may run the same command in one shared folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from osmn_tf.cli.options import EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_OK, RUNNERS, Bars
from osmn_tf.cli.quiet import captured_stderr
from osmn_tf.errors import InputError
from osmn_tf.inference.adaptation.quality import (
    LEARNING_RATE,
    OBJECT_LEARNING_RATE,
    OBJECT_STEPS,
    PLAIN_OBJECT_LEARNING_RATE,
    QUALITIES,
    STEPS,
    UNMATCHED_LEARNING_RATE,
    check_rate,
    finetune_steps,
    quality_of,
    quality_scale,
)
from osmn_tf.inference.merging import MERGES
from osmn_tf.inference.predictor import ENGINES, find_network, parse_size
from osmn_tf.masks.drawing import OPACITY
from osmn_tf.models.presets import DEFAULT_PRESET
from osmn_tf.precision import PRECISIONS

if TYPE_CHECKING:
    from tqdm import tqdm

    from osmn_tf.inference.segmenter import VideoSegmenter
    from osmn_tf.jobs.manifest import Record
    from osmn_tf.jobs.many import Runner, Summary
    from osmn_tf.jobs.options import SegmentOptions
    from osmn_tf.jobs.rows import Columns

EXAMPLES = """examples:
  osmn segment dog.mp4 --mask dog.png --out results
  osmn segment dog.mp4 --box 120,80,300,240 --out results          no mask at hand
  osmn segment dog.mp4 --click 270,190 --click 90,60+95,80         two objects, the second clicked twice
  osmn segment dog.mp4 --objects 2 --out results                   nothing marked: the two largest that stand out
  osmn segment frames/ --mask 40:frame40.png --both-ways           the mask is of frame 40
  osmn segment dog.mp4 --mask 0:dog.png --mask 90:cat.png          a second object comes later
  osmn segment dog.mp4 --mask annotations.xml                      every frame that was annotated in CVAT is given
  osmn segment dog.mp4 --mask dog.png --box 90:40,60,80,80 --until 2:150   it is in a box, and gone from frame 150 on
  osmn segment dog.mp4 --mask dog.png --cutouts --coco dog.json    cut-outs and COCO run-length masks too
  osmn segment dog.mp4 --mask dog.png --quality good               slower and better: the frames are seen larger
  osmn segment dog.mp4 --mask dog.png --quality best               slower yet: and fine-tuned on the given masks
  osmn segment dog.mp4 --mask dog.png --time 10                    fine-tuned for ten seconds an object
  osmn segment frames/ --mask dog.png --detections found.json      with what a detector has found in every frame
  osmn segment dog.mp4 --mask dog.png --preset exported/           a network of 'osmn export'
  osmn segment dog.mp4 --mask dog.png --preset grpc://localhost:8500/osmn_match_lite
  osmn segment clips/*.mp4 --mask 'masks/{name}.png'               many videos, {name} is each one's name
  osmn segment --list jobs.csv --out results                       a table: video, mask or box, and options
"""

MOST_FAILURES = 10  # that are named at the end

ENGINE_TITLES = {"litert": "LiteRT", "keras": "Keras"}

QUALITY_HELP = "\n".join(
    [
        "More time for better masks: the network sees the frames larger, and is trained on the given masks first",
        "(online fine-tuning). With the default preset, mean J on six held-out videos and time on two CPU cores:",
        *(f"  {name:5} {quality.score}" for name, quality in QUALITIES.items()),
        f"With networks that do not match, good is {STEPS} steps of fine-tuning, and best is refused.",
        f"OSVOS knows objects from fine-tuning alone: {OBJECT_STEPS} steps for each where nothing else is said.",
    ]
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of `osmn segment`."""
    parser.epilog = EXAMPLES
    parser.add_argument("videos", metavar="VIDEO_OR_FOLDER", nargs="*", help="video file or folder of images")
    what = parser.add_argument_group("the objects")
    what.add_argument(
        "--mask",
        action="append",
        metavar="[N:]FILE",
        help="mask of the first frame, or of frame N of the video (from 0), as a PNG; or annotations, of all their"
        " frames or of frame N alone: what 'osmn convert' reads, as .xml of CVAT; repeatable",
    )
    what.add_argument(
        "--box",
        action="append",
        metavar="[N:]X,Y,W,H",
        help="box around an object, pixels, in the first frame or in frame N; repeatable",
    )
    what.add_argument(
        "--click",
        action="append",
        metavar="[N:]X,Y[+X,Y...]",
        help="pixel of an object, or some, in the first frame or in frame N; repeatable, an object each",
    )
    what.add_argument(
        "--objects",
        type=int,
        metavar="K",
        help="room for so many; with none of these: at most so many are found (default: 5, or a preset's own number)",
    )
    what.add_argument(
        "--until",
        action="append",
        metavar="LABEL:N",
        help="from frame N on the object is not tracked any more; repeatable",
    )
    what.add_argument(
        "--detections",
        metavar="JSON",
        help="what a detector has found (COCO or YouTube-VIS): with masks or boxes it helps in every frame, without"
        " them the objects are what it has found in the first",
    )
    what.add_argument(
        "--detection-images", metavar="JSON", help="the list of images or videos, where it is in another file"
    )
    what.add_argument("--min-score", type=float, default=0.5, metavar="S", help="of them, from 0 to 1 (%(default)s)")
    what.add_argument(
        "--explain", action="store_true", help="draw them into overlay and sheet, white where they were taken"
    )
    what.add_argument("--resize-mask", action="store_true", help="accept masks of another size than the video's")
    what.add_argument("--both-ways", action="store_true", help="also go backward, to the frames before the mask")
    many = parser.add_argument_group("many videos")
    many.add_argument(
        "--list",
        metavar="FILE",
        help="a table, .csv or .jsonl, a video a row: 'video', one of 'mask', 'box' and 'detections', and options by"
        " their names; what a row does not say, the command says",
    )
    many.add_argument(
        "--workers",
        metavar="N",
        help="processes, among which the cores are shared; auto: with LiteRT one for each core, as far as memory goes,"
        " with Keras one, with Ray one for each core of the cluster (auto)",
    )
    many.add_argument("--runner", choices=RUNNERS, help="where they are: on this machine, or in a Ray cluster (local)")
    many.add_argument("--address", metavar="ADDRESS", help="of the Ray cluster (default: Ray on this machine)")
    frames = parser.add_argument_group("the frames")
    frames.add_argument("--start", type=int, default=0, metavar="N", help="first frame (default: 0)")
    frames.add_argument("--end", type=int, metavar="N", help="frame to stop before (default: all)")
    frames.add_argument("--every", type=int, default=1, metavar="N", help="take every N-th frame")
    network = parser.add_argument_group("the network")
    network.add_argument(
        "--preset",
        default=DEFAULT_PRESET,
        help="name, folder, .keras or .tflite file, hf://OWNER/NAME, kaggle://..., https://...zip, or"
        " grpc://HOST:PORT/NAME (%(default)s)",
    )
    network.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="what runs a preset: its LiteRT files start ten times as fast; auto takes them where nothing else that is"
        " asked for needs Keras (%(default)s)",
    )
    network.add_argument("--device", help="where Keras computes: cpu, gpu or gpu:N (default: a GPU if there is one)")
    network.add_argument("--threads", type=int, metavar="N", help="to compute with on the processor")
    network.add_argument("--network-size", metavar="HxW", help="frame size inside the network (default: the preset's)")
    network.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="what it computes in: mixed_bfloat16 is faster where the processor has it (float32)",
    )
    network.add_argument("--merge", choices=MERGES, default="argmax", help="how overlaps are decided (%(default)s)")
    network.add_argument("--own-guides", action="store_true", help="as released: guides from pixels lost to others too")
    network.add_argument("--no-recover", action="store_true", help="do not look for a lost object where it was last")
    network.add_argument(
        "--search-everywhere",
        action="store_true",
        help="find an object in the whole picture, not near where it was last (for slow frame rates)",
    )
    quality = parser.add_argument_group("quality", QUALITY_HELP)
    quality.add_argument("--quality", choices=tuple(QUALITIES), help="how much of it (default: fast)")
    quality.add_argument("--finetune", type=int, metavar="N", help="this number of steps")
    quality.add_argument("--time", type=float, metavar="S", help="this many seconds for every object instead")
    quality.add_argument(
        "--finetune-rate",
        type=float,
        metavar="RATE",
        help=f"learning rate of the steps (default: {LEARNING_RATE:g}, of networks that do not match"
        f" {UNMATCHED_LEARNING_RATE:g}, of OSVOS {OBJECT_LEARNING_RATE:g},"
        f" on VGG-16 {PLAIN_OBJECT_LEARNING_RATE:g};"
        " the papers of OSMN: 1e-5, of ReConvNet: 1e-6)",
    )
    quality.add_argument(
        "--snap", action="store_true", help="let the masks follow the contours of the frame (extra 'snapping')"
    )
    quality.add_argument(
        "--contours",
        metavar="PRESET",
        help="with it: network that finds them, of 'osmn import-hed' (default: gradients)",
    )
    output = parser.add_argument_group("the results")
    output.add_argument("--out", default="osmn_output", metavar="DIR", help="folder (default: %(default)s)")
    output.add_argument("--overlay", metavar="FILE", help="overlay video, .mp4 or .webm (default: NAME_overlay.mp4)")
    output.add_argument(
        "--opacity", type=float, default=OPACITY, metavar="SHARE", help="of the colours in it, 0..1 (%(default)s)"
    )
    output.add_argument("--no-overlay", action="store_true", help="write no overlay video")
    output.add_argument("--no-sheet", action="store_true", help="write no contact sheet")
    output.add_argument("--coco", metavar="FILE", help="write COCO run-length masks, a track an object (YouTube-VIS)")
    output.add_argument("--cutouts", action="store_true", help="write NAME_cutouts/LABEL/00000.png with alpha")
    output.add_argument("--prores", action="store_true", help="write NAME_alpha.mov: the objects, as ProRes 4444")
    output.add_argument("--alpha-webm", action="store_true", help="write NAME_alpha.webm: the objects, VP9 with alpha")
    output.add_argument(
        "--exr", action="store_true", help="write NAME_exr/00000.exr: a layer an object (extra 'exr'), linear light"
    )
    edges = output.add_mutually_exclusive_group()
    edges.add_argument(
        "--feather", type=float, default=0.0, metavar="R", help="let cut-outs fade over R pixels beside the outline"
    )
    edges.add_argument("--matte", action="store_true", help="let the edges of cut-outs follow those of the frame")
    output.add_argument(
        "--premultiplied", action="store_true", help="multiply the colours of cut-outs with alpha (default: straight)"
    )
    output.add_argument(
        "--scores", action="store_true", help="write NAME_scores/LABEL/00000.png: how sure the network is, 255 for 1"
    )
    output.add_argument("--force", action="store_true", help="replace the results of another command")
    output.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Runs `osmn segment` and returns its exit code."""
    many = arguments.list, arguments.workers, arguments.runner, arguments.address
    if len(arguments.videos) != 1 or any(option is not None for option in many):
        return run_many(arguments)
    from osmn_tf.jobs.segment import segment

    options = read_options(arguments)
    if any(options.boxes.values()) or any(options.clicks.values()):
        from osmn_tf.inference.prompting import open_shipped

        with captured_stderr():  # LiteRT reports that it has found its kernels
            open_shipped()
    opening = functools.partial(open_quietly, say=not arguments.quiet, device=arguments.device)
    with Bars(arguments.quiet) as bars:
        outcome = segment(options, progress=bars.show, open_segmenter=opening, remark=remark)
    if outcome.already_done:
        print(f"{outcome.name} is done already; --force does it again.")
    elif outcome.problem is not None:
        masks = dict(outcome.results).get("masks", options.out)
        problem = f"{outcome.problem}; kept {outcome.kept} masks in {masks}"
        print(f"osmn segment: error: {problem}", file=sys.stderr)
        return EXIT_INCOMPLETE
    elif outcome.interrupted:
        print(f"osmn segment: interrupted after {outcome.frames} frames; the same command continues", file=sys.stderr)
        return EXIT_INTERRUPTED
    else:
        new = outcome.frames - outcome.resumed
        before = f", {outcome.resumed} were there" if outcome.resumed else ""
        rate = f" ({new / outcome.seconds:.1f} frames per second)" if new else ""
        print(f"{new} frames in {outcome.seconds:.1f} s{rate}{before}")
    for title, path in outcome.results:
        print(f"{title + ':':15}{path}")
    return EXIT_OK


def remark(text: str) -> None:
    """Says what is probably not meant."""
    print(f"osmn segment: note: {text}", file=sys.stderr, flush=True)


def run_many(arguments: argparse.Namespace) -> int:
    """Runs `osmn segment` on several videos, and returns its exit code."""
    from osmn_tf.jobs.many import segment_many
    from osmn_tf.jobs.rows import columns_of, make_rows, read_table

    if bool(arguments.videos) == (arguments.list is not None):
        raise InputError("give one or more videos, or a table of them as --list FILE")
    workers = parse_workers(arguments.workers or "auto")
    if arguments.address is not None and arguments.runner != "ray":
        raise InputError("--address: it is that of a Ray cluster; add --runner ray")
    base = columns_of(read_options(arguments))
    if arguments.list is not None:
        of_preset = functools.cache(functools.partial(quality_columns, arguments.quality))
        rows = read_table(arguments.list, arguments.out, base, of_preset)
    else:
        rows = make_rows([{"video": os.path.abspath(video)} for video in arguments.videos], arguments.out, base)
    with Lines(arguments.quiet) as lines:
        summary = segment_many(rows, make_runner(arguments, workers), lines)
    print(describe(summary, arguments.out))
    for record in summary.failed[:MOST_FAILURES]:
        print(f"  row {record['row']}, {record['name']}: {record['kind']}: {record['message']}", file=sys.stderr)
    if len(summary.failed) > MOST_FAILURES:
        print(f"  and {len(summary.failed) - MOST_FAILURES} more", file=sys.stderr)
    if summary.left:
        print(f"osmn segment: interrupted with {summary.left} videos left; the same command continues", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_INCOMPLETE if summary.failed else EXIT_OK


def quality_columns(name: str | None, preset: str) -> Columns:
    """What `--quality` means to the network of a row: columns of a table."""
    try:
        quality = quality_of(name, lambda: find_network(preset).matches)
    except InputError:  # there is no such network, which is said when the table is checked
        return {}
    return {} if quality is None else {"finetune": quality.steps, "scale": quality.scale}


def parse_workers(text: str) -> int | None:
    """A number of processes; None for 'auto'.

    Raises:
        InputError: it is neither.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--workers: expected 1 or more, or auto, received {text}")
    return int(text)


def make_runner(arguments: argparse.Namespace, workers: int | None) -> Runner:
    """Where the videos are segmented, by how many processes; None: as many as are of use.

    Raises:
        MissingDependencyError: Ray is not installed.
    """
    from osmn_tf.jobs.many import Setting, run_here

    plugins = [os.path.abspath(path) for path in arguments.plugin]
    setting = Setting(
        functools.partial(open_quietly, device=arguments.device),
        functools.partial(import_plugins, plugins),
        arguments.threads,
    )
    if arguments.runner == "ray":
        from osmn_tf.jobs.on_ray import run_on_ray

        return run_on_ray(workers, setting, arguments.address)
    return run_here(workers, setting)


def import_plugins(paths: Sequence[str]) -> None:
    """Imports what `osmn --plugin` has named, in another process."""
    from osmn_tf.cli.main import import_plugin

    for path in paths:
        import_plugin(path)


def describe(summary: Summary, out: str) -> str:
    """How a run over many videos has ended, in a line or two."""
    from osmn_tf.jobs.manifest import RESULTS

    parts = [f"{summary.done} done"]
    if summary.before:
        parts.append(f"{summary.before} done before")
    parts += [f"{len(summary.failed)} failed", *([f"{summary.left} left"] if summary.left else [])]
    text = f"{summary.rows} videos: {', '.join(parts)}"
    if summary.frames:
        rate = summary.frames / summary.seconds
        text += f"\n{summary.frames} frames in {summary.seconds:.1f} s ({rate:.1f} frames per second)"
    return f"{text}\n{'records:':15}{Path(out) / RESULTS}"


class Lines:
    """A bar over all videos with the time that is left, and a line a video above it. A `Watcher`.

    Args:
        quiet: neither.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: tqdm | None = None
        self._ended = self._rows = 0

    def begin(self, summary: Summary) -> None:
        self._ended, self._rows = summary.before, summary.rows
        if self._quiet or not sys.stderr.isatty():
            return
        from tqdm import tqdm

        self._bar = tqdm(
            desc=f"{self._ended}/{self._rows} videos",
            total=summary.rows,
            initial=summary.before,
            dynamic_ncols=True,
            # Parts of videos count: as a number they would have as many digits as a float has.
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
        )

    def _describe(self) -> None:
        if self._bar is not None:
            self._bar.set_description_str(f"{self._ended}/{self._rows} videos", refresh=False)

    def record(self, record: Record) -> None:
        self._ended += 1
        self._describe()
        if self._quiet:
            return
        what = f"{record.get('frames', 0)} frames in {record.get('seconds', 0):.1f} s"
        if record["status"] != "done":
            what = f"{record['kind']}: {record['message']}"
        for line in (f"{self._ended}/{self._rows} {record['name']}: {what}", *record.get("remarks", ())):
            if self._bar is None:
                print(line, flush=True)
            else:
                self._bar.write(line)

    def share(self, done: float) -> None:
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()


def read_options(arguments: argparse.Namespace) -> SegmentOptions:
    """The arguments of `osmn segment` as the job takes them; of several videos, what holds for each.

    Raises:
        InputError: an argument cannot be read, or two contradict each other.
    """
    from osmn_tf.inference.predictor import PredictorOptions
    from osmn_tf.jobs.options import SegmentOptions
    from osmn_tf.jobs.outputs import Look
    from osmn_tf.jobs.rows import parse_ends, parse_masks, parse_prompts
    from osmn_tf.masks.prompts import parse_box, parse_clicks

    quality = quality_of(arguments.quality, lambda: find_network(arguments.preset).matches)
    outputs: dict[str, str | None] = {}
    if not arguments.no_overlay:
        outputs["overlay"] = arguments.overlay
    if not arguments.no_sheet:
        outputs["sheet"] = None
    if arguments.coco:
        outputs["coco"] = arguments.coco
    for kind in ("cutouts", "prores", "alpha-webm", "exr", "scores"):
        if getattr(arguments, kind.replace("-", "_")):
            outputs[kind] = None
    masks, annotations = parse_masks(arguments.mask or [], arguments.start)
    fields = {field.name for field in dataclasses.fields(SegmentOptions)}
    own = {name: value for name, value in vars(arguments).items() if name in fields}
    own |= {
        "video": arguments.videos[0] if len(arguments.videos) == 1 else "",
        "masks": masks,
        "annotations": annotations,
        "boxes": parse_prompts(arguments.box or [], arguments.start, parse_box),
        "clicks": parse_prompts(arguments.click or [], arguments.start, parse_clicks),
        "ends": parse_ends(arguments.until or []),
        "network": PredictorOptions(
            parse_size(arguments.network_size) if arguments.network_size else None,
            merge=arguments.merge,
            exclusive=not arguments.own_guides,
            recover=not arguments.no_recover,
            precision=arguments.precision,
            threads=arguments.threads,
            # LiteRT computes on the processor.
            engine="keras" if (arguments.device or "").startswith("gpu") else arguments.engine,
            objects=arguments.objects,
            search_window=False if arguments.search_everywhere else None,
            scale=quality_scale(quality),
        ),
        "finetune": finetune_steps(quality, arguments.finetune, arguments.time),
        "finetune_rate": check_rate(arguments.finetune_rate),
        "outputs": outputs,
        "look": Look(arguments.opacity, arguments.feather, arguments.matte, arguments.premultiplied),
    }
    return SegmentOptions(**own)


def open_quietly(options: SegmentOptions, say: bool = False, device: str | None = None) -> VideoSegmenter:
    """The segmenter of a job, without a backend's chatter. LiteRT needs neither Keras nor its backend.

    Args:
        options: of the job.
        say: print which engine runs the network, where there is a choice.
        device: where a backend computes: "cpu", "gpu" or "gpu:N"; None: where it likes.

    Raises:
        InputError: there is no such device, or a backend cannot be told how many threads it has.
    """
    from osmn_tf.cli.quiet import choose_device, start_backend
    from osmn_tf.inference.finding import check_finding
    from osmn_tf.jobs.segment import default_segmenter, find_source

    source = find_source(options)
    if say and source.engine is not None:
        print(f"{'engine:':15}{ENGINE_TITLES[source.engine]}")
    if device is not None:
        choose_device(device)
    if source.needs_backend or options.contours is not None:
        start_backend(threads=options.network.threads, needs_gpu=(device or "").startswith("gpu"))
        options = dataclasses.replace(options, network=dataclasses.replace(options.network, threads=None))
    elif not (options.marked or options.detections):
        check_finding()
        start_backend()
    with captured_stderr():  # LiteRT reports that it has found its kernels
        return default_segmenter(options)
