"""The clients against a server without this package: same masks, restarts, time-outs, and what errors say."""

from __future__ import annotations

import contextlib
import http.server
import json
import runpy
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from support import needs_tensorflow

from osmn_tf.client import GrpcPredictor, RemotePredictor, RestPredictor, ServerError
from osmn_tf.client.predictor import encode_frame, split_address
from osmn_tf.client.transport import Patience, TransientError, Transport, readable
from osmn_tf.errors import InputError, MissingDependencyError
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.masks.files import read_label_png, write_mask
from osmn_tf.video.source import write_video

SCRIPT = Path(__file__).parents[2] / "tools" / "serving" / "segment.py"
PREDICTORS = {"grpc": GrpcPredictor, "rest": RestPredictor}


@pytest.fixture
def connect(server):
    """Makes segmenters whose network is on the server, and closes them after the test."""
    with contextlib.ExitStack() as stack:

        def make(kind: str, model: str = "vgg", **options) -> VideoSegmenter:
            address = server.grpc if kind == "grpc" else server.rest
            return stack.enter_context(VideoSegmenter(PREDICTORS[kind](address, model, **options)))

        yield make


def tracked(segmenter, frames, mask) -> list[np.ndarray]:
    return [found for _, found in segmenter.track(frames, mask)]


@pytest.fixture(scope="module")
def expected(vgg_folder, clip):
    """The masks of the clip, without a server (which `test_saved_model` compares with the segmenter)."""
    return tracked(VideoSegmenter(vgg_folder), *clip)


# The same masks -------------------------------------------------------------------------------------------------


@needs_tensorflow
@pytest.mark.parametrize(("kind", "encoding"), [("grpc", "raw"), ("grpc", "png"), ("rest", "png")])
def test_masks_are_the_models(server, connect, clip, expected, kind, encoding) -> None:
    assert server.tell("modules") == "none"  # the server has not imported this package
    with connect(kind, encoding=encoding) as segmenter:
        np.testing.assert_array_equal(tracked(segmenter, *clip), expected)
        assert segmenter.labels == (1, 2, 3)


@needs_tensorflow
def test_jpeg_changes_pixels_and_is_smaller(connect, clip, expected) -> None:
    with connect("grpc", encoding="jpeg") as segmenter:
        masks = tracked(segmenter, *clip)
    # How few, of a network that has learned something, the notebook on serving shows.
    assert 0 < max((a != b).mean() for a, b in zip(masks, expected)) < 0.3
    assert len(encode_frame(clip[0][0], "jpeg")) < 0.7 * len(encode_frame(clip[0][0], "png"))


@needs_tensorflow
@pytest.mark.parametrize(("kind", "encoding"), [("grpc", "raw"), ("rest", "png")])
def test_objects_come_and_go_as_in_the_segmenter(connect, vgg, clip, kind, encoding) -> None:
    frames, mask = clip
    results = []
    for segmenter in (connect(kind, encoding=encoding), VideoSegmenter(vgg)):
        masks = [segmenter.start(frames[0], np.where(mask == 3, 0, mask).astype(np.uint8))]
        masks.append(segmenter.step(frames[1]))
        moved = np.where(mask == 3, 7, 0).astype(np.uint8)
        masks.append(segmenter.add(frames[2], moved))
        segmenter.remove(1)
        assert segmenter.labels == (2, 7)
        masks.append(segmenter.step(frames[3]))
        masks.append(segmenter.add(frames[4], np.where(mask == 2, 2, 0).astype(np.uint8)))  # begins again
        assert segmenter.labels == (7, 2)
        masks.append(segmenter.step(frames[5]))
        results.append(masks)
    assert {2, 7} <= set(np.unique(results[0][2]))
    assert not (results[0][3] == 1).any()
    for found, wanted in zip(*results):
        assert (found != wanted).mean() <= 0.001


# Interruptions --------------------------------------------------------------------------------------------------


