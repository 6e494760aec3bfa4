import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.records import Record, to_frame
from core.stats import paired
from experiments.dccf import CLAIMS, SYSTEM, tables
from experiments.dccf.conclusion import conclusion
from experiments.dccf.config import (
    BASELINE,
    BEST_STEP,
    PEER,
    SIMULATED,
    SMALL,
    SMOKE,
    STOPPED,
    VALIDATED,
    noisy,
)
from experiments.dccf.figures import COLOURS, figures
from experiments.dccf.judges import (
    curve,
    finals,
    judge_false_edges,
    judge_gowalla,
    judge_order,
    judge_peer_curve,
    judge_robustness,
    judge_speed_of_learning,
)
from experiments.dccf.study import running
from experiments.dccf.study.running import Sample, run
from experiments.lab.bindings import fault
from experiments.lab.system import ShownByRecords, ShownByTest
from rec.intents import simulate

ROOT = Path(__file__).resolve().parents[2]
TINY = dataclasses.replace(
    SMOKE,
    methods=("Popularity", BASELINE, "DCCF K=3"),
    robust=("DCCF K=3",),
    evaluations=2,
    dim=4,
    layers=1,
    batch_size=16,
    dccf_batch_size=16,
    users=40,
    items=30,
    simulated_steps=4,
    simulated_dccf_steps=4,
)


EVERYWHERE = (
    "methods=Popularity,LightGCN,DCCF K=3", "robust=DCCF K=3", "evaluations=2", "dim=4", "layers=1", "batch_size=16",
    "dccf_batch_size=16", "users=40", "items=30", "simulated_steps=4", "simulated_dccf_steps=4",
)  # fmt: skip
"""The same settings on the command line."""


@dataclasses.dataclass
class Notebook:
    """A context that remembers."""

    workdir: Path
    seeds: tuple[int, ...] = (0, 1)
    preset: str = "smoke"
    data_dir: Path | None = None
    records: list[Record] = dataclasses.field(default_factory=list)
    announced: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    done_cells: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    lines: list[str] = dataclasses.field(default_factory=list)

    def cells(self, cells):
        self.announced += cells

    def done(self, **cell):
        return cell in self.done_cells

    def record(self, *, dataset, method, metric, seed, value, **coords):
        self.records.append(Record("dccf", self.preset, dataset, method, metric, seed, value, coords))

    def finish(self, **cell):
        self.done_cells.append(cell)

    def say(self, message):
        self.lines.append(message)

    def progress(self, description):
        return lambda done, total: None


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    context = Notebook(tmp_path_factory.mktemp("dccf"))
    run(TINY, context)
    return context


def test_every_cell_is_measured_for_every_seed(finished):
    frame = to_frame(finished.records)
    plain = frame[frame[["step", "degree"]].isna().all(axis=1) & (frame["metric"] == "ndcg@20")]
    found = set(plain[["dataset", "method", "seed"]].itertuples(index=False, name=None))
    cells = [(SIMULATED, m) for m in ("Popularity", BASELINE, "DCCF K=3")] + [(noisy(TINY), "DCCF K=3")]
    assert found == {(*cell, seed) for cell in cells for seed in finished.seeds}
    assert plain["value"].between(0, 1).all()


def test_cells_are_announced_as_they_are_finished(finished):
    assert set(map(str, finished.announced)) == set(map(str, finished.done_cells))


def test_curves_and_truths_are_recorded(finished):
    frame = to_frame(finished.records)
    steps = frame[(frame["method"] == BASELINE) & (frame["metric"] == "recall@20")]["step"].dropna()
    assert sorted(steps.unique()) == [2, 4]
    assert {"mad", "purity", "auc of true edges", "auc of wanted edges"} <= set(frame["metric"])


def test_a_finished_run_is_not_repeated(finished):
    before = len(finished.records)
    run(TINY, finished)
    assert len(finished.records) == before


