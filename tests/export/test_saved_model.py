"""Exported SavedModels against the Keras segmenter, their files, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from support import TINY_VGG, WHOLE_NETWORK, assert_close, box_mask, needs_tensorflow, random_frames, randomise

from osmn_tf.client import SavedModelPredictor
from osmn_tf.errors import InputError, MissingDependencyError
from osmn_tf.inference.segmenter import VideoSegmenter
from osmn_tf.masks.files import write_mask

pytestmark = needs_tensorflow

LITE_SIZE = (96, 160)


def differing(masks, others) -> float:
    """The largest share of pixels that differ in a frame."""
    return max(float((mask != other).mean()) for mask, other in zip(masks, others, strict=True))


def tracked(segmenter, frames, mask) -> list[np.ndarray]:
    return [found for _, found in segmenter.track(frames, mask)]


@pytest.fixture(scope="module")
def lite_client(lite_folder):
    return VideoSegmenter(lite_folder)


@pytest.fixture(scope="module")
def lite_segmenter(lite):
    return VideoSegmenter(lite, LITE_SIZE, keep_scores=True)


@pytest.fixture(scope="module")
def vgg_segmenter(vgg):
    return VideoSegmenter(vgg)


@pytest.fixture(scope="module")
def vgg_client(vgg_folder):
    return VideoSegmenter(vgg_folder)


# Equal to the Keras segmenter -----------------------------------------------------------------------------------


def test_lite_gives_the_segmenters_masks(lite_segmenter, lite_client, clip) -> None:
    """Of a size that is no multiple of the network's; at the clip's own, scores and states are compared below."""
    frames, mask = [np.ascontiguousarray(frame[:131, ::2]) for frame in clip[0]], clip[1][:131, ::2]
    expected = tracked(lite_segmenter, frames, mask)
    assert {int(label) for label in np.unique(expected[-1])} >= {0, 1}
    # Averages of areas that lie between two grey values may be rounded to either: what differs then is carried along.
    assert differing(tracked(lite_client, frames, mask), expected) <= 0.002


@pytest.mark.parametrize(("count", "size"), [(1, (64, 96)), (3, (75, 50))])
def test_vgg_gives_the_segmenters_masks(vgg_segmenter, vgg_client, count, size) -> None:
    height, width = size
    frames = list(random_frames(4, height, width, seed=count))
    boxes = [(5, 25, 5, 25), (30, 60, 10, 30), (20, 50, 31, 49)][:count]
    mask = box_mask(height, width, *boxes)
    expected = tracked(vgg_segmenter, frames, mask)
    assert expected[1].any()
    assert differing(tracked(vgg_client, frames, mask), expected) <= 0.001


@pytest.mark.real_data
@pytest.mark.slow
def test_fifty_real_frames_with_two_objects(lite_segmenter, lite_client) -> None:
    root = os.environ.get("OSMN_DATA_ROOT")
    if root is None:
        pytest.skip("OSMN_DATA_ROOT is not set")
    from osmn_tf.masks.files import read_mask
    from osmn_tf.video.source import open_source

    frames = list(open_source(Path(root) / "davis/JPEGImages/480p/hike", end=50))
    person = read_mask(Path(root) / "davis/Annotations/480p/hike/00000.png")
    rows = np.flatnonzero(person.any(axis=1))
    mask = np.where(np.arange(len(person))[:, None] < rows.mean(), person, 2 * person)  # the upper and the lower half
    expected = tracked(lite_segmenter, frames, mask)
    assert len(expected) == 50
    assert {1, 2} & set(np.unique(expected[-1]).tolist())
    # As above: grey values between two whole ones may be rounded to either, and what differs is carried along.
    assert differing(tracked(lite_client, frames, mask), expected) <= 0.002


def test_scores_and_state_are_the_segmenters(lite_segmenter, lite_client, clip) -> None:
    frames, mask = clip
    segmenter = lite_segmenter
    segmenter.start(frames[0], mask)
    signatures = lite_client.predictor.transport.signatures
    carried = signatures["modulate"](frame=frames[0], mask=mask)
    assert carried["labels"].numpy().tolist() == [1, 2, 3]
    for frame in frames[1:3]:
        segmenter.step(frame)
        answer = signatures["step_scores"](frame=frame, **carried)
        carried.update({name: value for name, value in answer.items() if name in carried})
        expected = np.stack([segmenter.scores[label] for label in (1, 2, 3)])
        assert_close(answer["scores"], expected, WHOLE_NETWORK)
        snapshot = segmenter.snapshot()
        np.testing.assert_array_equal(answer["guide_masks"], snapshot["guide_masks"])
        for name in ("Conv2d_5_lstm_h", "Conv2d_13_lstm_c"):
            assert_close(answer[name], snapshot[f"state/{name}"], WHOLE_NETWORK)


def test_clip_signatures_are_the_steps(lite_client, clip) -> None:
    import tensorflow as tf

    frames, mask = clip[0][:4], np.where(clip[1] == 2, 0, clip[1]).astype(np.uint8)
    mask[:2] = 255  # unlabelled
    expected = tracked(lite_client, frames, mask)
    assert set(np.unique(expected[3])) == {0, 1, 3}
    signatures = lite_client.predictor.transport.signatures
    masks = signatures["segment_clip"](frames=np.stack(frames), mask=mask)["masks"].numpy()
    np.testing.assert_array_equal(masks, expected)
    encoded = signatures["segment_clip_encoded"](
        frames_bytes=tf.constant([cv2.imencode(".png", frame[..., ::-1])[1].tobytes() for frame in frames]),
        mask_bytes=tf.constant(cv2.imencode(".png", mask)[1].tobytes()),
    )["masks_bytes"].numpy()
    decoded = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) for data in encoded]
    np.testing.assert_array_equal(decoded, expected)


@pytest.fixture(scope="module")
def modules():
    """Makes a SegmenterModule and its segmenter, without tracing and writing all signatures; each one once."""
    from osmn_tf.export.graph import SegmenterModule
    from osmn_tf.export.saved_model import make_record

    made = {}

    def make(model, **options):
        key = (model, *options.items())
        if key not in made:
            segmenter = VideoSegmenter(model, **options)
            step = segmenter.predictor.step
            made[key] = SegmenterModule(step, make_record(step, "float32", b"12345678")), segmenter
        return made[key]

    return make


def run_module(module, frames, mask, record=None):
    """Masks of a clip by a module's functions, run eagerly; with the session in records between frames, if given."""
    labels, modulation, guide_masks, state = module.begin(frames[0], mask)
    masks = [mask]
    for frame in frames[1:]:
        if record is not None:
            session = record.pack(labels, modulation, guide_masks, state)
            labels, modulation, guide_masks, state = record.unpack(session)
        found, guide_masks, state, _ = module.advance(frame, labels, modulation, guide_masks, state)
        masks.append(found.numpy())
    return masks


