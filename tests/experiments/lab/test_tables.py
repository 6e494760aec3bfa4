"""Tables put published beside reproduced figures, with intervals and corrected tests."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from core.errors import DataError
from core.stats import holm, median
from experiments.lab import compared, grids, lines, pivot, runs, tables
from experiments.lab.text import number
from tests.experiments.toy import quick_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return quick_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def entries(run):
    return {(e.method, e.metric): e for e in tables.main_table(run)}


def test_the_mean_and_its_interval_are_scipys(run, entries):
    frame = run.frame
    values = frame[(frame.metric == "error") & (frame.method == "adam")].value
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    entry = entries["adam", "error"].reproduced
    np.testing.assert_allclose([entry.value, entry.low, entry.high], [np.mean(values), low, high])


def test_numbers_with_coordinates_stay_out_of_the_main_table(run):
    assert {"loss"} == set(run.frame.metric) - {e.metric for e in tables.main_table(run)}


def test_every_method_is_tested_against_the_baseline_and_corrected(run, entries):
    frame = run.frame[run.frame.metric == "error"].pivot_table(index="seed", columns="method", values="value")
    raw = [stats.ttest_rel(frame[method], frame["sgd"])[1] for method in ("adam", "<b>&")]
    found = [entries[method, "error"].p_holm for method in ("adam", "<b>&")]
    np.testing.assert_allclose(found, holm(raw), rtol=1e-6)
    assert np.isnan(entries["sgd", "error"].p_holm)


def test_published_and_reproduced_stand_side_by_side_with_their_difference(entries):
    entry = entries["sgd", "error"]
    assert entry.published.value == 0.05
    np.testing.assert_allclose(entry.difference, entry.reproduced.value - 0.05)


def test_what_was_only_published_has_a_row_and_missing_figures_a_dash(run):
    text = grids.render(run, "md")
    row = next(line for line in text.splitlines() if line.startswith("| secret"))
    assert row.split("|")[2].strip() == grids.MISSING
    assert "0.0100¶" in row


def test_published_numbers_for_data_sets_that_were_not_run_stand_apart(run):
    assert {e.dataset for e in tables.main_table(run)} == {"line"}
    apart = grids.all_grids(run)[1]
    assert apart.header == ["data set", "method", "error"]
    assert apart.rows == [["moon", "sgd", "0.5000§"]]
    assert "§ read in a published training log" in " ".join(apart.notes)


def test_marks_of_published_numbers_are_explained(run):
    notes = " ".join(grids.all_grids(run)[0].notes)
    assert "† read in the paper" in notes
    assert "¶ recalled" in notes
    assert "§" not in notes


def test_one_seed_gives_no_interval_and_no_test(tmp_path):
    text = grids.render(quick_run(tmp_path, seeds=(4,)), "md")
    assert "±" not in text
    assert "| p |" not in text
    assert "nan" not in text


def test_csv_has_the_unrounded_figures(run, entries):
    frame = pd.read_csv(io.StringIO(grids.render(run, "csv")))
    row = frame[(frame.method == "adam") & (frame.metric == "error")].iloc[0]
    np.testing.assert_allclose(row["value"], entries["adam", "error"].reproduced.value, rtol=1e-12)


def test_latex_is_escaped_and_its_rows_have_equal_lengths(run):
    text = grids.render(run, "latex")
    assert r"$<$b$>$\&" in text
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 3
    body = [line for line in text.split(r"\end{table}")[0].splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in body}) == 1


def test_further_tables_follow_the_main_one(run):
    titles = [grid.title for grid in grids.all_grids(run)]
    assert titles == ["line", "Published for other data sets", "Loss by step"]
    assert grids.all_grids(run)[2].rows[0][0] == "10"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.23614, "0.2361"), (12.3456, "12.35"), (1234.5, "1234"), (1.5e-7, "1.5e-07"), (0.0, "0.000"), (np.nan, "–")],
)
def test_figures_are_shown_with_four_digits(value, text):
    assert number(value) == text


def test_whole_columns_of_a_table_are_written_without_decimals():
    grid = grids.frame_grid("t", pd.DataFrame({"step": [10.0, np.nan], "on": [True, None], "x": [0.5, 2.0]}))
    assert grid.rows == [["10", "True", "0.5000"], ["–", "–", "2.000"]]


@pytest.mark.parametrize("width", [72, 200])
def test_a_table_too_wide_for_the_terminal_is_shown_in_parts_and_nothing_is_cut(run, width):
    console = Console(width=width, file=io.StringIO())
    grid = grids.all_grids(run)[0]
    console.print(grids.Shown(grid))
    text = console.file.getvalue()
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    assert all(cell in text for row in grid.rows for cell in row)
    assert text.count("sgd  ") == (1 if width == 200 else 2)


def test_what_two_processes_computed_at_once_counts_once(tmp_path):
    folder = quick_run(tmp_path).folder
    before = runs.read(folder).records
    path = folder / runs.RECORDS
    again = [json.loads(line) for line in path.read_text().splitlines()]
    for record in again:
        record["provenance"]["cell"]["write"] += "-again"
    with path.open("a") as opened:
        opened.writelines(json.dumps(record) + "\n" for record in again)
    assert runs.read(folder).records == before


def test_medians_are_noted_with_the_coverage_that_they_have():
    entry = tables.EMPTY._replace(metric="error", method="m", reproduced=median([3.0, 1.0, 2.0, 5.0, 40.0]))
    assert grids.with_interval(entry.reproduced) == "3.000 [1.000, 40.000]"
    assert "median of seeds, order statistics (93.8%)" in " ".join(grids.notes([entry], None))


def test_every_part_of_a_wide_table_names_its_rows():
    rows = [["a", "1", "x" * 30, "y" * 30], ["a", "2", "x" * 30, "y" * 30], ["b", "1", "x" * 30, "y" * 30]]
    grid = grids.Grid("t", ["world", "L", "first", "second"], rows, [])
    assert grid.keys == 2
    assert grids._parts(grid, 50) == [[0, 1, 2], [0, 1, 3]]


def test_several_records_of_a_seed_in_one_place_are_refused_and_what_differs_is_named():
    rows = [("line", "ridge", "error", seed, 1.0 + seed, p) for seed in range(3) for p in (np.nan, 0.1, 1.0)]
    frame = pd.DataFrame(rows, columns=["dataset", "method", "metric", "seed", "value", "penalty"])
    for shown in (
        pivot("method", "dataset", metric="error"),
        compared("Errors.", ["error"]),
        lines("Errors.", "error", "seed"),
    ):
        with pytest.raises(DataError, match=r"3 records of error, ridge, have seed 0 .*\(penalty\)"):
            shown(frame)
    assert pivot("method", "dataset", metric="error", penalty=None)(frame)["line"][0].startswith("2.000")
    whole = pivot("method", "dataset", metric="error", per=("seed", "penalty")).cells(frame)
    assert whole["ridge",]["line"].n == 9