@pytest.mark.parametrize("dataset", [SIMULATED, "lastfm_cf"])
def test_users_are_compared_without_a_work_folder_where_there_is_nothing_to_compute(dataset, tmp_path):
    class Done(Notebook):
        @property
        def workdir(self):
            raise AssertionError("a run that computes nothing needs no folder for checkpoints")

        @workdir.setter
        def workdir(self, path):
            pass

    cell = {"dataset": dataset, "method": f"over {BASELINE}"}
    context = Done(tmp_path, done_cells=[cell])
    running.compare_users(dataclasses.replace(TINY, dataset=dataset), context)
    assert context.announced == ([] if dataset == SIMULATED else [cell])


def test_seeds_differ_and_a_seed_alone_gives_its_numbers_again(finished, tmp_path):
    alone = Notebook(tmp_path, seeds=(1,))
    run(dataclasses.replace(TINY, methods=(BASELINE,), robust=()), alone)
    frames = to_frame(alone.records), to_frame(finished.records)
    values = [f[(f["method"] == BASELINE) & f["step"].notna()].set_index(["metric", "step", "seed"]) for f in frames]
    together = values[1]["value"]
    np.testing.assert_allclose(values[0]["value"], together[values[0].index], rtol=1e-4)
    assert (together.xs(0, level="seed") != together.xs(1, level="seed")).any()