@needs_tensorflow
@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_a_video_survives_a_restart_of_the_server(server, connect, clip, expected, kind) -> None:
    frames, mask = clip
    masks = []
    with connect(kind, retry_for=60) as segmenter:
        for index, (_, found) in enumerate(segmenter.track(frames, mask)):
            masks.append(found)
            if index == 2:
                assert server.tell("stop") == "done"
                timer = threading.Timer(0.5, server.tell, ["start"])
                timer.start()
        timer.join()
    np.testing.assert_array_equal(masks, expected)


@needs_tensorflow
@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_server_down(server, connect, clip, kind) -> None:
    server.tell("stop")
    try:
        began = time.monotonic()
        with pytest.raises(
            ServerError, match=r"the server cannot be reached \(.*refused\) \(tried \d+ times in \d+\.\d s"
        ):
            connect(kind, retry_for=0.5).start(clip[0][0], clip[1])
        assert time.monotonic() - began < 50  # by default it would be 60 and more
        with pytest.raises(ServerError, match=r"\(tried once\)"):
            connect(kind, retry_for=0).start(clip[0][0], clip[1])
    finally:
        server.tell("start")


@needs_tensorflow
@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_time_out(server, connect, clip, kind) -> None:
    server.tell("delay 1")
    try:
        with pytest.raises(ServerError, match=r"no answer within 0\.2 s \(tried \d+ times"):
            connect(kind, timeout=0.2, retry_for=2).start(clip[0][0], clip[1])
    finally:
        server.tell("delay 0")


@needs_tensorflow
@pytest.mark.parametrize(("kind", "encoding"), [("grpc", "raw"), ("rest", "png")])
def test_a_snapshot_continues_in_another_client(connect, clip, expected, tmp_path, kind, encoding) -> None:
    frames, mask = clip
    first = connect(kind, encoding=encoding)
    first.start(frames[0], mask)
    first.step(frames[1])
    np.savez(tmp_path / "video.npz", **first.snapshot())
    second = connect(kind, encoding=encoding)
    with np.load(tmp_path / "video.npz") as stored:
        second.restore(dict(stored))
    np.testing.assert_array_equal(second.step(frames[2]), expected[2])
    other_kind = connect("grpc", encoding="png" if encoding == "raw" else "raw")
    with np.load(tmp_path / "video.npz") as stored, pytest.raises(InputError, match="state is not of vgg version 3"):
        other_kind.restore(dict(stored))


# What errors say ------------------------------------------------------------------------------------------------


@needs_tensorflow
@pytest.mark.parametrize("kind", ["grpc", "rest"])
@pytest.mark.parametrize(("options", "which"), [({"model": "nets"}, "'nets'"), ({"version": 9}, "'vgg' version 9")])
def test_no_such_model(connect, clip, kind, options, which) -> None:
    with pytest.raises(ServerError, match=f": the server has no model {which} \\(Servable not found"):
        connect(kind, **options).start(clip[0][0], clip[1])


@needs_tensorflow
@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_missing_signature(connect, clip, kind, monkeypatch) -> None:
    monkeypatch.setattr(RemotePredictor, "_step", "forward")
    message = r"model 'vgg' version 3 has no signature 'forward'; it has modulate, .*step_scores\. Was it written by"
    with pytest.raises(ServerError, match=message):
        connect(kind).start(clip[0][0], clip[1])


@needs_tensorflow
@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_state_of_another_model(connect, clip, kind) -> None:
    frames, mask = clip
    segmenter = connect(kind)
    segmenter.start(frames[0], mask)
    snapshot = segmenter.snapshot()
    digest_changed = {
        **snapshot,
        "carried/session_bytes": snapshot["carried/session_bytes"]
        ^ np.eye(1, snapshot["carried/session_bytes"].shape[1], dtype=np.uint8),
    }
    segmenter.restore(digest_changed)
    with pytest.raises(ServerError, match=r"session_bytes: not of this model and .*another digest"):
        segmenter.step(frames[1])
    segmenter.restore({**snapshot, "carried/session_bytes": snapshot["carried/session_bytes"][:, 3:]})
    with pytest.raises(ServerError, match="a record has another length"):
        segmenter.step(frames[1])
    with pytest.raises(InputError, match="its state is of other version 3, this model is vgg version 3"):
        segmenter.restore({**snapshot, "model": np.array("other")})


