import numpy as np
import pytest

from core.datasets import erp
from core.errors import DataError

FIELDS = {
    "erp_uci_subject_means": {"erp": np.ones((6, 64, 64)), "alcoholic": np.arange(6) % 2},
    "erp_smni_train": {
        "x": np.ones((6, 8, 256)), "subject": np.arange(6) // 3, "alcoholic": np.arange(6) % 2,
        "condition": np.arange(6) % 3,
    },
    "erp_impulsivity": {"erp": np.ones((6, 2, 3, 501)), "high_impulsivity": np.arange(6) % 2},
}  # fmt: skip
READERS = {
    "erp_uci_subject_means": erp.subject_means,
    "erp_smni_train": erp.single_trials,
    "erp_impulsivity": erp.stop_signal,
}
with_data = pytest.mark.skipif(
    any(erp.locate(name) is None for name in erp.FILES), reason="the ERP files are not in the data directory"
)


def write(folder, name, **changed):
    path = folder / name / erp.FILES[name]
    path.parent.mkdir(parents=True)
    np.savez(path, **{field: value for field, value in {**FIELDS[name], **changed}.items() if value is not None})
    return path


def holed(shape):
    values = np.ones(shape)
    values[1, 0, 2] = np.nan
    return values


@with_data
def test_the_real_recordings_have_their_known_numbers():
    people, trials, stops = erp.subject_means(), erp.single_trials(), erp.stop_signal()
    assert np.bincount(people.alcoholic).tolist() == [22, 39]
    assert trials.x.shape == (600, 8, 256)
    assert np.unique(trials.subject).size == 20
    assert np.bincount(stops.high_impulsivity).tolist() == [12, 12]
    assert stops.erp.shape == (24, 2, 3, 501)


@pytest.mark.parametrize("name", FIELDS)
def test_a_good_file_is_read(tmp_path, name):
    write(tmp_path, name)
    found = READERS[name](tmp_path)
    assert found[0].shape == next(iter(FIELDS[name].values())).shape
    assert found[0].dtype == np.float32


@pytest.mark.parametrize("name", FIELDS)
def test_an_absent_file_is_named_with_the_way_to_give_it(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}/.*--data-dir or RELIC_DATA"):
        READERS[name](tmp_path)


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("erp_uci_subject_means", {"alcoholic": None}, "field 'alcoholic' is missing"),
        ("erp_smni_train", {"condition": None}, "field 'condition' is missing"),
        ("erp_impulsivity", {"erp": None}, "field 'erp' is missing"),
        ("erp_uci_subject_means", {"erp": np.ones((6, 64))}, r"field 'erp' has shape \(6, 64\)"),
        ("erp_smni_train", {"x": np.ones((6, 8, 255))}, r"\(6, 8, 255\) where \(6, 8, 256\) is needed"),
        ("erp_impulsivity", {"high_impulsivity": np.ones(5)}, r"\(5,\) where \(6,\) is needed"),
        ("erp_uci_subject_means", {"erp": np.ones((0, 64, 64))}, "field 'erp' has shape"),
        ("erp_uci_subject_means", {"erp": holed((6, 64, 64))}, "field 'erp' holds values that are no finite numbers"),
        ("erp_smni_train", {"x": holed((6, 8, 256))}, "field 'x' holds values that are no finite numbers"),
        ("erp_impulsivity", {"high_impulsivity": np.array(list("ababab"))}, "holds no numbers"),
        ("erp_uci_subject_means", {"alcoholic": np.arange(6)}, "alcoholic is 2; one of 0 to 1"),
        ("erp_smni_train", {"condition": np.full(6, 3)}, "condition is 3; one of 0 to 2"),
        ("erp_impulsivity", {"high_impulsivity": np.full(6, 0.5)}, "high_impulsivity is 0.5"),
    ],
)
def test_damaged_files_are_named_by_field(tmp_path, name, changed, message):
    write(tmp_path, name, **changed)
    with pytest.raises(DataError, match=message):
        READERS[name](tmp_path)


def test_a_file_that_is_no_archive_is_an_error_of_data(tmp_path):
    write(tmp_path, "erp_impulsivity").write_bytes(b"not an archive")
    with pytest.raises(DataError, match="impulsivity_erp"):
        erp.stop_signal(tmp_path)
