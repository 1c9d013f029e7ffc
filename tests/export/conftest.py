"""Exported folders, a clip, and a server that runs a folder without this package."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import made_once


@pytest.fixture(scope="session")
def clip() -> tuple[list[np.ndarray], np.ndarray]:
    """Six frames of the example at a third of its size, 160 x 285, and the mask of the first with three objects."""
    import osmn_tf
    from osmn_tf.datasets.examples import example_path

    folder = example_path("meadow")
    frames = itertools.islice(osmn_tf.read_video(folder / "meadow.mp4"), 6)
    mask = osmn_tf.read_mask(folder / "first_mask.png")
    return [np.ascontiguousarray(frame[::3, ::3]) for frame in frames], np.ascontiguousarray(mask[::3, ::3])


@pytest.fixture(scope="session")
def lite():
    """A shipped preset with a recurrent state."""
    import osmn_tf

    return osmn_tf.load("reconvnet_lite")


@pytest.fixture(scope="session")
def lite_export(tmp_path_factory) -> tuple[Path, str]:
    """The folder NAME/3 of `lite` at a network size of 96 x 160, and what the command printed."""
    pytest.importorskip("tensorflow_serving")
    from osmn_tf.cli.main import main

    folder = tmp_path_factory.mktemp("lite_export") / "models"
    command = ["export", "--preset", "reconvnet_lite", "--format", "saved-model", "--out", str(folder)]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*command, "--network-size", "96x160", "--model-version", "3"]) == 0
    return folder / "reconvnet_lite" / "3", printed.getvalue()


@pytest.fixture(scope="session")
def lite_folder(lite_export) -> Path:
    """The folder of `lite_export`."""
    return lite_export[0]


@pytest.fixture(scope="session")
def vgg():
    """A VGG-16 ReConvNet with random weights and few channels."""
    from support import randomise

    from osmn_tf.models.reconvnet import ReConvNet

    model = ReConvNet(
        backbone="vgg16",
        visual_head="pooled",
        visual_hidden=16,
        guide_size=64,
        block_channels=(4, 6, 8, 12, 16),
        side_channels=4,
        network_size=(64, 96),
        name="vgg",
    )
    return randomise(model, seed=7)  # it calls about a third of every frame an object


@pytest.fixture(scope="session")
def vgg_folder(vgg, tmp_path_factory) -> Path:
    """The folder vgg/3 of this network."""
    from osmn_tf.export.saved_model import export_saved_model

    def make(folder: Path) -> None:
        export_saved_model(vgg, folder, version=3, warm_up=False)

    return made_once(tmp_path_factory, "vgg_export", make) / "vgg" / "3"


class ServerProcess:
    """A running `model_server.py`."""

    def __init__(self, **folders: Path) -> None:
        command = [sys.executable, "-P", str(Path(__file__).with_name("model_server.py"))]
        command += [f"{name}={folder}" for name, folder in folders.items()]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.communicate()[1])
        self.ports = json.loads(line)
        self.grpc = f"localhost:{self.ports['grpc']}"
        self.rest = f"http://localhost:{self.ports['rest']}"

    def tell(self, command: str) -> str:
        """Sends a command and returns the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture(scope="session")
def server(vgg_folder):
    """A server of the model "vgg" (version 3), with gRPC and REST."""
    pytest.importorskip("tensorflow_serving")
    running = ServerProcess(vgg=vgg_folder.parent)
    yield running
    running.close()