@needs_tensorflow
def test_state_of_another_shape_or_dtype(connect, clip) -> None:
    frames, mask = clip
    segmenter = connect("grpc", encoding="raw")
    segmenter.start(frames[0], mask)
    carried = dict(segmenter.predictor._carried)
    for name, change, message in (
        ("modulation", lambda x: np.pad(x, ((0, 0), (0, 5))), r"modulation: the shape \[3,149\] is not compatible"),
        ("conv3_lstm_h", lambda x: x[:, 1:], r"conv3_lstm_h: the shape \[3,15,24,8\] is not compatible"),
        ("guide_masks", lambda x: x[1:], "guide_masks and state: expected the same number of objects"),
        ("conv3_lstm_c", lambda x: x.astype(np.float64), "double"),
    ):
        segmenter.predictor._carried = {**carried, name: change(carried[name])}
        with pytest.raises(ServerError, match=message) as error:
            segmenter.step(frames[1])
        assert "\n" not in str(error.value)
    segmenter.predictor._carried = carried
    with pytest.raises(InputError, match="its state is not of vgg version 3"):
        segmenter.restore({**segmenter.snapshot(), "carried/modulation": carried["modulation"][:, 1:]})


@needs_tensorflow
def test_wrong_frames_and_masks(connect, clip) -> None:
    frames, mask = clip
    segmenter = connect("grpc")
    with pytest.raises(InputError, match="frame: expected uint8 RGB"):
        tracked(segmenter, [frames[0].astype(np.float32)], mask)
    with pytest.raises(InputError, match="mask: expected 285 x 160 pixels as the frame has, received 280 x 160"):
        segmenter.start(frames[0], mask[:, 5:])
    segmenter.start(frames[0], mask)
    with pytest.raises(InputError, match="frame: expected 285 x 160 pixels as in the first frame"):
        segmenter.step(frames[0][1:])
    # What the server itself says to other clients
    transport = segmenter.predictor.transport
    for inputs, message in (
        (
            {"frame": frames[0], "mask": mask[1:]},
            r"mask: expected height and.*\[160 285\] \[159 285\]",
        ),
        ({"frame": frames[0][..., 0], "mask": mask}, r"frame: the shape \[160,285\] is not compatible with"),
        ({"frame": frames[0].astype(np.float32), "mask": mask}, "float vs. expect uint8"),
        ({"frame": frames[0], "mask": 0 * mask}, "mask: no object in it"),
        ({"frame": frames[0]}, "Missing but required: {mask}"),
    ):
        with pytest.raises(ServerError, match=message):
            transport.predict("modulate", inputs, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *[
            (lambda address=address: RestPredictor(address, "m"), "address: expected http://HOST:PORT")
            for address in (
                "localhost:8501",
                "http://localhost:port",
                "http://localhost:99999",
                "http://localhost:0",
                "http://localhost:-1",
                "http://[::1",
                "http://a..b:80",
                "http://a b:80",
                "http://:80",
                "http://localhost:80?x=1",
                "",
            )
        ],
        *[
            (lambda address=address: GrpcPredictor(address, "m"), "address: expected HOST:PORT")
            for address in ("localhost", "localhost:port", "localhost:99999", "localhost:0", ":8500", "")
        ],
        (lambda: RestPredictor("http://localhost:8501", "m", encoding="raw"), "encoding: expected png or jpeg"),
        (
            lambda: RestPredictor("http://localhost:8501", "m", encoding="gif"),
            "encoding: expected one of png, jpeg, raw",
        ),
        (lambda: RestPredictor("http://localhost:8501", "m", timeout=0), "timeout: expected a positive number"),
        (lambda: RestPredictor("http://localhost:8501", "m", retry_for=-1), "retry_for: expected 0 or more"),
    ],
)
def test_wrong_arguments(make, message) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_addresses_of_networks() -> None:
    assert split_address("grpc://localhost:8500/lite") == ("localhost:8500", "lite")
    assert split_address("http://localhost:8501/lite/") == ("http://localhost:8501", "lite")
    assert split_address("https://host/prefix/my%20lite") == ("https://host/prefix", "my lite")
    for address in ("ftp://host/lite", "grpc://host:8500", "grpc://", "http:///lite", "://host/lite"):
        with pytest.raises(InputError, match="expected grpc://HOST:PORT/NAME, http://HOST:PORT/NAME or") as error:
            VideoSegmenter(address)
        assert "\n" not in str(error.value)


