"""Published facts that reports need, kept as package data: DAVIS 2016's attributes, YouTube-VOS's training categories,
and the scores that papers state."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any


@functools.cache
def _load(name: str) -> Any:
    return json.loads(resources.files(__package__).joinpath(name).read_text())


def attribute_names() -> dict[str, str]:
    """Abbreviation -> name of DAVIS 2016's sequence attributes, such as OCC -> occlusion."""
    return dict(_load("davis2016_attributes.json")["names"])


def sequence_attributes(sequence: str) -> frozenset[str] | None:
    """The attributes of a DAVIS 2016 sequence; None if it is none."""
    facts = _load("davis2016_attributes.json")["sequences"].get(sequence)
    return None if facts is None else frozenset(facts["attributes"])


def has_stability(sequence: str) -> bool:
    """False for the DAVIS 2016 sequences that T is not reported for, because of their heavy occlusions."""
    facts = _load("davis2016_attributes.json")["sequences"].get(sequence)
    return facts is None or bool(facts["eval_t"])


def youtube_vos_seen() -> frozenset[str]:
    """The 65 categories of YouTube-VOS's training set: objects of others are "unseen"."""
    return frozenset(_load("youtube_vos_seen.json"))


def published_scores(protocol: str) -> list[dict[str, Any]]:
    """Scores stated in papers, in percent, for the name of a protocol.

    Each entry has `method`, `split`, `source` and any of the columns of the overall table.
    """
    return list(_load("published.json").get(protocol, []))
