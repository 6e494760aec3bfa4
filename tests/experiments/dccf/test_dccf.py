import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.errors import ConfigError
from core.records import Record, to_frame
from core.stats import paired
from experiments.dccf import CLAIMS, SYSTEM, study
from experiments.dccf.claims import first_steps
from experiments.dccf.config import (
    BASELINE,
    BEST_STEP,
    GAINS,
    PEER,
    SIMULATED,
    SMALL,
    SMOKE,
    STOPPED,
    TUNED,
    VALIDATED,
    noisy,
    tuned,
)  # fmt: skip
from experiments.dccf.figures import COLOURS, TABLES, conclusion, figures
from experiments.lab import Place, numbers, settings
from experiments.lab.bindings import fault
from experiments.lab.runner import measure
from experiments.lab.system import ShownByTest
from rec.intents import simulate
from tests.experiments.dccf import TINY

ROOT = Path(__file__).resolve().parents[3]
CONFIG = settings.apply(SMOKE, TINY)
STOPPING = {"validation": 0.2, "patience": 1, "evaluations": 4, "simulated_steps": 8, "simulated_dccf_steps": 8}
TUNING = {"held_out": 0.2, "patience": 1, "evaluations": 4, "tuned_steps": 8, "tuned_dccf_steps": 8}
JUDGE = {claim.number: claim.evidence for claim in CLAIMS}


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
    missing: Any = ()

    def at(self, **place):
        return Place(self, place)  # pyright: ignore[reportArgumentType]

    def cells(self, cells):
        self.announced += cells

    def done(self, **cell):
        return cell in self.done_cells

    def record(self, *, dataset, method, metric, seed, value, **coords):
        self.records.append(Record("dccf", self.preset, dataset, method, metric, seed, value, coords))

    def finish(self, **cell):
        self.done_cells.append(cell)

    def require_all_belong(self, cells):
        assert cells

    def say(self, message):
        self.lines.append(message)

    def progress(self, description):
        return lambda done, total: None


def run(config, context) -> None:
    measure(SYSTEM, config, context)


def finals(frame, dataset, method, metric=VALIDATED):
    return numbers(metric, dataset=dataset, method=method, step=None, degree=None).of(frame)


def curve(frame, dataset, method, metric):
    """Steps down, seeds across."""
    return numbers(metric, per=("step", "seed"), dataset=dataset, method=method).of(frame).unstack()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    context = Notebook(tmp_path_factory.mktemp("dccf"))
    run(CONFIG, context)
    return context


def test_every_cell_is_measured_for_every_seed(finished):
    frame = to_frame(finished.records)
    plain = frame[frame[["step", "degree"]].isna().all(axis=1) & (frame["metric"] == "ndcg@20")]
    found = set(plain[["dataset", "method", "seed"]].itertuples(index=False, name=None))
    cells = [(SIMULATED, m) for m in ("Popularity", BASELINE, "DCCF K=3")] + [(noisy(CONFIG), "DCCF K=3")]
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
    run(CONFIG, finished)
    assert len(finished.records) == before


def test_users_are_compared_in_their_own_cell_where_the_data_are_real(tmp_path):
    def cells(dataset):
        config = dataclasses.replace(CONFIG, dataset=dataset, simulate_if_missing=False)
        return [cell for part in study.plan(config, Notebook(tmp_path)) for cell in part.cells]  # pyright: ignore

    over = {"dataset": "lastfm_cf", "method": f"over {BASELINE}"}
    assert over in cells("lastfm_cf")
    assert all("seed" in cell for cell in cells(SIMULATED))


