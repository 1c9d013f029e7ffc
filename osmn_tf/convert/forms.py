"""What a known checkpoint holds: name and shape of every tensor, and the weight of our network that it becomes.

Each kind of checkpoint is a form; forms are in files of their own beside this one, which register them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from osmn_tf.registry import Registry

Shape = tuple[int | None, ...]

FORMS: Registry[Callable[[], Form]] = Registry("kind of checkpoint", "osmn_tf.convert")
MIN_SIMILARITY = 0.5  # shared names / all names, below which a checkpoint is of something else
_SLOT = re.compile(r"(?P<variable>.+)/(?P<slot>Adam|Adam_1|Momentum|RMSProp|RMSProp_1|Adagrad)$")
_COUNTER = re.compile(r"(^|/)(global_step|beta[12]_power)(_\d+)?$")
_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a checkpoint.

    Attributes:
        shape: None stands for any length.
        targets: paths of the network's weights that receive it; none for a tensor that is only checked or left out.
        bilinear: it must hold the fixed bilinear filter, and is compared with it; the targets get the exact filter.
        unused: why it has no target.
        optional: the checkpoint may lack it.
    """

    shape: Shape
    targets: tuple[str, ...] = ()
    bilinear: bool = False
    unused: str = ""
    optional: bool = False

    def fits(self, shape: Iterable[int]) -> bool:
        """Whether a stored shape is the expected one."""
        shape = tuple(shape)
        return len(shape) == len(self.shape) and all(want in (None, got) for want, got in zip(self.shape, shape))


@dataclass(frozen=True)
class Form:
    """One kind of checkpoint.

    Attributes:
        key: short name, recorded in metadata.
        title: what it is, for people.
        config: arguments of the network that receives it.
        tensors: name -> TensorSpec.
        complete: every weight of that network comes from the checkpoint, so that the result segments videos as it is;
            False: it only initialises one.
        mean_bgr: mean colour that the source subtracts, where it is not the network's own.
        mean_rgb_tensor: name of the tensor that holds the mean colour, where the checkpoint brings it.
        rgb: the source's first convolution takes RGB.
        root: first part of the names.
        network: registered name of the network that receives it.
    """

    key: str
    title: str
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorSpec]
    complete: bool = True
    mean_bgr: tuple[float, float, float] | None = None
    mean_rgb_tensor: str | None = None
    rgb: bool = False
    root: str = "osmn"
    network: str = "OSMN"

    @property
    def first_layer(self) -> str:
        """Name of the first convolution, without /weights."""
        return f"{self.root}/conv1/conv1_1"


def convolution_tensors(name: str, shape: Shape, *layers: str, kernel: str = "weights") -> dict[str, TensorSpec]:
    """Kernel and bias of a convolution that becomes each of `layers`."""
    return {
        f"{name}/{kernel}": TensorSpec(shape, tuple(f"{layer}/kernel" for layer in layers)),
        f"{name}/biases": TensorSpec((shape[-1],), tuple(f"{layer}/bias" for layer in layers)),
    }


def normalised_tensors(name: str, shape: Shape, layer: str, kernel: str = "weights") -> dict[str, TensorSpec]:
    """Kernel of a convolution without bias, and the batch normalisation behind it."""
    channels = shape[2] if kernel == "depthwise_weights" else shape[3]
    return {
        f"{name}/{kernel}": TensorSpec(shape, (f"{layer}/kernel",)),
        **{f"{name}/BatchNorm/{part}": TensorSpec((channels,), (f"{layer}_bn/{part}",)) for part in _BATCH_NORM},
    }


def all_forms() -> list[Form]:
    """Every kind of checkpoint that is known."""
    return [FORMS.get(key)() for key in FORMS.names()]


def training_state(names: Iterable[str]) -> dict[str, str]:
    """The tensors among `names` that belong to a training run and not to the network: name -> what it is."""
    names = set(names)
    found: dict[str, str] = {}
    for name in names:
        if counter := _COUNTER.search(name):
            found[name] = "step counter" if counter[2] == "global_step" else "Adam's running power"
        elif slot := _SLOT.match(name):
            parts = slot["variable"].split("/")
            # A scope that the optimiser was made in may stand before the variable's name.
            if any("/".join(parts[start:]) in names for start in range(len(parts))):
                found[name] = f"{slot['slot'].split('_')[0]} slot of the optimiser"
    return found


def recognise(names: Iterable[str], network: str | None = None) -> Form | None:
    """The form whose names are most like `names`, or None if none is at all like them.

    Args:
        network: only forms that this network receives, where one of them has the best form's names too.
    """
    names = set(names)

    def similarity(form: Form) -> float:
        return len(names & form.tensors.keys()) / max(1, len(names | form.tensors.keys()))

    forms = all_forms()
    best = max(forms, key=similarity)
    same = [form for form in forms if form.tensors.keys() == best.tensors.keys()]
    best = next((form for form in same if form.network == network), best)
    return best if similarity(best) >= MIN_SIMILARITY else None


def parameter_count(shapes: Iterable[Iterable[int]]) -> int:
    """How many numbers tensors of these shapes hold."""
    return sum(math.prod(shape) for shape in shapes)