def test_options_are_the_segmenters(vgg, modules) -> None:
    frames = list(random_frames(4, 70, 110, seed=3))
    mask = box_mask(70, 110, (10, 40, 10, 50), (30, 66, 40, 90))
    options = {"merge": "soft", "exclusive": False, "recover": False, "search_window": True, "network_size": (48, 80)}
    module, segmenter = modules(vgg, **options)
    expected = tracked(segmenter, frames, mask)
    assert differing(run_module(module, frames, mask), expected) <= 0.001
    defaults = VideoSegmenter(vgg, network_size=(48, 80))
    assert differing(tracked(defaults, frames, mask), expected) > 0.01  # the options make a difference


@pytest.fixture(scope="module")
def stateless():
    from osmn_tf.models.osmn import OSMN

    return randomise(OSMN(**TINY_VGG, network_size=(64, 96)), seed=2)


def test_a_network_without_recurrence(stateless, modules) -> None:
    frames = list(random_frames(3, 70, 110, seed=4))
    mask = box_mask(70, 110, (10, 40, 10, 50))
    module, segmenter = modules(stateless)
    assert module.record.state == {}
    masks = run_module(module, frames, mask, module.record)
    assert differing(masks, tracked(segmenter, frames, mask)) <= 0.001


def test_an_object_between_the_sampled_pixels_is_begun(stateless, modules) -> None:
    module, _ = modules(stateless)
    mask = np.zeros((640, 960), np.uint8)
    mask[100, 100] = 9
    labels, _, guide_masks, _ = module.begin(random_frames(640, 960), mask)
    assert labels.numpy().tolist() == [9]
    assert guide_masks.numpy().sum() >= 1


