"""Intervals: their laws, their honest gaps, and how often they hold the truth."""

import numpy as np
import pytest

from dissect.statistics import intervals, stability
from dissect.statistics.intervals import FEWEST, student
from tests.campaigns.coverage import Population, covered


@pytest.mark.parametrize(
    ("freedom", "expected"), [(7, 2.3646), (15, 2.1314), (31, 2.0395), (63, 1.9983), (1000, 1.9623)]
)
def test_student_equals_its_table(freedom: int, expected: float) -> None:
    assert student(freedom) == pytest.approx(expected, abs=2e-4)


def test_an_interval_by_hand() -> None:
    """Eight blocks, delete one at a time, on the logit scale."""
    meeting = np.array([3, 5, 2, 6, 4, 4, 7, 1])
    union = np.array([20, 22, 18, 25, 19, 21, 24, 16])
    logit = [np.log(r / (1 - r)) for r in ((32 - m) / (165 - u) for m, u in zip(meeting, union))]
    error = np.sqrt(7 / 8 * sum((value - np.mean(logit)) ** 2 for value in logit))
    center = np.log((32 / 165) / (1 - 32 / 165))
    low, high = intervals(meeting[:, None], union[:, None])
    for found, sign in ((low, -1), (high, 1)):
        assert found[0] == pytest.approx(1 / (1 + np.exp(-(center + sign * student(7) * error))), rel=1e-12)


def test_laws() -> None:
    random = np.random.default_rng(0)
    union = random.integers(1, 500, (32, 40))
    meeting = (union * random.beta(2, 5, union.shape)).astype(int)
    low, high = intervals(meeting, union)
    iou = meeting.sum(0) / union.sum(0)
    assert ((low > 0) & (low < iou) & (iou < high) & (high < 1)).all()
    order = random.permutation(32)
    np.testing.assert_allclose(intervals(meeting[order], union[order]), (low, high), rtol=1e-9)
    np.testing.assert_allclose(intervals(1000 * meeting, 1000 * union), (low, high), rtol=1e-9)
    wide = intervals(np.repeat(meeting, 4, 0)[::4], np.repeat(union, 4, 0)[::4])  # the same blocks again
    np.testing.assert_allclose(wide, (low, high), rtol=1e-12)


def test_where_there_is_no_honest_interval() -> None:
    union = np.full((16, 5), 10)
    meeting = np.full((16, 5), 4)
    meeting[:, 0] = 0  # never meets
    meeting[:, 1] = 10  # always equal
    union[FEWEST - 1 :, 2] = meeting[FEWEST - 1 :, 2] = 0  # too few blocks
    meeting[:, 4] = np.arange(16) % 5
    low, high = intervals(meeting, union)
    assert np.isnan(low).tolist() == [True, True, True, True, False]  # number 3 is the same everywhere
    assert np.isnan(high).tolist() == np.isnan(low).tolist()


def test_coverage() -> None:
    """A fixed part of `python -m tests.campaigns.coverage`: 400 draws, so 93..97 % widens by two standard errors."""
    share = np.mean(list(covered(Population(0.1, (2, 2)), 32, 2000, 400, seed=3)))
    assert 0.91 <= share <= 0.99


def test_a_clear_label_is_stable_and_a_tie_is_not() -> None:
    """Unit 0: a clear winner. Unit 1: two concepts with equal sums. Unit 2: no label at all."""
    random = np.random.default_rng(0)
    union = np.full((64, 4), 100)
    columns = [random.integers(40, 60, 64), random.integers(5, 20, 64), random.integers(20, 60, 64)]
    meeting = np.stack([*columns, columns[2][::-1]], 1)
    found = stability(np.array([0, 0, 1, 1]), np.array([1, 2, 1, 2]), meeting, union, 3)
    assert found[0] == 1
    assert 0.3 < found[1] < 0.7
    assert np.isnan(found[2])
    again = stability(np.array([0, 0, 1, 1]), np.array([1, 2, 1, 2]), meeting, union, 3)
    np.testing.assert_array_equal(found, again)