def test_gains_of_users_are_those_of_the_kept_rankings(tmp_path):
    context, rng = Notebook(tmp_path, seeds=(0, 1, 2)), np.random.default_rng(0)
    config = dataclasses.replace(CONFIG, methods=(BASELINE, "BPR-MF", "DCCF", "SGL-ED"))
    with pytest.raises(ConfigError, match="BPR-MF on d is not kept"):
        study.compare_users(config, context, dataset="d")
    gains = {name: rng.random((3, 500)) + place / 10 for place, name in enumerate(config.methods)}
    for name, each in gains.items():
        for seed, values in enumerate(each):
            path = study.folder(context.at(dataset="d", method=name, seed=seed)) / "ndcg20.npy"
            path.parent.mkdir(parents=True)
            np.save(path, values)
    context.records.clear()
    study.compare_users(config, context, dataset="d")
    found = {(r.method, r.metric): {} for r in context.records}
    for r in context.records:
        found[r.method, r.metric][r.coords["part"]] = r.value
    assert {*found} == {*((name, f"{GAINS} {BASELINE}") for name in config.methods[1:]),
                        (BASELINE, f"{GAINS} BPR-MF"), ("DCCF", f"{GAINS} SGL-ED")}  # fmt: skip
    over = found["DCCF", f"{GAINS} SGL-ED"]
    assert over["mean"] == pytest.approx((gains["DCCF"] - gains["SGL-ED"]).mean())
    assert over["low"] < over["mean"] < over["high"]


def test_seeds_differ_and_a_seed_alone_gives_its_numbers_again(finished, tmp_path):
    alone = Notebook(tmp_path, seeds=(1,))
    run(dataclasses.replace(CONFIG, methods=(BASELINE,), robust=()), alone)
    frames = to_frame(alone.records), to_frame(finished.records)
    values = [f[(f["method"] == BASELINE) & f["step"].notna()].set_index(["metric", "step", "seed"]) for f in frames]
    together = values[1]["value"]
    np.testing.assert_allclose(values[0]["value"], together[values[0].index], rtol=1e-4)
    assert (together.xs(0, level="seed") != together.xs(1, level="seed")).any()


