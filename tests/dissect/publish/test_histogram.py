"""Histograms on pages hold every activation that the files hold, in bins that tell zero from small."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dissect.histogram import BINS, Histogram
from dissect.publish.histogram import OCTAVES, StoredHistogram

VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60)


def stored(values: list[float]) -> StoredHistogram:
    """The histogram of values, counted into the bins of the kernel: the first eleven bits of a float32."""
    bins = np.array(values, np.float32).view(np.uint32) >> np.uint32(21)
    found = Histogram.from_table(np.bincount(bins, minlength=BINS)[:, None])
    return StoredHistogram(found.edges, found.count)


@given(VALUES)
def test_every_activation_is_in_its_bin(values: list[float]) -> None:
    shown = stored(values).of(0)
    assert shown is not None
    edges, exact = np.array(shown.edges), np.array(values, np.float32).astype(float)
    assert sum(shown.counts) == len(values)
    assert (np.diff(edges) > 0).all()
    assert edges[0] <= exact.min()
    assert exact.max() <= edges[-1]
    if (exact > 0).all():  # bins of positive values are closed below and open above
        assert np.histogram(exact, edges)[0].tolist() == list(shown.counts)
    assert len(shown.counts) <= 2 * (4 * (OCTAVES + 1)) + 1


def test_files_of_another_layer_are_not_shown(tmp_path: Path) -> None:
    edges, counts = tmp_path / "e.npy", tmp_path / "c.npy"
    assert StoredHistogram.open(edges, counts, 3) is None
    np.save(edges, np.arange(5.0))
    np.save(counts, np.ones((3, 4), np.int64))
    assert StoredHistogram.open(edges, counts, 3) is not None
    assert StoredHistogram.open(edges, counts, 4) is None
    np.save(counts, np.zeros((3, 4), np.int64))
    opened = StoredHistogram.open(edges, counts, 3)
    assert opened is not None
    assert opened.of(0) is None