@pytest.mark.parametrize(("dtype", "share"), [("float16", 0.01), ("bfloat16", 0.03)])
def test_half_precision_state_changes_few_pixels(lite, modules, lite_segmenter, clip, dtype, share) -> None:
    frames, mask = clip
    module, _ = modules(lite, network_size=LITE_SIZE)
    record = dataclasses.replace(module.record, state_dtype=dtype)
    assert record.state_bytes * 2 == module.record.state_bytes
    masks = run_module(module, frames, mask, record)
    assert differing(masks, tracked(lite_segmenter, frames, mask)) <= share


# Decoding in the graph ------------------------------------------------------------------------------------------


def test_masks_are_read_as_read_mask_does(tmp_path) -> None:
    from osmn_tf.export.signatures import decode_mask

    mask = box_mask(20, 30, (1, 8, 2, 9), (10, 18, 3, 12), (5, 15, 20, 28))
    mask[mask == 3] = 200
    write_mask(tmp_path / "palette.png", mask)
    np.testing.assert_array_equal(decode_mask((tmp_path / "palette.png").read_bytes()), mask)
    grey = cv2.imencode(".png", mask)[1].tobytes()
    np.testing.assert_array_equal(decode_mask(grey), mask)
    black_and_white = cv2.imencode(".png", np.where(mask > 0, 255, 0).astype(np.uint8))[1].tobytes()
    np.testing.assert_array_equal(decode_mask(black_and_white), mask > 0)


