"""Memory: the estimate grows with what a study asks for, and more than there is gets refused with both numbers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from layerwise import sizes
from layerwise.study import Shape, StudyError
from tests.studies import small


def needed(**changes) -> int:
    study = small(**changes)
    return sum(sizes.estimated_bytes(study, study.data.shape()).values())


def data(rows: int, features: int = 2, **more) -> dict:
    return {"source": "blobs", "samples": rows, "features": features, "split": {"train": 0.5, "test": 0.5}, **more}


def test_the_estimate_grows_with_what_is_asked_for():
    """Rows, features, epochs, units, seeds of a block and own copies of the data all cost memory."""
    base = needed(data=data(10_000))
    assert needed(data=data(20_000)) > base
    assert needed(data=data(10_000, 50)) > base
    assert needed(data=data(10_000), training={"epochs": 500}) > base
    assert needed(data=data(10_000), network={"layers": [{"units": 100}]}) > base
    assert needed(data=data(10_000, 50, scaling="standard", shuffle=True)) > needed(data=data(10_000, 50))
    assert needed(data=data(10_000), seeds=10) == needed(data=data(10_000), seeds=100)


def test_the_estimate_counts_each_part():
    """A wide study's data are counted as read, while they are fitted, and as each seed and TensorFlow hold them."""
    study = small(data=data(1000, 500), network={"layers": [{"units": 500}]})
    parts = sizes.estimated_bytes(study, Shape(1000, 500, 3))
    assert len(study.blocks()[0]) == 1
    assert parts["inputs"] == 1000 * 500 * (4 + 16 + 8)
    assert parts["features"] == 3 * 1000 * 500 * 4
    assert parts["weights"] == 5 * (500 * 500 + 500 * 3) * 4


def test_peak_memory_is_in_bytes():
    """A process that held 400 MB has held as many bytes, whatever the one that started it held; so say both sources."""
    script = (
        "import numpy, pathlib; from layerwise import sizes; numpy.ones(50_000_000); print(sizes.peak_bytes());"
        "sizes.STATUS = pathlib.Path('nowhere'); print(sizes.peak_bytes())"
    )
    own = np.ones(100_000_000)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    exact, usage = map(int, done.stdout.split())
    assert own.nbytes == 800e6
    assert 400e6 < exact < 700e6
    assert exact <= usage < 8e9


def test_too_large_a_study_is_refused_with_both_numbers():
    """The refusal says what is needed, what most of it is for, and what there is."""
    study = small(data=data(5_000_000, 100), training={"batch_size": 1000})
    with pytest.raises(StudyError, match=r"small: would need about .* GB of memory, .* GB of it for .*there is 8 GB"):
        sizes.refuse_oversize(study, available=8_000_000_000)
    sizes.refuse_oversize(small())
    assert sizes.machine_bytes() > 1e9


def test_too_large_a_file_is_refused_with_both_numbers():
    """A file that would not fit is refused before it is read."""
    with pytest.raises(StudyError, match=r"own.csv: reading it would take about 40 GB of memory, and there is 8 GB"):
        sizes.refuse_oversize_file("own.csv", 40_000_000_000, available=8_000_000_000)


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (12_345_678_901, "12.3 GB")]
)
def test_sizes_in_words(size: int, words: str):
    """Three digits and a unit."""
    assert sizes.in_words(size) == words