def test_options_that_only_the_exporter_has() -> None:
    for option, value in {"merge": "soft", "network_size": (96, 160), "precision": "float32", "threads": 2}.items():
        with pytest.raises(InputError, match=f"{option}: an exported network does as it was exported, received"):
            VideoSegmenter("http://localhost:1/lite", **{option: value})


@pytest.mark.parametrize(("module", "package"), [("grpc", "grpcio"), ("tensorflow_serving", "tensorflow-serving-api")])
def test_missing_extra(monkeypatch, module, package) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=rf"'{package}', which is not installed.*osmn-tf\[serving\]"):
        GrpcPredictor("localhost:8500", "m")


# Answers of servers that are none of ours -----------------------------------------------------------------------


@pytest.fixture
def web_server():
    """An HTTP server that gives the answers in `answers`, (status, body), in turn."""
    answers: list[tuple[int, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answers.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", answers
    server.shutdown()
    server.server_close()
    thread.join()


def start_once(segmenter, clip) -> None:
    with segmenter:
        segmenter.start(clip[0][0], clip[1])


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"<html>", "the answer is no JSON object"),
        (200, b"{}", "the answer does not describe a model's signatures"),
        (500, b"oops", r"Internal Server Error \(HTTP 500\)"),
        (404, b"nginx", r"the server has no model 'm' \(Not Found\)"),
        (400, b'{"error": "Malformed request"}', r"Malformed request \(HTTP 400\)"),
        (503, b'{"error": "loading"}', r"loading \(HTTP 503\) \(tried once\)"),
    ],
)
def test_strange_answers(web_server, clip, status, body, message) -> None:
    where, answers = web_server
    answers.append((status, body))
    with pytest.raises(ServerError, match=message) as error:
        start_once(VideoSegmenter(RestPredictor(where, "m", retry_for=0)), clip)
    assert "\n" not in str(error.value)


def test_an_overloaded_server_is_asked_again(web_server, clip) -> None:
    where, answers = web_server
    answers += [(503, b""), (429, b""), (404, b"{}")]
    with pytest.raises(ServerError, match="has no model"):
        start_once(VideoSegmenter(RestPredictor(where, "m", retry_for=5)), clip)
    assert answers == []


# Without a server -----------------------------------------------------------------------------------------------


NINE = np.full((4, 6), 9, np.uint8)


class EchoTransport(Transport):
    """A model whose mask is the frame's red channel; counts steps, and fails when told to."""

    def __init__(self) -> None:
        super().__init__("nowhere", "echo")
        self.reads_before_step: list[int] = []
        self.read = 0  # index of the last frame that was read
        self.awaits = [0] * 20  # a step is not done before this frame is read, or a minute has passed

    def describe(self, version):
        import ml_dtypes

        carried = {"labels": ("int32", (None,)), "h": (ml_dtypes.bfloat16.__name__, (None, 2))}
        return version or 4, {"modulate": {}, "step": {"frame": ("uint8", (None, None, 3)), **carried}}

    def predict(self, signature, inputs, version):
        import ml_dtypes

        if signature == "modulate":
            labels = np.setdiff1d(inputs["mask"], [0]).astype(np.int32)
            return {"labels": labels, "h": np.ones((len(labels), 2), ml_dtypes.bfloat16)}
        time.sleep(0.02)
        for _ in range(6000):  # a busy machine may be slow to read
            if self.read >= self.awaits[len(self.reads_before_step)]:
                break
            time.sleep(0.01)
        self.reads_before_step.append(self.read)
        return {"mask": inputs["frame"][..., 0], "h": inputs["h"] * 2}


