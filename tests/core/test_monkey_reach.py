import numpy as np
import pytest

from core.datasets import monkey_reach
from core.errors import DataError

needs_data = pytest.mark.skipif(
    monkey_reach.locate("chewie") is None, reason="monkey_reach_dad is not in the data directory"
)


def arrays(bins=51, **changes):
    made = {
        "counts_te": np.ones((bins, 3), np.uint8),
        "velocity_te": np.zeros((bins, 2), np.float32),
        "target_te": np.r_[np.zeros(20, np.uint8), np.ones(max(0, bins - 20), np.uint8)][:bins],
    } | changes
    return {name: array for name, array in made.items() if array is not None}


def write(folder, found):
    path = folder / "monkey_reach_dad" / "chewie.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **found)
    return path


@needs_data
@pytest.mark.parametrize(("part", "trials"), [("tr", 38), ("te", 58)])
def test_chewie_reaches_in_whole_trials_for_one_of_four_targets(part, trials):
    found = monkey_reach.reaches(part)
    assert found.counts.shape == (trials, 31, 71)
    assert found.velocity.shape == (trials, 31, 2)
    assert set(found.target.tolist()) <= {0, 1, 2, 3}


@needs_data
@pytest.mark.parametrize(("part", "bins", "neurons"), [("tr", 623, 174), ("te", 803, 187)])
def test_mihi_has_other_neurons_in_each_part(part, bins, neurons):
    assert monkey_reach.load("mihi", part).counts.shape == (bins, neurons)


def test_the_head_before_the_first_trial_and_the_rest_are_left_out(tmp_path):
    write(tmp_path, arrays(bins=20 + 31 + 7))
    found = monkey_reach.reaches("te", tmp_path)
    assert found.counts.shape == (1, 31, 3)
    np.testing.assert_array_equal(found.target, [1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"velocity_te": None}, "field 'velocity_te' is missing; it has counts_te, target_te"),
        ({"velocity_te": np.zeros((50, 2), np.float32)}, r"'velocity_te' has shape \(50, 2\), which does not fit"),
        ({"velocity_te": np.zeros((51, 3), np.float32)}, "'velocity_te' has 3 columns, not 2"),
        ({"velocity_te": np.full((51, 2), np.nan)}, "'velocity_te' holds other than finite numbers"),
        ({"counts_te": np.full((51, 3), -1)}, "'counts_te' must hold whole numbers from 0"),
        ({"counts_te": np.full((51, 3), 0.5)}, "'counts_te' must hold whole numbers from 0"),
        ({"target_te": np.arange(51) % 4}, "trial 0 has more than one target"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_named_by_field(tmp_path, changes, message):
    write(tmp_path, arrays(**changes))
    with pytest.raises(DataError, match=message):
        monkey_reach.reaches("te", tmp_path)


def test_a_recording_without_a_whole_trial_is_refused(tmp_path):
    write(tmp_path, arrays(bins=40))
    with pytest.raises(DataError, match="40 bins hold no trial of 31"):
        monkey_reach.reaches("te", tmp_path)


def test_a_damaged_or_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"monkey_reach_dad/chewie.npz is not in the data directory .*RELIC_DATA"):
        monkey_reach.load("chewie", "te", tmp_path)
    write(tmp_path, arrays()).write_bytes(b"PK cut")
    with pytest.raises(DataError, match="truncated or not an npz file"):
        monkey_reach.load("chewie", "te", tmp_path)
