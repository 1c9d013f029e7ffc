"""`import osmn_tf` must stay quick: neither Keras nor a backend before they are needed."""

from __future__ import annotations

import json
import subprocess
import sys
import types

import numpy as np
import pytest

import osmn_tf

PROBE = """
import json, sys
import osmn_tf
dir(osmn_tf), osmn_tf.__version__, osmn_tf.InputError
heavy = [m for m in ("keras", "tensorflow", "jax", "torch", "cv2", "av", "numpy", "h5py") if m in sys.modules]
print(json.dumps([heavy, sum(name.startswith("osmn_tf") for name in sys.modules)]))
"""


def test_import_loads_nothing_heavy():
    """What makes it quick; seconds would say more of the machine."""
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, check=True, text=True)
    heavy, own = json.loads(done.stdout)
    assert heavy == []
    assert own < 6  # of some hundred and fifty


def test_public_names_resolve():
    for name in osmn_tf.__all__:
        assert getattr(osmn_tf, name) is not None
    assert set(osmn_tf.__all__) <= set(dir(osmn_tf))
    assert issubclass(osmn_tf.ReConvNet, osmn_tf.OSMN)
    assert issubclass(osmn_tf.InputError, ValueError)
    assert isinstance(osmn_tf.metrics, types.ModuleType)
    assert osmn_tf.load.__module__ == "osmn_tf.models.presets"


def test_names_that_type_checkers_see_are_those_that_there_are():
    """The lazy table and the imports under TYPE_CHECKING agree."""
    import ast
    import inspect

    tree = ast.parse(inspect.getsource(osmn_tf))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {alias.asname: (node.module, alias.name) for node in block.body for alias in node.names}
    modules = {name: path for name, path in osmn_tf._LAZY.items() if path.rpartition(".")[2] == name}
    values = {name: (path, name) for name, path in osmn_tf._LAZY.items() if name not in modules}
    assert list(modules) == ["metrics"]
    assert declared == values | {"metrics": ("osmn_tf.evaluation", "metrics")}


WITHOUT_KERAS = """
import sys
sys.modules["keras"] = None  # as if it were not installed
import osmn_tf
for name in ("OSMN", "load"):
    try:
        getattr(osmn_tf, name)("osmn_match_lite")
    except osmn_tf.InputError as error:
        print(error)
print(len(osmn_tf.list_presets()) > 0)
"""


def test_without_keras_it_says_what_to_install():
    done = subprocess.run([sys.executable, "-c", WITHOUT_KERAS], capture_output=True, check=True, text=True)
    missing = "needs the package 'keras', which is not installed: run  pip install 'osmn-tf[tf]'"
    assert done.stdout.splitlines() == [f"osmn_tf.OSMN {missing}", f"loading a network into Keras {missing}", "True"]


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'osmn_tf' has no attribute 'nothing'"):
        osmn_tf.nothing  # noqa: B018


def test_masks_are_read_and_written_without_keras(tmp_path):
    mask = np.array([[0, 3], [3, 0]], np.uint8)
    osmn_tf.write_mask(tmp_path / "mask.png", mask)
    code = (
        "import sys, osmn_tf; m = osmn_tf.read_mask(sys.argv[1]); print(m.tolist(), 'keras' in sys.modules, "
        "'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "mask.png")]
    found = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert found.strip() == "[[0, 3], [3, 0]] False False"
