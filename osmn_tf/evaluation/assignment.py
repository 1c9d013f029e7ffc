"""The best one-to-one assignment of columns to rows (Kuhn 1955, "Hungarian method"), for matching proposals to
objects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from osmn_tf.errors import InputError


def best_assignment(gain: ArrayLike) -> list[int]:
    """For every row a column of its own, so that the sum of the chosen gains is the largest possible.

    Args:
        gain: finite floats [R, C] with R <= C.

    Returns:
        The column of every row.

    Raises:
        InputError: there are fewer columns than rows, or a gain is not finite.
    """
    costs: NDArray[Any] = -np.asarray(gain, np.float64)
    if costs.ndim != 2 or costs.shape[0] > costs.shape[1] or not np.isfinite(costs).all():
        raise InputError(f"gain: expected finite values [R, C] with R <= C, received shape {costs.shape}")
    rows, columns = costs.shape
    row_of = [-1] * columns
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    for start in range(rows):
        # The cheapest path, in reduced costs, over alternating free and assigned pairs to a column that is still free.
        distance = np.full(columns, math.inf)
        previous = np.full(columns, -1)
        done = np.zeros(columns, bool)
        row, base, last = start, 0.0, -1
        while True:
            through = base + costs[row] - row_price[row] - column_price
            shorter = ~done & (through < distance)
            distance[shorter], previous[shorter] = through[shorter], last
            last = int(np.argmin(np.where(done, math.inf, distance)))
            base = float(distance[last])
            done[last] = True
            if row_of[last] < 0:
                break
            row = row_of[last]
        for column in np.flatnonzero(done).tolist():
            if row_of[column] >= 0:
                row_price[row_of[column]] += base - distance[column]
            column_price[column] -= base - distance[column]
        row_price[start] += base
        while last >= 0:
            before = int(previous[last])
            row_of[last] = row_of[before] if before >= 0 else start
            last = before
    column_of = [0] * rows
    for column, row in enumerate(row_of):
        if row >= 0:
            column_of[row] = column
    return column_of