def test_a_missing_data_set_is_simulated_instead(tmp_path, monkeypatch):
    monkeypatch.setenv("RELIC_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("RELIC_CACHE", str(tmp_path / "cache"))
    context = Notebook(tmp_path, seeds=(0,), data_dir=tmp_path / "nowhere")
    run(dataclasses.replace(CONFIG, dataset="lastfm_cf", methods=("Popularity",), robust=()), context)
    assert {record.dataset for record in context.records} == {SIMULATED}
    assert "simulated intents instead" in "".join(context.lines)


def test_tables_and_figures_are_made_of_a_run(finished):
    frame = to_frame(finished.records)
    assert set(figures(frame)) >= {"curves_intents", "robustness"}
    tables = {title: table(frame) for title, table in TABLES.items()}
    assert "purity" in tables["Embeddings and weights"].columns


@pytest.fixture(scope="module")
def validated(tmp_path_factory):
    """A run whose methods stop by validation."""
    context = Notebook(tmp_path_factory.mktemp("validated"))
    run(dataclasses.replace(CONFIG, methods=("Popularity", BASELINE), robust=(), **STOPPING), context)
    return context


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
    config, context = dataclasses.replace(CONFIG, **STOPPING), Notebook(tmp_path, seeds=(0, 1, 2))
    parts = study.drawn(config, noisy(CONFIG), context.seeds, None).of_equal_shape()
    assert sorted(seed for part in parts for seed in part.seeds) == [0, 1, 2]
    assert all(len({draw.shape for draw in part.draws}) == 1 for part in parts)
    assert len(parts) > 1
    study.train(config, parts[0].of(parts[0].seeds[:1]), context.at(dataset=noisy(CONFIG), method="DCCF K=3"))
    assert {"auc of true edges", BEST_STEP} <= {record.metric for record in context.records}


def test_test_items_choose_nothing(validated, tmp_path, monkeypatch):
    def moved(seed, **size):
        found, truth = simulate(seed, **size)
        unseen = [np.setdiff1d(np.arange(size["items"]), row)[-3:] for row in rows_of(found)]
        indptr = np.arange(len(unseen) + 1, dtype=np.int32) * 3
        return found._replace(test_indptr=indptr, test_items=np.concatenate(unseen).astype(np.int32)), truth

    monkeypatch.setattr(study, "simulate", moved)
    context = Notebook(tmp_path)
    run(dataclasses.replace(CONFIG, methods=(BASELINE,), robust=(), **STOPPING), context)
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


@pytest.mark.parametrize("number", [n for n, judge in JUDGE.items() if not isinstance(judge, ShownByTest)])
def test_judges_do_not_tell_without_records(number, finished):
    verdict = JUDGE[number](to_frame(finished.records[:1]))
    assert (verdict.met, verdict.value) == (None, "")


def frame_of(*rows) -> pd.DataFrame:
    return to_frame(
        [
            Record("dccf", "small", dataset, method, metric, seed, value, coords)
            for dataset, method, metric, seed, value, coords in rows
        ]
    )


def rows(dataset, method, metric, values, **coords):
    """A row per seed."""
    return [(dataset, method, metric, seed, value, coords) for seed, value in enumerate(values)]


def near(value, count=5, spread=0.001):
    return [value + spread * (seed - (count - 1) / 2) for seed in range(count)]


@pytest.mark.parametrize(("ours", "met"), [(0.34, True), (0.28, False), (0.3005, None)])
def test_orders_follow_the_interval_of_five_paired_seeds(ours, met):
    theirs = rows(SIMULATED, "DCCF -Disen", "ndcg@20", [0.29, 0.31, 0.30, 0.30, 0.30])
    frame = frame_of(*rows(SIMULATED, "DCCF", "ndcg@20", near(ours)), *theirs)
    assert JUDGE["10a"](frame).met is met
    assert JUDGE["10a"](frame.loc[frame["seed"] < 4]).met is None
    lacks = JUDGE["10a"](frame.drop(index=[0]))
    assert (lacks.met, "no number of seed 0" in lacks.value) == (None, True)


def test_both_numbers_of_intents_must_beat_one():
    def frame(four, sixteen):
        values = {"DCCF K=1": near(0.2, spread=0.002), "DCCF K=4": near(four), "DCCF": near(sixteen)}
        return frame_of(*(row for name, each in values.items() for row in rows(SIMULATED, name, "ndcg@20", each)))

    assert JUDGE["10b"](frame(0.3, 0.3)).met is True
    assert JUDGE["10b"](frame(0.3, 0.1)).met is False
    assert JUDGE["10b"](frame(0.3, 0.2)).met is None


@pytest.mark.parametrize(("shift", "met"), [(0.008, True), (-0.012, False), (0.010, None)])
def test_the_peer_curve_must_be_met_at_both_epochs(shift, met):
    points = {420: (0.151, 0.104), 840: (0.172, 0.125)}
    found = [
        row
        for step, pair in points.items()
        for metric, value in zip(("recall@20", "ndcg@20"), pair, strict=True)
        for row in rows("lastfm_cf", PEER, metric, near(value + shift, 3, 0.0001), step=step)
    ]
    assert JUDGE["7"](frame_of(*found)).met is met
    assert JUDGE["7"](frame_of(*found[:-3])).met is None


def speeds(of_ours, of_theirs, seeds=6):
    """Curves of R@20 by step."""
    return frame_of(*(
        ("lastfm_cf", method, "recall@20", seed, value, {"step": step})
        for method, course in ((BASELINE, of_theirs), ("DCCF", of_ours))
        for step, value in course.items() for seed in range(seeds)
    ))  # fmt: skip


def test_speed_of_learning_compares_last_steps_below_with_first_steps_above_the_mark():
    theirs = {400: 0.1, 1200: 0.19, 1600: 0.21}
    quick, slow, never = {100: 0.19, 200: 0.2, 300: 0.18}, {200: 0.1, 400: 0.3}, {200: 0.1, 900: 0.19}
    frame = speeds(quick, theirs)
    assert first_steps(BASELINE).of(frame).to_list() == [1600] * 6
    assert first_steps(BASELINE, before=True).of(frame).to_list() == [1200] * 6
    verdict = JUDGE["8a"](frame)
    assert (verdict.met, verdict.interval) == (True, (6.0, 6.0))
    assert JUDGE["8a"](speeds(slow, theirs)).met is False
    assert JUDGE["8a"](speeds(never, theirs)).met is False
    assert JUDGE["8a"](speeds(quick, {400: 0.1, 1200: 0.1})).met is True
    assert JUDGE["8a"](speeds(quick, theirs, seeds=5)).met is None


@pytest.mark.parametrize(("stopped", "ours", "met"), [(1, 0.2, True), (0, 0.2, False), (1, 0.0, False), (1, 0.1, None)])
def test_the_converged_comparison_needs_runs_that_stopped_and_learned(stopped, ours, met):
    own = tuned("lastfm_cf")
    found = rows("lastfm_cf", "Popularity", VALIDATED, [0.1] * 5)
    for name in TUNED:
        found += rows(own, name, VALIDATED, near(ours)) + rows(own, name, STOPPED, [1, 1, 1, 1, stopped])
    assert JUDGE["8b"](frame_of(*found)).met is met
    assert JUDGE["8b"](frame_of(*found[:-5])).met is None


@pytest.mark.parametrize(("kept", "met"), [(0.08, True), (0.04, False), (0.05, None)])
def test_robustness_compares_the_shares_that_are_kept(kept, met):
    found = [
        row
        for method, clean, corrupted in ((BASELINE, 0.2, 0.1), ("DCCF", 0.1, kept))
        for dataset, value in ((SIMULATED, clean), (noisy(SMALL), corrupted))
        for row in rows(dataset, method, "ndcg@20", near(value, spread=0.001 * (dataset != SIMULATED)))
    ]
    assert JUDGE["11a"](frame_of(*found)).met is met


@pytest.mark.parametrize(("value", "met"), [(0.9, True), (0.3, False), (0.62, None)])
def test_the_weights_of_false_edges_are_judged_by_their_interval(value, met):
    found = rows(noisy(SMALL), "DCCF", "auc of true edges", near(value, spread=0.03))
    assert JUDGE["11b"](frame_of(*found)).met is met


@pytest.mark.parametrize(("low", "high", "met"), [(0.01, 0.03, True), (-0.03, -0.01, False), (-0.01, 0.03, None)])
def test_users_decide_between_methods(low, high, met):
    def frame(seeds):
        finals = [
            row
            for name in ("DCCF", "SGL-ED")
            for row in rows("gowalla", name, VALIDATED, near(0.1, seeds, len(name) / 1e3))
        ]
        parts = zip(("mean", "low", "high"), ((low + high) / 2, low, high), strict=True)
        over = [("gowalla", "DCCF", f"{GAINS} SGL-ED", 0, value, {"part": part}) for part, value in parts]
        return frame_of(*finals, *over)

    assert JUDGE["9b"](frame(3)).met is met
    assert JUDGE["9b"](frame(2)).met is None


def test_settings_are_chosen_by_held_out_items(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, **TUNING, methods=("Popularity",), robust=(), tuned=("DCCF K=3",))
    monkeypatch.setattr(study, "SEARCHED", {"DCCF": {"ssl": (50.0, 0.02)}})
    context = Notebook(tmp_path)
    run(config, context)
    frame = to_frame(context.records)
    assert set(finals(frame, tuned(SIMULATED), "DCCF K=3", "chosen ssl")) <= {config.ssl, 50.0, 0.02}
    assert {STOPPED, BEST_STEP, VALIDATED} <= {*frame.loc[frame["dataset"] == tuned(SIMULATED), "metric"]}
    best = {}

    def instead(self):
        best[self.config.ssl] = {50.0: 0.3, 0.02: 0.2}.get(self.config.ssl, 0.1)
        return type("State", (), {"best": np.array([best[self.config.ssl]])})

    monkeypatch.setattr(study.Training, "until_validated", instead)
    sample = study.drawn(config, SIMULATED, (0,), None)
    found, chosen = study.searched(config, sample, context.at(dataset=SIMULATED, method="DCCF K=3"))
    assert (found.ssl, chosen, len(best)) == (50.0, {"chosen ssl": 50.0}, 3)


def test_presets_are_of_one_type_and_name_known_methods():
    assert set(SYSTEM.presets) >= {"smoke", "small", "paper"}
    assert {type(config) for config in SYSTEM.presets.values()} == {SYSTEM.config_type}
