import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.records import Record, to_frame
from experiments.bindings import fault
from experiments.dccf import CLAIMS, SYSTEM, tables
from experiments.graph_recommenders.config import BASELINE, PEER, SIMULATED, SMALL, SMOKE, noisy
from experiments.graph_recommenders.figures import figures
from experiments.graph_recommenders.judges import (
    judge_false_edges,
    judge_gowalla,
    judge_order,
    judge_peer_curve,
    judge_robustness,
    judge_speed_of_learning,
)
from experiments.graph_recommenders.running import run
from experiments.system import ShownByRecords, ShownByTest

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