def test_frames_are_read_while_the_server_works() -> None:
    transport = EchoTransport()
    transport.awaits = [2, 3, 4, 4]

    def frames():
        for index in range(5):
            transport.read = index
            yield np.full((4, 6, 3), 1 if index else 0, np.uint8)

    masks = tracked(VideoSegmenter(RemotePredictor(transport, "raw")), frames(), np.full((4, 6), 9, np.uint8))
    assert [int(mask[0, 0]) for mask in masks] == [9] * 5  # the server's label 1 is object 9
    assert transport.reads_before_step == [2, 3, 4, 4]  # always one frame ahead


def test_reading_stops_with_the_caller() -> None:
    read = []

    def frames():
        for index in range(1000):
            read.append(index)
            yield np.zeros((4, 6, 3), np.uint8)

    tracking = VideoSegmenter(RemotePredictor(EchoTransport(), "raw")).track(frames(), np.ones((4, 6), np.uint8))
    next(tracking)
    next(tracking)
    tracking.close()
    assert len(read) <= 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_a_source_may_fill_one_buffer_again_and_again() -> None:
    """Every step gets its own frame, and so does who goes through the masks."""
    transport = EchoTransport()
    transport.awaits = [2, 3, 4, 4]

    def frames():
        buffer = np.empty((4, 6, 3), np.uint8)
        for index in range(5):
            buffer[...] = index % 2
            yield buffer
            transport.read = index + 1

    predictor = RemotePredictor(transport, "raw")
    found = [(int(frame[0, 0, 0]), int(mask[0, 0])) for frame, mask in VideoSegmenter(predictor).track(frames(), NINE)]
    assert found == [(0, 9), (1, 9), (0, 0), (1, 9), (0, 0)]


def test_errors_of_the_source_come_out() -> None:
    def frames():
        yield np.zeros((4, 6, 3), np.uint8)
        raise InputError("clip.mp4: damaged")

    with pytest.raises(InputError, match=r"clip\.mp4: damaged"):
        tracked(VideoSegmenter(RemotePredictor(EchoTransport(), "raw")), frames(), np.ones((4, 6), np.uint8))


def test_bfloat16_survives_a_file(tmp_path) -> None:
    segmenter = VideoSegmenter(RemotePredictor(EchoTransport(), "raw"))
    frame = np.zeros((4, 6, 3), np.uint8)
    segmenter.start(frame, np.ones((4, 6), np.uint8))
    segmenter.step(frame)
    np.savez(tmp_path / "video.npz", **segmenter.snapshot())
    other = VideoSegmenter(RemotePredictor(EchoTransport(), "raw"))
    with np.load(tmp_path / "video.npz") as stored:
        other.restore(dict(stored))
    assert other.predictor._carried["h"].dtype.name == "bfloat16"
    assert other.predictor._carried["h"].astype(np.float32).tolist() == [[2.0, 2.0]]


def test_more_objects_than_labels_on_the_server() -> None:
    segmenter = VideoSegmenter(RemotePredictor(EchoTransport(), "raw"))
    frame = np.zeros((4, 6, 3), np.uint8)
    mask = np.zeros((4, 6), np.uint8)
    for label in range(1, 255):
        mask[0, 0] = label
        segmenter.add(frame, mask)
        segmenter.remove(label)  # ids are used again
    assert segmenter.labels == ()


def test_pauses_grow_until_patience_ends(monkeypatch) -> None:
    clock, pauses = [100.0], []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def fail():
        clock[0] += 0.01
        raise TransientError("away")

    with pytest.raises(ServerError, match=r"^here: away \(tried \d+ times in \d+\.\d s\)$"):
        Patience(retry_for=10).call(fail, "here")
    assert 0.05 <= pauses[0] <= 0.1
    assert 0.1 <= pauses[1] <= 0.2
    assert max(pauses) <= 2.0
    assert 7 < sum(pauses) < 10


