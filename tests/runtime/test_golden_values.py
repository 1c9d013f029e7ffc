"""The page does the arithmetic of the runtime in TypeScript: what its tests compare with is what the runtime makes."""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np

WRITER = Path(__file__).parents[2] / "web/tests/golden.py"


def arrays(value: Any, place: str = "") -> dict[str, Any]:
    """Place -> array, number or text of everything in a JSON document."""
    if isinstance(value, dict) and "base64" in value:
        flat = np.frombuffer(base64.b64decode(value["base64"]), value["dtype"])
        return {place: flat.reshape(value["shape"])}
    if isinstance(value, dict):
        return {name: found for key, item in value.items() for name, found in arrays(item, f"{place}/{key}").items()}
    if isinstance(value, list):
        return {name: found for i, item in enumerate(value) for name, found in arrays(item, f"{place}/{i}").items()}
    return {place: value}


def test_are_those_of_the_runtime() -> None:
    spec = importlib.util.spec_from_file_location("golden", WRITER)
    assert spec is not None
    assert spec.loader is not None
    golden = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(golden)
    found, expected = arrays(json.loads(json.dumps(golden.golden()))), arrays(json.loads(golden.PATH.read_text()))
    assert found.keys() == expected.keys()
    for place, value in expected.items():
        if isinstance(value, np.ndarray) and value.dtype == np.float32:
            # The vector units of another processor may round in another order: values of up to 255 in 24 bits.
            np.testing.assert_allclose(found[place], value, rtol=1e-6, atol=1e-6, err_msg=place)
        else:
            np.testing.assert_array_equal(found[place], value, err_msg=place)
