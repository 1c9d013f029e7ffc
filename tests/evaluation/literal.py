"""The definitions of J and F, word for word and pixel by pixel: slow, and obviously right."""

import math

import cv2
import numpy as np


def boundary(mask):
    height, width = mask.shape
    out = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            neighbours = []
            if x + 1 < width:
                neighbours.append((y, x + 1))
            if y + 1 < height:
                neighbours.append((y + 1, x))
            if x + 1 < width and y + 1 < height:
                neighbours.append((y + 1, x + 1))
            out[y, x] = any(mask[y, x] != mask[n] for n in neighbours)
    return out


def share_near(points, others, radius):
    """Share of `points` that have one of `others` within `radius`."""
    others = np.array(others).reshape(-1, 2)
    near = 0
    for point in points:
        near += bool((((others - point) ** 2).sum(axis=1) <= radius**2).any())
    return near / len(points)


def jaccard(annotation, prediction, void=None):
    inter = union = 0
    for index in np.ndindex(annotation.shape):
        if void is not None and void[index]:
            continue
        inter += bool(annotation[index]) and bool(prediction[index])
        union += bool(annotation[index]) or bool(prediction[index])
    return inter / union if union else 1.0


def boundary_f(annotation, prediction, void=None):
    annotation, prediction = annotation.astype(bool), prediction.astype(bool)
    if void is not None:
        annotation, prediction = annotation * ~void, prediction * ~void
    radius = math.ceil(0.008 * math.sqrt(annotation.shape[0] ** 2 + annotation.shape[1] ** 2))
    truth = [tuple(p) for p in np.argwhere(boundary(annotation)).tolist()]
    guess = [tuple(p) for p in np.argwhere(boundary(prediction)).tolist()]
    if not truth and not guess:
        return 1.0
    precision = share_near(guess, truth, radius) if guess else 1.0
    recall = share_near(truth, guess, radius) if truth else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def by_opencv(annotation, prediction):
    """J and F as they are usually computed, quick enough for whole frames: boundaries by shifted copies of the frame,
    dilated with a disk."""
    union = np.count_nonzero(annotation | prediction)
    j = np.count_nonzero(annotation & prediction) / union if union else 1.0
    radius = math.ceil(0.008 * math.hypot(*annotation.shape))
    offsets = np.arange(-radius, radius + 1)
    disk = (offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2).astype(np.uint8)
    boundaries, dilated = [], []
    for mask in (annotation, prediction):
        padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
        edge = (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:])
        boundaries.append(edge)
        dilated.append(cv2.dilate(edge.astype(np.uint8), disk).astype(bool))
    counts = [np.count_nonzero(edge) for edge in boundaries]
    if not all(counts):
        return j, float(counts[0] == counts[1])
    recall = np.count_nonzero(boundaries[0] & dilated[1]) / counts[0]
    precision = np.count_nonzero(boundaries[1] & dilated[0]) / counts[1]
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0