def test_readable() -> None:
    message = (
        "Graph execution error:\n\nDetected at node Assert/Assert defined at (most recent call last):\n"
        "<stack traces unavailable>\nassertion failed: [mask: two sizes:] [160 285] [157 285]\n\t [[{{node A}}]] [Op:f]"
    )
    assert readable(message) == "mask: two sizes: [160 285] [157 285]"
    assert (
        readable("Detected at node X\n  Unknown image file format.\n\t [[{{node D}}]]") == "Unknown image file format."
    )
    shape = "Shape of tensor PartitionedCall/a/Conv2d_5_lstm_h_1 [3,9] is not compatible with expected shape [?,12]."
    assert readable(shape) == "Conv2d_5_lstm_h: the shape [3,9] is not compatible with expected shape [?,12]."
    assert readable("") == "no message"


def test_measuring_counts_steps_bytes_and_time() -> None:
    from osmn_tf.benchmarks.client import Speed, format_table, measure

    transport = EchoTransport()
    frames = [np.zeros((4, 6, 3), np.uint8)] * 2
    speed = measure("echo", RemotePredictor(transport, "raw"), frames, np.ones((4, 6), np.uint8), steps=5, warm_up=3)
    assert len(transport.reads_before_step) == 8
    assert len(speed.seconds) == 5
    assert min(speed.seconds) >= 0.02
    with pytest.raises(InputError, match="received 2 and 0"):
        measure("echo", RemotePredictor(transport, "raw"), frames, np.ones((4, 6), np.uint8), steps=0)
    table = format_table([Speed("gRPC, png", (0.1, 0.1, 0.1, 0.3, 0.2), 0.05, 2048.0, 1500.0)])
    assert table.splitlines()[1].split() == ["gRPC,", "png", "6.2", "100.0", "260.0", "296.0", "50.0", "2.0", "1.5"]


@needs_tensorflow
def test_benchmark_command(server, vgg_folder, clip, tmp_path, capsys) -> None:
    from osmn_tf.cli.main import main

    document = json.loads((vgg_folder / "assets.extra/osmn_tf.json").read_text(encoding="utf-8"))
    session = document["session"]["bytes_per_object"] / 1000

    write_video(tmp_path / "clip.mp4", [frame[:160, :284] for frame in clip[0][:2]], 24)
    write_mask(tmp_path / "first.png", clip[1][:160, :284])
    command = ["benchmark", "serving", str(tmp_path / "clip.mp4"), "--mask", str(tmp_path / "first.png")]
    assert main([*command, "--server", server.grpc, "--rest", server.rest, "--model", "vgg", "--steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:10] for line in lines[1:6]] == ["gRPC, raw ", "gRPC, png ", "gRPC, jpeg", "REST, png ", "REST, jpeg"]
    received = {line[:10].strip(): float(line.split()[-1]) for line in lines[1:6]}
    assert 0 < received["gRPC, png"] - 3 * session < 3  # a small PNG
    assert received["REST, png"] == pytest.approx(received["gRPC, png"] * 4 / 3, rel=0.01)  # base64
    assert lines[6].startswith("284 x 160 pixels, 3 objects; load average")


@needs_tensorflow
@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_script_writes_the_masks_of_a_video(server, clip, tmp_path, capsys, kind) -> None:
    frames, mask = clip
    frames, mask = [frame[:160, :284] for frame in frames[:3]], mask[:160, :284]  # video codecs want even sides
    write_video(tmp_path / "clip.mp4", frames, 24)
    write_mask(tmp_path / "first.png", mask)
    main = runpy.run_path(str(SCRIPT))["main"]
    address = server.grpc if kind == "grpc" else server.rest
    command = [str(tmp_path / "clip.mp4"), "--mask", str(tmp_path / "first.png"), "--out", str(tmp_path / "out")]
    assert main([*command, "--server", address, "--model", "vgg", "--encoding", "jpeg"]) == 0
    assert "3 masks written to" in capsys.readouterr().out
    np.testing.assert_array_equal(read_label_png(tmp_path / "out" / "00000.png"), mask)
    last = read_label_png(tmp_path / "out" / "00002.png")
    assert ((last > 0) & (mask > 0)).sum() > 0.5 * (mask > 0).sum()
    assert main([*command, "--server", address]) == 2
    assert "the server has no model 'osmn_match_lite'" in capsys.readouterr().err
