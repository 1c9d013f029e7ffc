import itertools
import math

import numpy as np
import pytest

from osmn_tf.datasets.examples import example_path
from osmn_tf.errors import InputError
from osmn_tf.evaluation import metrics
from osmn_tf.masks.files import read_label_png

from . import literal


def disk(height, width, row, column, radius):
    y, x = np.ogrid[:height, :width]
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


def box(height, width, rows, columns):
    mask = np.zeros((height, width), bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def test_golden_disks():
    truth, guess = disk(480, 854, 240, 400, 100), disk(480, 854, 248, 412, 104)
    assert metrics.jaccard(truth, guess) == pytest.approx(0.8292894523269807, abs=1e-12)
    assert metrics.boundary_f(truth, guess) == pytest.approx(0.43533864378526826, abs=1e-12)


def test_golden_boxes():
    truth, guess = box(64, 96, (16, 40), (20, 60)), box(64, 96, (18, 44), (23, 58))
    assert metrics.boundary_radius(64, 96) == 1
    assert metrics.jaccard(truth, guess) == pytest.approx(0.7, abs=1e-12)
    assert metrics.boundary_f(truth, guess) == pytest.approx(0.048, abs=1e-12)


def test_golden_void():
    truth, void = box(200, 200, (100, 150), (100, 150)), box(200, 200, (50, 100), (100, 150))
    guess = box(200, 200, (50, 150), (100, 150))
    assert metrics.jaccard(truth, guess, void) == 1.0
    assert metrics.boundary_f(truth, guess, void) == 1.0
    assert metrics.jaccard(truth, guess) == 0.5


@pytest.mark.parametrize(
    ("size", "radius"), [((480, 854), 8), ((1080, 1920), 18), ((256, 448), 5), ((240, 427), 4), ((300, 400), 4)]
)
def test_boundary_radius(size, radius):
    assert metrics.boundary_radius(*size) == radius


def blobs(generator, height, width):
    """A mask of a few random boxes and disks, which may touch or cross the borders."""
    mask = np.zeros((height, width), bool)
    for _ in range(generator.integers(1, 4)):
        row, column = generator.integers(-3, height + 3), generator.integers(-3, width + 3)
        if generator.random() < 0.5:
            mask |= disk(height, width, row, column, generator.integers(1, max(2, height // 3)))
        else:
            mask[max(row, 0) : max(row, 0) + height // 3, max(column, 0) : max(column, 0) + width // 3] = True
    return mask


def degenerate_masks(height, width):
    pixel = np.zeros((height, width), bool)
    pixel[height // 2, width // 2] = True
    corner = np.zeros((height, width), bool)
    corner[-1, -1] = True
    edge = np.zeros((height, width), bool)
    edge[:, -1] = True
    border = np.ones((height, width), bool)
    border[1:-1, 1:-1] = False
    return [np.zeros((height, width), bool), np.ones((height, width), bool), pixel, corner, edge, border]


def random_cases():
    generator = np.random.default_rng(7)
    for height, width in ((24, 40), (61, 33), (1, 30), (30, 1), (2, 2), (130, 130), (90, 257)):
        masks = degenerate_masks(height, width)
        masks += [blobs(generator, height, width) for _ in range(3)]
        masks.append(generator.random((height, width)) < 0.3)
        for _ in range(12):
            first, second = generator.choice(len(masks), 2)
            void = generator.random((height, width)) < 0.05 if generator.random() < 0.3 else None
            yield masks[first], masks[second], void


def test_equal_to_the_literal_definition_on_random_and_degenerate_masks():
    count = 0
    for truth, guess, void in random_cases():
        assert metrics.jaccard(truth, guess, void) == pytest.approx(literal.jaccard(truth, guess, void), abs=1e-12)
        assert metrics.boundary_f(truth, guess, void) == pytest.approx(
            literal.boundary_f(truth, guess, void), abs=1e-12
        )
        count += 1
    assert count == 84


def test_whole_frames_give_the_numbers_of_opencv():
    masks = [read_label_png(example_path() / "masks" / f"{t:05d}.png") for t in (0, 10, 59)]
    for truth, guess in itertools.product(masks, masks):
        for label in (1, 2, 3):
            found = metrics.jaccard_and_boundary_f(truth == label, guess == label)
            assert found == literal.by_opencv(truth == label, guess == label)


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 8, 18, 37])
def test_dilation_is_the_disk(radius):
    mask = np.zeros((80, 90), bool)
    mask[40, 45] = mask[0, 0] = mask[79, 89] = mask[3, 80] = True
    window = metrics.BitWindow((80, 90), (0, 80), (0, 90), radius)
    dilated = window.dilate(window.pack(mask), radius)
    expected = np.zeros((80, 90), bool)
    for y, x in np.argwhere(mask):
        expected |= disk(80, 90, y, x, radius)
    everywhere = window.pack(np.ones((80, 90), bool))
    assert dilated & everywhere == window.pack(expected)


def test_masks_without_a_boundary():
    empty, full = np.zeros((20, 30), bool), np.ones((20, 30), bool)
    some = box(20, 30, (5, 9), (5, 9))
    assert metrics.boundary_f(full, empty) == 1.0
    assert metrics.boundary_f(empty, empty) == 1.0
    assert metrics.boundary_f(some, empty) == 0.0
    assert metrics.boundary_f(full, some) == 0.0
    assert metrics.jaccard(empty, empty) == 1.0
    assert metrics.jaccard(full, empty) == 0.0


def test_whole_videos_give_one_value_per_frame():
    truth = np.stack([disk(60, 80, 30, 40, 12)] * 3)
    guess = np.stack([disk(60, 80, 30, 40 + step, 12) for step in (0, 3, 40)])
    j, f = metrics.jaccard(truth, guess), metrics.boundary_f(truth, guess)
    assert j.shape == f.shape == (3,)
    assert j[0] == f[0] == 1.0
    assert j[2] == 0.0
    assert j[1] == metrics.jaccard(truth[1], guess[1])
    assert f[1] == metrics.boundary_f(truth[1], guess[1])


def test_label_values_count_as_object():
    truth = box(20, 20, (2, 8), (2, 8)).astype(np.uint8) * 255
    assert metrics.jaccard(truth, truth // 255) == 1.0


def test_error_split_adds_up_to_one_minus_j():
    truth, guess = box(100, 200, (20, 60), (20, 60)), box(100, 200, (22, 66), (25, 62))
    guess |= box(100, 200, (20, 30), (150, 160))
    scores = metrics.frame_scores(truth, guess, 2, 10)
    assert scores.false_far == 100
    assert scores.false_close == 44 * 37 - 38 * 35
    assert scores.missed == 1600 - 38 * 35
    total = scores.false_close + scores.false_far + scores.missed
    assert 1 - scores.j == pytest.approx(total / scores.union, abs=1e-12)
    assert scores.j == metrics.jaccard(truth, guess)
    assert scores.f == metrics.boundary_f(truth, guess, tolerance=2 / math.sqrt(100**2 + 200**2))


def test_error_split_measures_the_euclidean_distance():
    truth, guess = np.zeros((60, 60), bool), np.ones((60, 60), bool)
    truth[30, 30] = True
    assert metrics.frame_scores(truth, guess, 1, 10).false_close == disk(60, 60, 30, 30, 10).sum() - 1
    nothing = np.zeros((60, 60), bool)
    assert metrics.frame_scores(nothing, guess, 1, 10)[2:] == (3600, 0, 3600, 0)


@pytest.mark.parametrize(("frames", "edges"), [(67, [0, 17, 33, 50, 66]), (102, [0, 25, 51, 76, 101])])
def test_decay_uses_the_documented_quarters(frames, edges):
    values = np.random.default_rng(0).random(frames)
    expected = values[edges[0] : edges[1] + 1].mean() - values[edges[3] : edges[4] + 1].mean()
    assert metrics.statistics(values).decay == pytest.approx(expected, abs=1e-15)


def test_statistics_by_hand():
    mean, recall, decay = metrics.statistics([1.0, 0.75, 0.5, 0.25, 0.0])
    assert (mean, recall, decay) == (0.5, 0.4, 0.75)
    assert metrics.statistics([0.25]) == (0.25, 0.0, 0.0)
    # 300 frames: the official evaluator's 8-bit indices wrap here.
    assert metrics.statistics(np.linspace(1, 0, 300)).decay == pytest.approx(0.75, abs=0.005)


def test_statistics_leave_undefined_frames_out_of_the_mean():
    mean, recall, _ = metrics.statistics([math.nan, 0.6, 0.8, 0.7])
    assert mean == pytest.approx(0.7, abs=1e-15)
    assert recall == 0.75
    assert math.isnan(metrics.statistics([math.nan]).mean)


@pytest.mark.parametrize("values", [[], [[1.0]], 3.0])
def test_statistics_refuse_what_is_no_list_of_frames(values):
    with pytest.raises(InputError, match="one value per frame"):
        metrics.statistics(values)


def test_bad_masks_are_refused():
    mask = np.zeros((4, 4), bool)
    with pytest.raises(InputError, match=r"prediction: .*\(4, 4\).*\(4, 5\).*nothing is resized"):
        metrics.jaccard(mask, np.zeros((4, 5), bool))
    with pytest.raises(InputError, match="threshold probabilities first"):
        metrics.boundary_f(mask, np.zeros((4, 4), np.float32))
    with pytest.raises(InputError, match="void"):
        metrics.jaccard(mask, mask, np.zeros((3, 4), bool))
    with pytest.raises(InputError, match="annotation: expected masks"):
        metrics.jaccard(np.zeros(4, bool), np.zeros(4, bool))
