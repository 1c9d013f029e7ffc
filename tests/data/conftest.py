"""The small data sets of `tests/datasets`, for training samples."""

from __future__ import annotations

from tests.datasets.conftest import (
    coco_root as coco_root,
)
from tests.datasets.conftest import (
    davis_root as davis_root,
)
from tests.datasets.conftest import (
    real_data_root as real_data_root,
)
from tests.datasets.conftest import (
    stills_root as stills_root,
)
from tests.datasets.conftest import (
    youtube_vos_root as youtube_vos_root,
)
