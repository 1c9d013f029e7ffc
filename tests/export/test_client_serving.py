"""The files in tools/serving: valid for the server's own messages, and leading to masks."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import yaml
from support import needs_tensorflow

from osmn_tf.inference.masks import read_label_png, write_mask
from osmn_tf.inference.video_io import write_video

SERVING = Path(__file__).parents[2] / "tools" / "serving"


def message_class(name: str, messages: dict[str, dict[str, tuple[int, str]]]):
    """A protobuf message class: message -> field -> (number, "bool", "string" or the name of a message).

    The wheel of tensorflow-serving-api has not the messages of every configuration file.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="tensorflow.serving", syntax="proto3")
    field_type = descriptor_pb2.FieldDescriptorProto
    for message, fields in messages.items():
        described = file.message_type.add(name=message)
        for field, (number, kind) in fields.items():
            added = described.field.add(name=field, number=number, label=field_type.LABEL_OPTIONAL)
            if kind in ("bool", "string"):
                added.type = field_type.TYPE_BOOL if kind == "bool" else field_type.TYPE_STRING
            else:
                added.type, added.type_name = field_type.TYPE_MESSAGE, f".tensorflow.serving.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))


def test_models_config_is_a_model_server_config() -> None:
    pytest.importorskip("tensorflow_serving")
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = text_format.Parse((SERVING / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert model.name == "reconvnet_lite"
    assert model.base_path == "/models/reconvnet_lite"
    assert model.model_platform == "tensorflow"
    assert model.model_version_policy.latest.num_versions == 2


def test_monitoring_config_is_a_monitoring_config() -> None:
    from google.protobuf import text_format

    # tensorflow_serving/config/monitoring_config.proto
    prometheus = {"enable": (1, "bool"), "path": (2, "string")}
    messages = {"PrometheusConfig": prometheus, "MonitoringConfig": {"prometheus_config": (1, "PrometheusConfig")}}
    config = message_class("MonitoringConfig", messages)()
    text_format.Parse((SERVING / "monitoring.config").read_text(), config)
    assert config.prometheus_config.enable
    assert config.prometheus_config.path == "/monitoring/prometheus/metrics"
    with pytest.raises(text_format.ParseError):
        text_format.Parse("prometheus { enable: true }", type(config)())


def test_compose_file_gives_the_server_these_files() -> None:
    service = yaml.safe_load((SERVING / "docker-compose.yml").read_text())["services"]["serving"]
    assert re.fullmatch(r"tensorflow/serving:\d+\.\d+\.\d+", service["image"])
    assert service["ports"] == ["8500:8500", "8501:8501"]
    mounted = {inside: outside for outside, inside, _ in (volume.split(":") for volume in service["volumes"])}
    for option in service["command"]:
        name, value = option.split("=")
        assert name in (
            "--model_config_file",
            "--model_config_file_poll_wait_seconds",
            "--monitoring_config_file",
        )
        if name.endswith("_file"):
            assert (SERVING / mounted[value]).is_file()
    assert mounted["/models"] == "./models"


@needs_tensorflow
@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_script_writes_the_masks_of_a_video(server, clip, tmp_path, capsys, kind) -> None:
    frames, mask = clip
    frames, mask = [frame[:160, :284] for frame in frames[:3]], mask[:160, :284]  # video codecs want even sides
    write_video(tmp_path / "clip.mp4", frames, 24)
    write_mask(tmp_path / "first.png", mask)
    main = runpy.run_path(str(SERVING / "segment.py"))["main"]
    address = server.grpc if kind == "grpc" else server.rest
    command = [str(tmp_path / "clip.mp4"), "--mask", str(tmp_path / "first.png"), "--out", str(tmp_path / "out")]
    assert main([*command, "--server", address, "--model", "lite", "--encoding", "jpeg"]) == 0
    assert "3 masks written to" in capsys.readouterr().out
    np.testing.assert_array_equal(read_label_png(tmp_path / "out" / "00000.png"), mask)
    last = read_label_png(tmp_path / "out" / "00002.png")
    assert ((last > 0) & (mask > 0)).sum() > 0.5 * (mask > 0).sum()
    assert main([*command, "--server", address]) == 2
    assert "the server has no model 'reconvnet_lite'" in capsys.readouterr().err
