"""Makes the videos that the page's tests open, and compares what the page saved with the package's own results.

python clips.py make FOLDER          small files, good and bad
python clips.py davis FOLDER SEQ N   the first N frames of a sequence of $OSMN_DATA_ROOT/davis as an MP4
python clips.py long FOLDER N        the example over and over, N frames
python clips.py box VIDEO MASK K     box of object K in fractions of the sides
python clips.py compare ZIP FOLDER N mean IoU of the masks in a ZIP with those in a folder, without the given frame N
python clips.py unzip ZIP FOLDER
python clips.py coco JSON ZIP        whether run lengths and PNGs say the same
python clips.py native NETWORK VIDEO MASK THREADS N    frames a second of the package's own runtime over N frames
python clips.py video FILE           frames, size and whether it has alpha
"""

from __future__ import annotations

import json
import os
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

EXAMPLE = Path(__file__).parents[3] / "osmn_tf/examples/meadow/meadow.mp4"


def write(path: Path, frames: Iterable[np.ndarray], codec: str, **options: str) -> None:
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream(codec, rate=Fraction(24), options=options)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        assert stream is not None
        container.mux(stream.encode())


def example() -> Iterator[np.ndarray]:
    with av.open(str(EXAMPLE)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def make(folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    frames = [cv2.resize(frame, (320, 180), interpolation=cv2.INTER_AREA) for frame in list(example())[:12]]
    for name, codec in (("h264.mp4", "libx264"), ("vp9.webm", "libvpx-vp9"), ("vp8.webm", "libvpx")):
        write(folder / name, frames, codec)
    available = {"hevc.mp4": "libx265", "av1.webm": "libaom-av1"}
    for name, codec in available.items():
        try:
            write(folder / name, frames, codec)
        except Exception:  # not in this build of FFmpeg
            (folder / name).unlink(missing_ok=True)
    if not (folder / "hevc.mp4").exists():
        relabel(folder / "h264.mp4", folder / "hevc.mp4")
    write(folder / "tiny.webm", [np.zeros((1, 1, 3), np.uint8)] * 3, "libvpx-vp9")
    (folder / "text.mp4").write_text("This is a text and no video.\n" * 40)
    (folder / "empty.mp4").write_bytes(b"")
    content = (folder / "h264.mp4").read_bytes()
    (folder / "turned.mp4").write_bytes(turned(content))
    (folder / "cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    (folder / "cut_head.mp4").write_bytes(content[:600])
    damaged = bytearray(content)
    start = content.index(b"mdat") + 4
    damaged[start : start + 4000] = bytes(4000)
    (folder / "damaged.mp4").write_bytes(damaged)
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for number in (1, 2, 9, 10):
        cv2.imwrite(str(images / f"frame{number}.png"), frames[number][:, :, ::-1])
    (images / "notes.txt").write_text("not an image")
    uneven = folder / "uneven"
    uneven.mkdir(exist_ok=True)
    cv2.imwrite(str(uneven / "0.png"), frames[0])
    cv2.imwrite(str(uneven / "1.png"), frames[1][:-10])
    nothing = folder / "nothing"
    nothing.mkdir(exist_ok=True)
    (nothing / "notes.txt").write_text("not an image")
    return {path.name: str(path) for path in folder.iterdir()}


def relabel(source: Path, target: Path) -> None:
    """A file that says that it is HEVC, where nothing here encodes it: the sample entry renamed."""
    content = source.read_bytes()
    target.write_bytes(content.replace(b"avc1", b"hvc1").replace(b"avcC", b"hvcC"))


def turned(content: bytes) -> bytes:
    """An MP4 as a telephone held upright writes it: frames as they were, and a matrix that turns them clockwise."""
    one = 0x10000
    matrix = np.array([0, one, 0, -one, 0, 0, 180 * one, 0, 0x40000000], ">i4").tobytes()
    start = content.index(b"tkhd") + 44  # version 0: flags, times, number, duration, layer and volume come before
    return content[:start] + matrix + content[start + len(matrix) :]


def davis(folder: Path, sequence: str, count: int) -> dict[str, object]:
    root = Path(os.environ["OSMN_DATA_ROOT"]) / "davis"
    names = sorted((root / "JPEGImages/480p" / sequence).glob("*.jpg"))[:count]
    target = folder / f"{sequence}.mp4"
    write(target, (cv2.imread(str(name))[:, :, ::-1].copy() for name in names), "libx264", crf="12")
    middle = count // 2
    mask = cv2.imread(str(root / "Annotations/480p" / sequence / f"{middle:05d}.png"), cv2.IMREAD_GRAYSCALE) > 0
    return {"video": str(target), "box": fractions(mask), "middle": middle}


def long(folder: Path, count: int) -> str:
    frames = list(example())
    # There and back, so that nothing jumps.
    order = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
    target = folder / f"long{count}.mp4"
    write(target, (frames[order[i % len(order)]] for i in range(count)), "libx264", preset="veryfast")
    return str(target)


def fractions(mask: np.ndarray) -> list[float]:
    height, width = mask.shape
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    return [x / width, y / height, (x + w) / width, (y + h) / height]


def unpacked(path: Path) -> dict[str, np.ndarray]:
    from osmn_tf.masks.png import decode_png

    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: decode_png(archive.read(name), name).pixels for name in archive.namelist()}


def compare(archive: Path, folder: Path, given: int) -> dict[str, object]:
    masks = {Path(name).stem: mask for name, mask in unpacked(archive).items()}
    scores: dict[int, list[float]] = {}
    for index, (name, mask) in enumerate(sorted(masks.items())):
        other = unindexed(folder / f"{name}.png")
        for label in (set(np.unique(mask)) | set(np.unique(other))) - {0} if index != given else ():
            first, second = mask == label, other == label
            scores.setdefault(int(label), []).append(float((first & second).sum() / (first | second).sum()))
    every = [score for values in scores.values() for score in values]
    return {
        "frames": len(masks),
        "mean": float(np.mean(every)),
        "worst": min(every),
        "objects": {str(label): float(np.mean(values)) for label, values in scores.items()},
    }


def unindexed(path: Path) -> np.ndarray:
    from osmn_tf.masks.png import decode_png

    return decode_png(path.read_bytes(), path).pixels


def coco(path: Path, archive: Path) -> dict[str, object]:
    from pycocotools import mask as run_lengths

    content = json.loads(path.read_text())
    masks = [mask for _, mask in sorted(unpacked(archive).items())]
    for annotation in content["annotations"]:
        for mask, entry in zip(masks, annotation["segmentations"], strict=True):
            inside = mask == annotation["label"]
            assert np.array_equal(inside, run_lengths.decode(entry)) if entry is not None else not inside.any()
    return {"labels": [annotation["label"] for annotation in content["annotations"]], "frames": len(masks)}


def video(path: Path) -> dict[str, object]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        count = sum(1 for _ in container.decode(video=0))
        alpha = stream.metadata.get("alpha_mode") or stream.metadata.get("ALPHA_MODE")
        return {"frames": count, "width": stream.width, "height": stream.height, "alpha": alpha, "codec": stream.name}


def native(network: Path, path: Path, first: Path, threads: int, count: int) -> dict[str, object]:
    from osmn_tf.inference.segmenter import VideoSegmenter
    from osmn_tf.masks.files import read_mask

    segmenter = VideoSegmenter(str(network), threads=threads)
    begin = 0.0
    with av.open(str(path)) as container:
        for index, picture in enumerate(container.decode(video=0)):
            frame = picture.to_ndarray(format="rgb24")
            if index == 0:
                segmenter.start(frame, read_mask(first))
                begin = time.perf_counter()
            else:
                segmenter.step(frame)
            if index == count:
                break
    return {"fps": count / (time.perf_counter() - begin), "threads": threads, "frames": count}


def main(command: str, *arguments: str) -> object:
    paths = [Path(argument) for argument in arguments]
    if command == "make":
        return make(paths[0])
    if command == "davis":
        return davis(paths[0], arguments[1], int(arguments[2]))
    if command == "long":
        return long(paths[0], int(arguments[1]))
    if command == "box":
        return fractions(unindexed(paths[0]) == int(arguments[1]))
    if command == "compare":
        return compare(paths[0], paths[1], int(arguments[2]))
    if command == "unzip":
        with zipfile.ZipFile(paths[0]) as archive:
            archive.extractall(paths[1])
            return archive.namelist()
    if command == "coco":
        return coco(paths[0], paths[1])
    if command == "native":
        return native(*paths[:3], int(arguments[3]), int(arguments[4]))
    return video(paths[0])


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