def test_jpegs_are_decoded_as_opencv_does(clip) -> None:
    from osmn_tf.export.signatures import decode_frame

    data = cv2.imencode(".jpg", clip[0][0][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    expected = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
    difference = np.abs(decode_frame(data.tobytes()).numpy().astype(int) - expected)
    assert (difference > 1).mean() < 0.001


# The session's records ------------------------------------------------------------------------------------------


def test_record_layout() -> None:
    from osmn_tf.export.session_record import SessionRecord

    record = SessionRecord(b"ABCDEFGH", 2, (3, 5), {"h": (1, 2, 1), "c": (1, 1, 1)}, "float16")
    guide = np.zeros((1, 3, 5), np.uint8)
    guide[0, 0, 0] = guide[0, 1, 4] = guide[0, 2, 4] = 1  # bits 0, 9 and 14
    state = {"h": np.array([[[[1.0], [-2.0]]]], np.float32), "c": np.array([[[[0.5]]]], np.float32)}
    (data,) = record.pack(np.array([7], np.int32), np.array([[1.0, -1.0]], np.float32), guide, state).numpy()
    assert data.hex() == (
        "4142434445464748"  # digest
        "07"  # label
        "0000803f000080bf"  # 1 and -1 as float32
        "8042"  # guide, one bit a pixel
        "003c00c0"  # 1 and -2 as float16
        "0038"  # 0.5
    )
    assert len(data) == record.length == 25


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_records_round_trip(dtype) -> None:
    from osmn_tf.export.session_record import SessionRecord

    rng = np.random.default_rng(0)
    record = SessionRecord(b"ABCDEFGH", 11, (7, 9), {"a": (2, 3, 4), "b": (1, 1, 2)}, dtype)
    labels = np.array([1, 254, 3], np.int32)
    modulation = rng.standard_normal((3, 11), np.float32)
    guides = rng.integers(0, 2, (3, 7, 9)).astype(np.uint8)
    state = {name: rng.integers(-8, 8, (3, *shape)).astype(np.float32) for name, shape in record.state.items()}
    session = record.pack(labels, modulation, guides, state)
    assert session.shape == (3,)
    back = record.unpack(session)
    for value, expected in zip(back[:3], (labels, modulation, guides)):
        np.testing.assert_array_equal(value, expected)
    for name, value in state.items():
        np.testing.assert_array_equal(back[3][name].numpy().astype(np.float32), value)


def test_foreign_records_are_refused() -> None:
    import tensorflow as tf

    from osmn_tf.export.session_record import SessionRecord

    record = SessionRecord(b"ABCDEFGH", 1, (2, 2), {}, "float32")
    good = b"ABCDEFGH" + bytes(6)
    assert record.unpack(tf.constant([good]))[0].numpy().tolist() == [0]
    with pytest.raises(tf.errors.InvalidArgumentError, match="another digest"):
        record.unpack(tf.constant([good, b"ABCDEFGX" + bytes(6)]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="another length"):
        record.unpack(tf.constant([good + b"\0"]))


# The folder -----------------------------------------------------------------------------------------------------


def test_folder_is_as_serving_reads_it(lite_folder, lite_client) -> None:
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    assert lite_folder.name == "3"
    assert lite_folder.parent.name == "reconvnet_lite"
    assert [path.name for path in lite_folder.parent.iterdir()] == ["3"]  # nothing else is left there
    document = json.loads((lite_folder / "assets.extra/osmn_tf.json").read_text())
    assert document["preset"]["licence"].startswith("Weights: CC BY-NC 4.0")
    assert document["settings"] == {
        "network_size": [96, 160],
        "merge": "argmax",
        "exclusive": True,
        "recover": True,
        "search_window": None,
        "state_dtype": "float32",
    }
    assert document["state"]["Conv2d_13_lstm_c"] == ["N", 3, 5, 128]
    assert document["signatures"]["step"]["inputs"]["modulation"] == {"dtype": "float32", "shape": [None, 2192]}
    for name, digest in document["sha256"].items():
        assert hashlib.sha256((lite_folder / name).read_bytes()).hexdigest() == digest

    signatures = lite_client.predictor.transport.signatures
    assert set(signatures) == set(document["signatures"])
    records = list(tf.data.TFRecordDataset(str(lite_folder / "assets.extra/tf_serving_warmup_requests")))
    assert 1 <= len(records) <= 1000  # TensorFlow Serving's limit
    requests = [prediction_log_pb2.PredictionLog.FromString(r.numpy()).predict_log.request for r in records]
    assert [request.model_spec.signature_name for request in requests] == list(document["signatures"])
    for request in requests:
        assert request.model_spec.name == "reconvnet_lite"
        function = signatures[request.model_spec.signature_name]
        # `parse_tensor` reads the message as TensorFlow Serving does: a single value is repeated.
        inputs = {name: tf.io.parse_tensor(x.SerializeToString(), x.dtype) for name, x in request.inputs.items()}
        specs = function.structured_input_signature[1]
        assert set(inputs) == set(specs)
        assert all(specs[name].is_compatible_with(value) for name, value in inputs.items())
        if request.model_spec.signature_name == "step_encoded":
            answer = function(**inputs)
            assert answer["session_bytes"].shape == (1,)


# What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a/b"}, "name: expected letters"),
        ({"version": 0}, "version: expected 1 or more, received 0"),
        ({"state_dtype": "int8"}, "state_dtype: expected one of float32, float16, bfloat16, received 'int8'"),
        ({"merge": "mean"}, "merge: expected one of"),
        ({"network_size": (16, 64)}, "network_size: expected at least 32 x 32"),
    ],
)
def test_wrong_arguments(vgg, tmp_path, options, message) -> None:
    from osmn_tf.export.saved_model import export_saved_model

    with pytest.raises(InputError, match=message):
        export_saved_model(vgg, tmp_path, warm_up=False, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_version_is_kept(lite, lite_folder) -> None:
    from osmn_tf.export.saved_model import export_saved_model

    before = (lite_folder / "fingerprint.pb").read_bytes()
    with pytest.raises(InputError, match=r"reconvnet_lite/3 exists; give another version, or force"):
        export_saved_model(lite, lite_folder.parents[1], version=3)
    assert (lite_folder / "fingerprint.pb").read_bytes() == before


def test_nothing_is_left_of_a_failed_export(vgg, tmp_path, monkeypatch) -> None:
    import tensorflow as tf

    from osmn_tf.export.graph import SegmenterModule
    from osmn_tf.export.saved_model import export_saved_model

    def fail(module, path, **_):
        Path(path).mkdir(parents=True)
        (Path(path) / "saved_model.pb").write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(SegmenterModule, "signatures", lambda self: {})  # tracing takes seconds
    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        export_saved_model(vgg, tmp_path, name="tiny", warm_up=False)
    assert list((tmp_path / "tiny").iterdir()) == []


def test_a_version_stays_until_the_new_one_is_in_its_place(vgg, tmp_path, monkeypatch) -> None:
    """Whatever happens while a version is replaced: there is a whole one."""
    import tensorflow as tf

    from osmn_tf.export import saved_model
    from osmn_tf.export.graph import SegmenterModule

    def save(content):
        def write(module, path, **_):
            Path(path).mkdir(parents=True)
            (Path(path) / "saved_model.pb").write_bytes(content)

        return write

    def export():
        return saved_model.export_saved_model(vgg, tmp_path, name="tiny", warm_up=False, force=True)

    monkeypatch.setattr(SegmenterModule, "signatures", lambda self: {})  # tracing takes seconds
    monkeypatch.setattr(tf.saved_model, "save", save(b"old"))
    graph = export() / "saved_model.pb"
    monkeypatch.setattr(tf.saved_model, "save", save(b"new"))
    replace = saved_model.os.replace

    def fail(source, target):
        if Path(target) == graph.parent and Path(source).suffix == ".part":
            raise OSError("no permission")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(saved_model.os, "replace", fail)
        with pytest.raises(OSError, match="no permission"):
            export()
    assert graph.read_bytes() == b"old"
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["1"]
    export()
    assert graph.read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["1"]


def test_warm_up_without_the_extra(vgg, tmp_path, monkeypatch) -> None:
    from osmn_tf.export.saved_model import export_saved_model

    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis.prediction_log_pb2", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'osmn-tf\[serving\]'"):
        export_saved_model(vgg, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_damaged_folders(lite_folder, tmp_path) -> None:
    folder = Path(shutil.copytree(lite_folder, tmp_path / "model" / "3"))
    variables = folder / "variables/variables.data-00000-of-00001"
    content = bytearray(variables.read_bytes())
    content[len(content) // 2] ^= 1
    variables.write_bytes(content)
    with pytest.raises(InputError, match=r"variables.data-00000-of-00001: damaged \(its SHA-256"):
        VideoSegmenter(folder)
    variables.unlink()
    with pytest.raises(InputError, match=r"variables.data-00000-of-00001: missing, the SavedModel is incomplete"):
        VideoSegmenter(folder.parent)  # finds the version
    (folder / "assets.extra/osmn_tf.json").write_text("{")
    with pytest.raises(InputError, match=r"osmn_tf.json: damaged, expected the JSON of 'osmn export'"):
        VideoSegmenter(folder)
    with pytest.raises(InputError, match=r"expected the folder of an exported version \(NAME/1\)"):
        SavedModelPredictor(tmp_path)
    with pytest.raises(InputError, match=r"has no config.json"):
        VideoSegmenter(tmp_path)


def test_a_damaged_graph_whose_checksum_nobody_knows(lite_folder, tmp_path) -> None:
    folder = Path(shutil.copytree(lite_folder, tmp_path / "3"))
    graph = folder / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:1000])
    metadata = folder / "assets.extra/osmn_tf.json"
    document = json.loads(metadata.read_text())
    del document["sha256"]["saved_model.pb"]
    metadata.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"cannot be loaded as a SavedModel \("):
        VideoSegmenter(folder)


