"""Visual and spatial guides: what tells the modulators which object to segment.

One implementation serves training, inference and exported graphs: batched `keras.ops` on [N, H, W] masks, with no
loop over objects and no leaving of the graph. Source: OSMN (Yang et al., CVPR 2018), section 3, and the behaviour of
the authors' release (crop without the last row and column, median and MAD instead of mean and deviation).
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Tensor = Any

# Mean colour of the VGG networks, RGB. Guide pixels outside the object get it, so that they are 0 once normalised.
VGG_MEAN_RGB = (123.0, 117.0, 104.0)

GUIDE_MARGIN = 0.03  # of the box's side, on each side, at test time
MAD_TO_SIGMA = 1.4826  # the standard deviation of a normal distribution, per median absolute deviation
MIN_SIGMA = 5.0  # pixels

SEARCH_SHARE = 2  # on each side of the box, one part in so many of its own side
SEARCH_MARGIN = 0.08  # of the frame's longer side, on each side, in addition
FAR_LOGIT = -8.0  # at most, outside of the search window: a probability of 0.0003

# The kinds of spatial guides and how many channels they have.
GUIDE_CHANNELS = {"gaussian": 1, "gaussian+mask": 2}


def _median_and_mad(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Median and median absolute deviation of integer coordinates, from their histogram.

    Args:
        counts: int32 [N, L], how many pixels have coordinate 0..L-1. Rows that sum to 0 give meaningless values.

    Returns:
        (median, mad), float32 [N, 1] each; even counts average the two middle values, as `numpy.median` does.
    """
    length = ops.shape(counts)[1]
    positions = ops.arange(length, dtype="int32")[None]
    cumulative = ops.cumsum(counts, axis=1)
    total = cumulative[:, -1:]
    lower_rank, upper_rank = (total - 1) // 2, total // 2

    def value_at(cumulative: Tensor, rank: Tensor) -> Tensor:
        return ops.sum(ops.cast(cumulative <= rank, "int32"), axis=1, keepdims=True)

    # Twice the median is an integer; all distances from it, doubled, share its parity: they are parity + 2 * step.
    double_median = value_at(cumulative, lower_rank) + value_at(cumulative, upper_rank)
    parity = double_median % 2
    right = ops.clip((double_median + parity) // 2 + positions, 0, length - 1)
    left = (double_median - parity) // 2 - positions
    up_to_right = ops.take_along_axis(cumulative, right, axis=1)
    before_left = ops.where(
        left > 0, ops.take_along_axis(cumulative, ops.clip(left - 1, 0, length - 1), axis=1), ops.zeros_like(left)
    )
    within = up_to_right - before_left
    double_deviations = 2 * parity + 2 * (value_at(within, lower_rank) + value_at(within, upper_rank))
    return ops.cast(double_median, "float32") / 2.0, ops.cast(double_deviations, "float32") / 4.0


def mask_statistics(masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Robust position and size of each mask.

    Args:
        masks: [N, H, W], any dtype; non-zero is the object.

    Returns:
        centre: float32 [N, 2], per-axis median (y, x) of the object's pixels.
        sigma: float32 [N, 2], max(1.4826 * MAD, 5 px) per axis (y, x).
        present: bool [N], False for an empty mask (its centre and sigma mean nothing).
    """
    pixels = ops.cast(ops.not_equal(masks, 0), "int32")
    rows, columns = ops.sum(pixels, axis=2), ops.sum(pixels, axis=1)
    (centre_y, mad_y), (centre_x, mad_x) = _median_and_mad(rows), _median_and_mad(columns)
    centre = ops.concatenate([centre_y, centre_x], axis=1)
    sigma = ops.maximum(MAD_TO_SIGMA * ops.concatenate([mad_y, mad_x], axis=1), MIN_SIGMA)
    return centre, sigma, ops.sum(rows, axis=1) > 0


def spatial_guide(masks: Tensor, centre_shift: Tensor | None = None, sigma_scale: Tensor | None = None) -> Tensor:
    """Gaussian that says where each object was: exp(-sum((p - centre)^2 / (2 sigma^2))), peak 1.

    Args:
        masks: [N, H, W], any dtype, at network resolution; non-zero is the object.
        centre_shift: optional float [N, 2] (y, x), training jitter in units of sigma (release: U(-0.2, 0.2)).
        sigma_scale: optional float [N, 2] (y, x), training jitter of sigma (release: U(1/1.4, 1.4)).

    Returns:
        float32 [N, H, W, 1] in 0..1; all zeros for an empty mask.
    """
    centre, sigma, present = mask_statistics(masks)
    if centre_shift is not None:
        centre = centre + ops.cast(centre_shift, "float32") * sigma
    if sigma_scale is not None:
        sigma = sigma * ops.cast(sigma_scale, "float32")
    height, width = ops.shape(masks)[1], ops.shape(masks)[2]

    def profile(length: Any, axis: int) -> Tensor:
        offset = ops.arange(length, dtype="float32")[None] - centre[:, axis : axis + 1]
        return ops.exp(-ops.square(offset) / (2.0 * ops.square(sigma[:, axis : axis + 1])))

    gaussian = profile(height, 0)[:, :, None] * profile(width, 1)[:, None, :]
    return ops.where(present[:, None, None], gaussian, ops.zeros_like(gaussian))[..., None]


def search_window(masks: Tensor) -> Tensor:
    """Where an object is looked for that was last seen in this mask: its bounding box, grown on every side.

    Args:
        masks: [N, H, W], any dtype, at network resolution; non-zero is the object.

    Returns:
        bool [N, H, W]; all False for an empty mask.
    """
    occupied = ops.not_equal(masks, 0)
    margin = round(SEARCH_MARGIN * max(masks.shape[1:]))

    def along(occupied: Tensor, length: int) -> Tensor:
        position = ops.arange(length, dtype="int32")[None]
        first = ops.min(ops.where(occupied, position, length), axis=1, keepdims=True)
        final = ops.max(ops.where(occupied, position, -1), axis=1, keepdims=True)
        grown = (final - first + 1) // SEARCH_SHARE + margin
        near = ops.logical_and(position >= first - grown, position <= final + grown)
        return ops.logical_and(near, final >= 0)

    rows = along(ops.any(occupied, axis=2), masks.shape[1])
    columns = along(ops.any(occupied, axis=1), masks.shape[2])
    return ops.logical_and(rows[:, :, None], columns[:, None, :])


def search_near(logits: Tensor, masks: Tensor) -> Tensor:
    """Takes out what was found far from where an object was last, if anything was found near there.

    A network that compares with the annotated frame finds everything that looks like the object. What is like it and
    far away is another one, unless the object itself is not where it was.

    Args:
        logits: float [N, H, W].
        masks: [N, H, W], see `search_window`.

    Returns:
        As `logits`; where an object was found near, at most `FAR_LOGIT` outside of its window.
    """
    window = search_window(masks)
    found = ops.any(ops.logical_and(logits > 0, window), axis=(1, 2), keepdims=True)
    return ops.where(ops.logical_and(found, ops.logical_not(window)), ops.minimum(logits, FAR_LOGIT), logits)


def full_guide(masks: Tensor, kind: str = "gaussian") -> Tensor:
    """The spatial guide that a network of this kind takes.

    Args:
        masks: [N, H, W], any dtype, at network resolution; non-zero is the object.
        kind: "gaussian", or "gaussian+mask": with the mask as a second channel.

    Returns:
        float32 [N, H, W, 1 or 2].
    """
    gaussian = spatial_guide(masks)
    if kind == "gaussian":
        return gaussian
    both = ops.stack([gaussian[..., 0], ops.cast(ops.not_equal(masks, 0), "float32")], axis=1)
    # To concatenate single channels takes TensorFlow twice the time.
    return ops.transpose(both, (0, 2, 3, 1))


def _crop_axis(occupied: Tensor, margin_before: Tensor, margin_after: Tensor) -> tuple[Tensor, Tensor]:
    """First coordinate and length of the padded crop along one axis.

    Args:
        occupied: bool [N, L], whether any object pixel has this coordinate.
        margin_before, margin_after: float [N, 1], share of the box's side to add (negative: to cut).
    """
    occupied = ops.cast(occupied, "int32")
    last = ops.shape(occupied)[1] - 1
    first = ops.argmax(occupied, axis=1, keepdims=True)
    final = last - ops.argmax(ops.flip(occupied, axis=1), axis=1, keepdims=True)
    # The release crops [first, final): the last row and column of the box are lost.
    side = ops.maximum(ops.cast(final - first, "float32"), 1.0)
    # int() of the release truncates towards zero, for negative margins too.
    before = ops.sign(margin_before) * ops.floor(ops.abs(margin_before) * side)
    after = ops.sign(margin_after) * ops.floor(ops.abs(margin_after) * side)
    return ops.cast(first, "float32") - before, ops.maximum(side + before + after, 1.0)


def visual_guide(
    frames: Tensor,
    masks: Tensor,
    size: int = 224,
    background: tuple[float, float, float] = VGG_MEAN_RGB,
    margins: Tensor | None = None,
) -> Tensor:
    """The object cut out of its frame: cropped, padded, resized to a square, background removed.

    The box may reach beyond the frame; what lies there is background. An empty mask gives background alone.

    Args:
        frames: [N, H, W, 3] or [1, H, W, 3] (shared by all masks), uint8 or float, RGB 0..255.
        masks: [N, H, W], any dtype; non-zero is the object.
        size: side of the guide in pixels.
        background: RGB colour of everything that is not the object: the mean that the network subtracts.
        margins: optional float [N, 4] (top, bottom, left, right), share of the box's side to add on each side;
            default 0.03, training jitter U(-0.1, 0.1).

    Returns:
        float32 [N, size, size, 3], RGB 0..255.
    """
    occupied = ops.not_equal(masks, 0)
    count, height, width = ops.shape(masks)[0], ops.shape(masks)[1], ops.shape(masks)[2]
    if margins is None:
        margins = ops.full((count, 4), GUIDE_MARGIN, dtype="float32")
    margins = ops.cast(margins, "float32")
    start_y, side_y = _crop_axis(ops.any(occupied, axis=2), margins[:, 0:1], margins[:, 1:2])
    start_x, side_x = _crop_axis(ops.any(occupied, axis=1), margins[:, 2:3], margins[:, 3:4])

    def sampling(start: Tensor, side: Tensor, length: Any) -> tuple[Tensor, Tensor]:
        """Bilinear and nearest interpolation matrices [N, size, length] (half-pixel centres)."""
        position = (ops.arange(size, dtype="float32")[None] + 0.5) * side / size
        source = ops.clip(position - 0.5, 0.0, side - 1.0) + start
        pixel = ops.arange(length, dtype="float32")[None, None]
        bilinear = ops.maximum(1.0 - ops.abs(source[..., None] - pixel), 0.0)
        nearest = ops.cast(ops.equal(ops.floor(position + start)[..., None], pixel), "float32")
        return bilinear, nearest

    rows, rows_nearest = sampling(start_y, side_y, height)
    columns, columns_nearest = sampling(start_x, side_x, width)
    frames = ops.cast(frames, "float32")
    flat = ops.reshape(frames, (ops.shape(frames)[0], height, width * 3))
    by_row = ops.reshape(ops.matmul(rows, flat), (count, size, width, 3))
    image = ops.matmul(columns[:, None], by_row)
    label = ops.matmul(
        ops.matmul(rows_nearest, ops.cast(occupied, "float32")), ops.transpose(columns_nearest, (0, 2, 1))
    )
    fill = ops.convert_to_tensor(background, dtype="float32")
    return ops.where(label[..., None] > 0.5, image, fill)


@keras.saving.register_keras_serializable(package="osmn_tf")
class SpatialGuide(keras.layers.Layer):
    """`full_guide` as a layer, for graphs that feed a network its own previous prediction.

    Input: [N, H, W] masks, non-zero is the object. Output: float32 [N, H, W, 1 or 2]. No gradient flows through it.

    Args:
        kind: see `full_guide`.
    """

    def __init__(self, kind: str = "gaussian", **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        self.kind = kind

    def call(self, masks: Tensor) -> Tensor:
        return ops.stop_gradient(full_guide(masks, self.kind))

    def compute_output_shape(self, masks_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*masks_shape, GUIDE_CHANNELS[self.kind])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kind": self.kind}
