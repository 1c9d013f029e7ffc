"""Training of ReConvNet: clips, through its recurrent state (Lattari et al., 2018)."""

from __future__ import annotations

import dataclasses

from osmn_tf.training.config import Config
from osmn_tf.training.tasks import register_task
from osmn_tf.training.tasks.osmn import OSMNTask


@register_task("reconvnet")
@dataclasses.dataclass(frozen=True)
class ReConvNetTask(OSMNTask):
    """OSMN's task on clips: back-propagation goes through the ConvLSTMs' state."""

    def clips(self, config: Config) -> bool:
        return True
