"""Fixtures of the rooms whose work is timed."""

from __future__ import annotations

from tests.evaluation.conftest import davis as davis
from tests.training.conftest import data_root as data_root
from tests.training.conftest import tiny_config as tiny_config
