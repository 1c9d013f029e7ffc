"""The files in tools/serving are valid for the server's own messages (the script is in `test_client`)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

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
    assert model.name == "osmn_match_lite"
    assert model.base_path == "/models/osmn_match_lite"
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
