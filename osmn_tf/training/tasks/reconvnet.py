"""Training of ReConvNet: clips, through its recurrent state (Lattari et al., 2018)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from osmn_tf.training.config import Config
from osmn_tf.training.tasks import register_task
from osmn_tf.training.tasks.osmn import OSMNTask

if TYPE_CHECKING:
    import keras


@register_task("reconvnet")
@dataclasses.dataclass(frozen=True)
class ReConvNetTask(OSMNTask):
    """OSMN's task on clips: back-propagation goes through the ConvLSTMs' state."""

    def clips(self, config: Config) -> bool:
        return True

    def training_model(self, config: Config, model: keras.Model) -> keras.Model:
        network: Any = model
        return network.clip_model(config.data.length, *config.data.size)
