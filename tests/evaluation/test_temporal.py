import itertools
import math

import cv2
import numpy as np
import pytest

from osmn_tf.errors import InputError
from osmn_tf.evaluation import metrics, temporal


def blob(jitter=0.0, seed=0, size=(240, 320)):
    """An irregular star shape; `jitter` moves its corners by so many pixels (standard deviation)."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = 60 + 18 * np.sin(3 * angles) + 10 * np.cos(5 * angles)
    corners = np.stack([160 + radius * np.cos(angles), 120 + radius * np.sin(angles)], axis=1)
    corners = corners + np.random.default_rng(seed).normal(0, 1, corners.shape) * jitter
    mask = np.zeros(size, np.uint8)
    cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1)
    return mask


def test_a_shape_that_moves_as_a_whole_is_stable():
    masks = np.stack([np.roll(blob(), (-2 * t, 3 * t), axis=(0, 1)) for t in range(5)])
    np.testing.assert_allclose(metrics.temporal_stability(masks), 0, atol=1e-6)


def test_more_jitter_gives_more_instability():
    values = []
    for jitter in (0, 1, 2, 4, 8, 16):
        masks = np.stack([blob(jitter=jitter, seed=seed) for seed in range(8)])
        values.append(metrics.temporal_stability(masks).mean())
    assert values == sorted(values)
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values[1] > 0.005
    assert values[-1] > 5 * values[1]
    assert values[-1] < 1


def test_growing_is_not_a_change_of_shape():
    small = blob()
    large = cv2.resize(small, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_NEAREST)
    grown = metrics.TemporalStability()
    grown.update(small)
    grown.update(large)
    other = metrics.TemporalStability()
    other.update(small)
    other.update(blob(jitter=16, seed=3))
    assert grown.compute() < 0.3 * other.compute()


def test_empty_masks_leave_the_pair_undefined():
    masks = np.stack([blob(), np.zeros((240, 320), np.uint8), blob(), blob()])
    values = metrics.temporal_stability(masks)
    assert np.isnan(values).tolist() == [True, True, False]
    metric = metrics.TemporalStability()
    for mask in masks:
        metric.update(mask)
    assert metric.compute() == values[2]
    metric.reset()
    assert math.isnan(metric.compute())


def test_a_single_pixel_has_no_contour():
    mask = np.zeros((20, 20), np.uint8)
    mask[4, 5] = 1
    assert temporal.contour_of(mask) is None


def test_points_are_at_most_three_pixels_apart():
    mask = np.zeros((100, 100), np.uint8)
    mask[10:51, 20:71] = 1  # polygon edges of 50 and 40 pixels: 17 and 14 equal parts
    points = temporal.contour_of(mask).points
    assert len(points) == 2 * (17 + 14)
    steps = np.hypot(*(np.roll(points, -1, axis=0) - points).T)
    assert steps.max() <= 3


def test_contexts_of_a_square_by_hand():
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    contexts = temporal._shape_contexts(corners)
    # From the first corner the others lie at 0, 45 and 90 degrees (directions 0, 1, 3), the mean distance is 1.138: the
    # sides' 0.879 lies in the fourth ring (1/2 to 1), the diagonal's 1.243 in the fifth (1 to 2).
    assert np.flatnonzero(contexts[0]).tolist() == [3 * 12 + 0, 3 * 12 + 3, 4 * 12 + 1]
    np.testing.assert_allclose(contexts[0][np.flatnonzero(contexts[0])], 1 / 3, atol=1e-7)


def test_costs_are_the_chi_square_distance():
    generator = np.random.default_rng(1)
    first, second = (generator.random((n, 60)) * (generator.random((n, 60)) < 0.4) for n in (70, 33))
    first, second = (h / h.sum(axis=1, keepdims=True) for h in (first, second))
    expected = np.zeros((70, 33))
    for i, j in np.ndindex(70, 33):
        for g, h in zip(first[i], second[j]):
            expected[i, j] += 0.5 * (g - h) ** 2 / (g + h) if g + h else 0
    costs = temporal._costs(first.astype(np.float32), second.astype(np.float32))
    np.testing.assert_allclose(costs, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (4, 5), (5, 4)])
def test_path_is_the_cheapest_of_all_monotone_ones(shape):
    costs = np.random.default_rng(sum(shape)).random(shape).astype(np.float32)
    rows, columns = temporal._cheapest_path(costs)
    assert (rows[0], columns[0]) == (0, 0)
    assert (rows[-1], columns[-1]) == (shape[0] - 1, shape[1] - 1)
    steps = set(zip(np.diff(rows).tolist(), np.diff(columns).tolist()))
    assert steps <= {(0, 1), (1, 0), (1, 1)}

    def cheapest(i, j):
        before = [(i - 1, j), (i, j - 1), (i - 1, j - 1)]
        before = [cheapest(*cell) for cell in before if min(cell) >= 0]
        return float(costs[i, j]) + (min(before) if before else 0)

    assert costs[rows, columns].sum(dtype=np.float64) == pytest.approx(cheapest(shape[0] - 1, shape[1] - 1), abs=1e-6)


def test_matching_by_the_definition_step_by_step():
    first, second = temporal.contour_of(blob()), temporal.contour_of(blob(jitter=3, seed=5))
    costs = temporal._costs(first.contexts, second.contexts)
    rows, columns = temporal._cheapest_path(costs)
    best = min(range(len(rows)), key=lambda k: costs[rows[k], columns[k]])
    costs = np.roll(np.roll(costs, -rows[best] - 1, axis=0), -columns[best] - 1, axis=1)
    pairs = list(zip(*(side.tolist() for side in temporal._cheapest_path(costs))))
    for side in (0, 1):
        pairs = sorted(pairs, key=lambda pair: pair[side])
        groups = itertools.groupby(pairs, key=lambda pair: pair[side])
        pairs = [min(group, key=lambda pair: costs[pair]) for _, group in groups]
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    expected = np.mean([float(costs[pair]) for pair in pairs])
    assert temporal.matching_cost(first, second) == pytest.approx(expected, abs=1e-9)


def test_bad_videos_are_refused():
    with pytest.raises(InputError, match="two frames or more"):
        metrics.temporal_stability(np.zeros((1, 4, 4), bool))
    with pytest.raises(InputError, match="one mask"):
        metrics.TemporalStability().update(np.zeros((1, 4, 4), bool))
