"""Networks by name."""

from __future__ import annotations

import keras
import pytest

from osmn_tf.errors import InputError
from osmn_tf.models import registry
from osmn_tf.models.osmn import OSMN
from osmn_tf.models.reconvnet import ReConvNet


def test_names_and_classes():
    assert {"OSMN", "ReConvNet"} <= set(registry.NETWORKS.names())
    assert registry.NETWORKS.get("ReConvNet") is ReConvNet
    assert keras.saving.get_registered_name(ReConvNet) == "osmn_tf>ReConvNet"
    with pytest.raises(InputError, match=r"network: expected one of .*OSMN, .*received 'osmn'"):
        registry.NETWORKS.get("osmn")


def test_names_of_a_class_and_of_those_above(tiny_reconvnet):
    class Special(ReConvNet): ...

    assert registry.registered_names(tiny_reconvnet) == ["ReConvNet", "OSMN"]
    assert registry.registered_names(Special) == ["ReConvNet", "OSMN"]
    assert registry.network_name(tiny_reconvnet) == "ReConvNet"
    assert registry.network_name(Special) is None


def test_arguments():
    osmn, reconvnet = (registry.constructor_arguments(name) for name in ("OSMN", "ReConvNet"))
    assert set(osmn) == set(OSMN(backbone="mobilenet", guide_size=32).get_config()) - {"name", "trainable"}
    assert osmn["side_channels"] is int
    assert set(reconvnet) - set(osmn) == {"recurrence", "recurrent_channels"}
