from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from support import numpy

from osmn_tf.errors import InputError
from osmn_tf.training import optimization
from osmn_tf.training.checkpoint import Checkpoint
from osmn_tf.training.config import OptimizerConfig


def make_network(width: int = 3) -> keras.Model:
    keras.utils.set_random_seed(width)
    network = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(width),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    config = OptimizerConfig(0.01, ema=0.9, accumulate=2, schedule="cosine", warmup_steps=2)
    network.compile(optimization.make_optimizer(config, 20, []), "mse", run_eagerly=True)
    network.optimizer.build(network.trainable_variables)
    return network


pytestmark = pytest.mark.backend

X = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
Y = X[:, :1]


def train(network: keras.Model, steps: int) -> None:
    network.fit(X, Y, batch_size=8, epochs=steps, shuffle=False, verbose=0, callbacks=[_KeepRawWeights()])


class _KeepRawWeights(keras.callbacks.Callback):
    """`fit` ends by putting the averages in the weights' place: takes that back."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.raw = [numpy(weight) for weight in self.model.trainable_weights]

    def on_train_end(self, logs: dict | None = None) -> None:
        for weight, value in zip(self.model.trainable_weights, self.raw):
            weight.assign(value)


def test_training_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    network = make_network()
    train(network, 3)  # in the middle of two accumulated batches
    Checkpoint(tmp_path / "c.npz", network).save({"step": 3, "validation": {"best": None}})
    train(network, 4)
    expected = [numpy(v) for v in (*network.variables, *network.optimizer.variables)]
    restored = make_network()
    restored.set_weights([w + 1 if w.dtype == np.float32 else w for w in restored.get_weights()])
    assert Checkpoint(tmp_path / "c.npz", restored).restore() == {"step": 3, "validation": {"best": None}}
    train(restored, 4)
    for a, b in zip(expected, (*restored.variables, *restored.optimizer.variables), strict=True):
        np.testing.assert_array_equal(a, numpy(b))
    # The seed of the dropout is among what was compared, and it moved.
    assert any("seed_generator" in variable.path for variable in network.variables)
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]


def test_no_checkpoint_is_the_beginning(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path / "c.npz", make_network()).restore() == {}


def test_checkpoint_of_another_network_or_damaged(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "c.npz", make_network()).save({})
    with pytest.raises(InputError, match="a checkpoint of another network or optimizer"):
        Checkpoint(tmp_path / "c.npz", make_network(5)).restore()
    content = (tmp_path / "c.npz").read_bytes()
    (tmp_path / "c.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"c\.npz is damaged .*; remove it to start anew"):
        Checkpoint(tmp_path / "c.npz", make_network()).restore()