def test_a_missing_data_set_is_simulated_instead(tmp_path, monkeypatch):
    monkeypatch.setenv("RELIC_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("RELIC_CACHE", str(tmp_path / "cache"))
    context = Notebook(tmp_path, seeds=(0,), data_dir=tmp_path / "nowhere")
    run(dataclasses.replace(TINY, dataset="lastfm_cf", methods=("Popularity",), robust=()), context)
    assert {record.dataset for record in context.records} == {SIMULATED}
    assert "simulated intents instead" in "".join(context.lines)


def test_tables_and_figures_are_made_of_a_run(finished):
    frame = to_frame(finished.records)
    assert set(figures(frame)) >= {"curves_intents", "robustness"}
    (table,) = tables(frame).values()
    assert "purity" in table.columns


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    """A run whose methods stop by validation."""
    context = Notebook(tmp_path_factory.mktemp("validated"))
    run(dataclasses.replace(TINY, methods=("Popularity", BASELINE), robust=(), **STOPPING), context)
    return context


STOPPING = {"validation": 0.2, "patience": 1, "evaluations": 4, "simulated_steps": 8, "simulated_dccf_steps": 8}


def test_methods_stop_at_their_best_step_on_held_out_training_items(validated):
    frame = to_frame(validated.records)
    for seed in validated.seeds:
        course = curve(frame, SIMULATED, BASELINE, f"validation {VALIDATED}")[seed].dropna()
        best = finals(frame, SIMULATED, BASELINE, BEST_STEP)[seed]
        assert set(course.index) <= {2, 4, 6, 8}
        assert course.idxmax() == best
        stopped = finals(frame, SIMULATED, BASELINE, STOPPED)[seed]
        assert stopped == (course.index[-1] - best >= 2 * STOPPING["patience"])
    assert not (frame["metric"].str.startswith("validation") & (frame["method"] == "Popularity")).any()


def test_seeds_of_unequal_shape_train_apart_and_false_edges_are_told_among_the_kept(tmp_path):
    config, context = dataclasses.replace(TINY, **STOPPING), Notebook(tmp_path, seeds=(0, 1, 2))
    found = running.draws(config, context, noisy(TINY))
    parts = Sample(context.seeds, found).of_equal_shape()
    assert sorted(seed for part in parts for seed in part.seeds) == [0, 1, 2]
    assert all(len({draw.shape for draw in part.draws}) == 1 for part in parts)
    assert len(parts) > 1
    running.measure(config, context, noisy(TINY), parts[0].of(parts[0].seeds[:1]), "DCCF K=3")
    assert {"auc of true edges", BEST_STEP} <= {record.metric for record in context.records}


def test_test_items_choose_nothing(validated, tmp_path, monkeypatch):
    def moved(seed, **size):
        found, truth = simulate(seed, **size)
        unseen = [np.setdiff1d(np.arange(size["items"]), row)[-3:] for row in rows_of(found)]
        indptr = np.arange(len(unseen) + 1, dtype=np.int32) * 3
        return found._replace(test_indptr=indptr, test_items=np.concatenate(unseen).astype(np.int32)), truth

    monkeypatch.setattr(running, "simulate", moved)
    context = Notebook(tmp_path)
    run(dataclasses.replace(TINY, methods=(BASELINE,), robust=(), **STOPPING), context)
    theirs, ours = (to_frame(found.records) for found in (validated, context))
    for metric in (BEST_STEP, STOPPED):
        assert finals(ours, SIMULATED, BASELINE, metric).equals(finals(theirs, SIMULATED, BASELINE, metric))
    pair = [curve(frame, SIMULATED, BASELINE, f"validation {VALIDATED}") for frame in (ours, theirs)]
    pd.testing.assert_frame_equal(*pair)
    assert not finals(ours, SIMULATED, BASELINE).equals(finals(theirs, SIMULATED, BASELINE))


def rows_of(interactions):
    return np.split(interactions.train_items, interactions.train_indptr[1:-1])


def test_a_method_has_one_colour_in_all_figures_of_a_run(finished, validated):
    for context in (finished, validated):
        drawn = figures(to_frame(context.records))
        lines = [line for figure in drawn.values() for axes in figure.axes for line in axes.get_lines()]
        named = {(str(line.get_label()), line.get_color()) for line in lines if str(line.get_label()) in COLOURS}
        assert named
        assert named == {(name, COLOURS[name]) for name, _ in named}
    assert next(iter(drawn)) == f"validated_{SIMULATED}"


def ranks(ours, theirs, stopped=None):
    rows = [
        ("d", method, VALIDATED, seed, value, {})
        for method, found in (("DCCF", ours), (BASELINE, theirs))
        for seed, value in enumerate(found)
    ]
    rows += [("d", m, STOPPED, seed, 1.0 - (m == stopped), {}) for m in ("DCCF", BASELINE) for seed in range(3)]
    return frame_of(*(row for row in rows if stopped is not None or row[2] != STOPPED))


def test_the_conclusion_follows_the_interval_of_the_difference():
    better, worse = (0.30, 0.31, 0.32), (0.20, 0.21, 0.23)
    assert conclusion(ranks(better, worse, "")).endswith("held-out training items: DCCF ranks better here.")
    told = conclusion(ranks(worse, better, ""))
    found = paired(better, worse)
    assert told.endswith("LightGCN ranks better here.")
    assert f"is {found.value:.4f} lower than LightGCN's" in told
    assert f"95 % interval of the difference {found.low:.4f} to {found.high:.4f}, paired over 3 seeds" in told
    assert "these seeds do not tell which" in conclusion(ranks((0.2, 0.3, 0.25), (0.3, 0.2, 0.26), ""))
    assert "these seeds do not tell which" in conclusion(ranks((0.3,), (0.2,), ""))
    assert "after a fixed number of steps" in conclusion(ranks(better, worse))


def test_no_winner_is_named_over_a_method_that_was_cut_short():
    better, worse = (0.30, 0.31, 0.32), (0.20, 0.21, 0.23)
    assert "3 runs of LightGCN used up their steps" in conclusion(ranks(better, worse, BASELINE))
    assert "so no winner is named" in conclusion(ranks(better, worse, BASELINE))
    assert "LightGCN ranks better here" in conclusion(ranks(worse, better, BASELINE))
    assert conclusion(frame_of(("d", BASELINE, VALIDATED, 0, 0.2, {}))) == ""


def test_all_fourteen_items_are_bound_to_evidence_that_can_fail():
    numbers = {int("".join(c for c in claim.number if c.isdigit())) for claim in CLAIMS}
    assert numbers == set(range(1, 15))
    for claim in CLAIMS:
        if isinstance(claim.evidence, ShownByTest):
            assert fault(claim.evidence.nodeid, ROOT) is None, claim.number


@pytest.mark.parametrize("claim", [c for c in CLAIMS if isinstance(c.evidence, ShownByRecords)], ids=lambda c: c.number)
def test_judges_do_not_tell_without_records(claim, finished):
    few = to_frame(finished.records[:1])
    assert claim.evidence.judge(few).met is None


def frame_of(*rows) -> pd.DataFrame:
    return to_frame(
        [
            Record("dccf", "small", dataset, method, metric, seed, value, coords)
            for dataset, method, metric, seed, value, coords in rows
        ]
    )


def test_orders_need_the_margin_they_name():
    values = {"a": (0.30, 0.32, 0.31), "b": (0.29, 0.30, 0.30)}
    frame = frame_of(
        *[("d", method, "ndcg@20", seed, v, {}) for method, row in values.items() for seed, v in enumerate(row)],
        ("d", "b", "ndcg@20", 0, 0.9, {"step": 5}),
    )
    assert judge_order("d", "a", "b", standard_errors=2)(frame).met
    assert not judge_order("d", "a", "b", standard_errors=5)(frame).met
    assert judge_order("d", "b", "a")(frame).met is False


def test_the_peer_curve_must_be_met_at_both_epochs():
    def curve(shift):
        points = {420: (0.151, 0.104), 840: (0.172, 0.125)}
        return frame_of(
            *[
                ("lastfm_cf", PEER, metric, seed, value + shift, {"step": step})
                for step, pair in points.items()
                for metric, value in zip(("recall@20", "ndcg@20"), pair, strict=True)
                for seed in range(3)
            ]
        )

    assert judge_peer_curve(curve(0.009)).met
    assert judge_peer_curve(curve(-0.011)).met is False


def test_speed_of_learning_compares_first_steps_above_the_mark():
    rows = [
        ("lastfm_cf", method, "recall@20", seed, value, {"step": step})
        for method, course in ((BASELINE, {400: 0.1, 1600: 0.21}), ("DCCF", {100: 0.19, 200: 0.2, 300: 0.18}))
        for step, value in course.items()
        for seed in range(2)
    ]
    verdict = judge_speed_of_learning(frame_of(*rows))
    assert verdict.met
    assert "8.0 times" in verdict.value


def test_robustness_compares_shares_lost():
    rows = [
        (dataset, method, "ndcg@20", seed, value + 0.001 * seed, {})
        for method, clean, corrupted in ((BASELINE, 0.2, 0.1), ("DCCF", 0.1, 0.08))
        for dataset, value in ((SIMULATED, clean), (noisy(SMALL), corrupted))
        for seed in range(3)
    ]
    verdict = judge_robustness(frame_of(*rows))
    assert verdict.met
    assert verdict.interval is not None
    assert 0.2 < verdict.interval[0] < verdict.interval[1] < 0.4


def test_the_other_judges_tell_both_ways():
    edges = [(noisy(SMALL), "DCCF", "auc of true edges", seed, 0.5 + 0.01 * seed, {}) for seed in range(3)]
    assert judge_false_edges(frame_of(*edges)).met is False
    values = {"DCCF": 0.2, "SGL-ED": 0.18, "SimGCL": 0.19, BASELINE: 0.15, "BPR-MF": 0.16}
    rows = [
        ("gowalla", m, "ndcg@20", s, v + 0.001 * s * (m == "DCCF"), {}) for m, v in values.items() for s in range(3)
    ]
    assert judge_gowalla(frame_of(*rows)).met is False


def test_presets_are_of_one_type_and_name_known_methods():
    assert set(SYSTEM.presets) >= {"smoke", "small", "paper"}
    assert {type(config) for config in SYSTEM.presets.values()} == {SYSTEM.config_type}
