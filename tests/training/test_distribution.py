"""The same five steps on one device, on two, by two processes, and on JAX.

The one device is this process's; the others need processes of their own.
"""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support import needs_tensorflow

from osmn_tf.errors import InputError
from osmn_tf.training import config as cfg
from osmn_tf.training import distribution, stages

from .conftest import tiny_command

RATE = 1e-4
MOVEMENT = 2.5 * RATE  # what five Adam steps move a weight by at most: the sum of their rates, warm-up and cosine
# As in the Makefile.
QUICK_XLA = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false"
)
# Two rates, clipping, decay, averages: what could depend on how a batch is shared out.
SETTINGS = (
    f"optimizer.learning_rate={RATE}",
    f"optimizer.group_rates={{head: {RATE}}}",
    "optimizer.schedule=cosine",
    "optimizer.warmup_steps=1",
    "optimizer.weight_decay=1e-2",
    "optimizer.clip_norm=0.5",
    "optimizer.ema=0.9",
    "train.steps=5",
    "train.checkpoint_every=1",
    "validation=null",
)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("localhost", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="module")
def runs(data_root: Path, tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains here and in four processes, two at a time; the folders are called one, mirrored, workers and jax."""
    from tensorflow.python.framework import config as config_of_tensorflow

    root = tmp_path_factory.mktemp("distribution")
    config = cfg.load(tiny_config)
    # Adam moves a weight by its rate however small its gradient is. The head's bias has next to none where the logits
    # of a new network are near zero, so that roundings would say in which direction it goes.
    initial = config.task.build(config)
    initial.get_layer("head").bias.assign([1.0])
    initial.save_to_preset(root / "initial")

    common = (f"data.root={data_root}", f"model.initial={root / 'initial'}", *SETTINGS)

    def train(folder: str, *settings: str, **environment: str) -> int:
        words = tiny_command("train", str(tiny_config), "--quiet", "--run-dir", str(root / folder))
        for setting in (*common, *settings):
            words += ["--set", setting]
        with open(root / f"{folder}.{environment.get('WORKER', '')}.log", "wb") as log:
            variables = {**os.environ, "KERAS_BACKEND": "tensorflow", **environment}
            return subprocess.run(words, env=variables, stdout=log, stderr=log, timeout=3600, check=False).returncode

    cluster = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
    tasks = [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}) for index in range(2)]
    with ThreadPoolExecutor(2) as pool:
        runs = [
            pool.submit(train, "mirrored", "train.devices=['CPU:0', 'CPU:1']"),
            pool.submit(train, "jax", KERAS_BACKEND="jax", XLA_FLAGS=QUICK_XLA),
            *(pool.submit(train, "workers", TF_CONFIG=task, WORKER=str(i)) for i, task in enumerate(tasks)),
        ]
        stages.train(cfg.load(tiny_config, common), root / "one", progress=False)
        # `train` has made this process deterministic; other tests do not ask for that.
        config_of_tensorflow.disable_op_determinism()
        codes = [run.result() for run in runs]
    logs = "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in sorted(root.glob("*.log")))
    assert codes == [0] * 4, logs
    return root


def losses(folder: Path) -> list[float]:
    with open(folder / "log.csv", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.slow
@needs_tensorflow
@pytest.mark.parametrize("folder", ["mirrored", "workers", "jax"])
def test_devices_workers_and_jax_give_the_weights_of_one_device(runs: Path, folder: str) -> None:
    """Weights and their averages; Adam's moments too, which show gradients of a wrong size."""
    with np.load(runs / "one" / "checkpoint.npz") as one, np.load(runs / folder / "checkpoint.npz") as several:
        paths = json.loads(str(one["state"]))["paths"]
        assert json.loads(str(several["state"]))["paths"] == paths
        velocities = 0
        for number, path in enumerate(paths):
            expected, received = one[f"v{number}"], several[f"v{number}"]
            difference = np.linalg.norm(received - expected)
            # The sharing out of a batch changes the rounding of its frames to 8 bits here and there.
            if path.endswith(("momentum", "velocity")):
                assert difference <= 0.05 * np.linalg.norm(expected) + 1e-10, path
            else:
                assert difference <= 0.05 * MOVEMENT * np.sqrt(expected.size), path
            velocities += path.endswith("velocity") and bool(expected.any())
    assert velocities == 4  # two kernels, two biases
    assert len(losses(runs / "one")) == 5
    np.testing.assert_allclose(losses(runs / folder), losses(runs / "one"), rtol=1e-4)


def test_devices_that_do_not_exist() -> None:
    pytest.importorskip("tensorflow")
    with pytest.raises(InputError, match=r"train\.devices: there is no GPU:1; this machine has CPU:0"):
        distribution.choose_strategy(("CPU:0", "GPU:1"), 4)
    one = distribution.choose_strategy(("CPU:0",), 3)
    assert one is not None
    assert (one.num_replicas_in_sync, distribution.is_multi_worker(one), distribution.is_chief(one)) == (1, False, True)