# The command ----------------------------------------------------------------------------------------------------


def test_command_says_what_it_wrote(lite_export, capsys) -> None:
    from osmn_tf.cli.main import main

    folder, printed = lite_export
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert f"{folder}: {size / 1e6:.1f} MB" in printed
    # 8 + 1 + 4 * 2192 + 96 * 160 / 8 bytes and the state: h and c at strides 8, 16 and 32
    assert 2 * 4 * (12 * 20 * 48 + 6 * 10 * 96 + 3 * 5 * 128) == 153600
    assert "a session has 164,297 bytes per object, 153,600 of them the state of earlier frames (float32)" in printed
    command = ["export", "--preset", "reconvnet_lite", "--format", "saved-model", "--out", str(folder.parents[1])]
    assert main([*command, "--model-version", "3"]) == 2
    assert "reconvnet_lite/3 exists" in capsys.readouterr().err


def test_command_hands_litert_its_options(stateless, tmp_path, monkeypatch, capsys) -> None:
    from osmn_tf.cli.main import main
    from osmn_tf.datasets.examples import example_path
    from osmn_tf.export import litert

    calls = []

    def export_litert(model, out_dir, **options):
        calls.append((model, options))
        (Path(out_dir) / "step.tflite").write_bytes(bytes(1_300_000))

    monkeypatch.setattr(litert, "export_litert", export_litert)
    stateless.save_to_preset(tmp_path / "tiny", {"licence": "CC0"})
    clip = f"{example_path() / 'meadow.mp4'}:{example_path() / 'first_mask.png'}"
    command = ["export", "--preset", str(tmp_path / "tiny"), "--format", "litert", "--out", str(tmp_path / "out")]
    assert main([*command, "--quantize", "int8", "--size", "64x128", "--objects", "2", "--calibration", clip]) == 0
    assert "step.tflite: 1.3 MB" in capsys.readouterr().out
    ((model, options),) = calls
    assert model.get_config()["guide_size"] == 32
    ((frames, mask),) = options.pop("calibration")
    assert next(iter(frames)).shape == (480, 854, 3)
    assert mask.shape == (480, 854)
    assert options.pop("source")["licence"] == "CC0"
    assert options == {"size": (64, 128), "objects": 2, "quantize": "int8", "scales": ()}
    assert main(command) == 2
    assert "is not empty; give another folder, or --force" in capsys.readouterr().err
    assert main([*command, "--force", "--scales", "1.36", "2"]) == 0
    assert calls[1][1].pop("calibration") is None
    assert calls[1][1].pop("source")
    assert calls[1][1] == {"size": None, "objects": 1, "quantize": "none", "scales": [1.36, 2.0]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "saved-model", "--quantize", "int8"], "--quantize: is not an option of --format saved-model"),
        (["--format", "litert", "--state-dtype", "float16"], "--state-dtype: is not an option of --format litert"),
        (["--format", "saved-model", "--network-size", "96"], "--network-size: expected HxW"),
        (["--format", "litert", "--calibration", "clip.mp4"], "--calibration: expected VIDEO:PNG"),
        (["--format", "saved-model", "--preset", "nothing"], "no preset, folder or .keras file named 'nothing'"),
    ],
)
def test_command_refuses(tmp_path, capsys, options, message) -> None:
    from osmn_tf.cli.main import main

    assert main(["export", "--preset", "reconvnet_lite", "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
