import dataclasses
import functools
import inspect
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from causal import image_cate as ic
from core.datasets import ihdp, uganda
from experiments.image_cate import ON_IMAGES, REAL, SYSTEM, claims, plan
from experiments.image_cate.config import PRESETS
from experiments.image_cate.study.simulated import note_interval
from experiments.image_cate.study.worlds import Trainer, cluster_model
from experiments.lab import registry, runs
from experiments.lab.plots import drawn
from experiments.lab.runner import execute
from experiments.lab.system import ShownByTest
from tests.experiments.image_cate import TINY
from tests.experiments.noise import noise as little

JUDGES = {claim.number: claim.evidence for claim in SYSTEM.claims if not isinstance(claim.evidence, ShownByTest)}


def executed(tmp_path_factory, *assignments):
    workdir = tmp_path_factory.mktemp("runs")
    found = registry.load("image_cate")
    return runs.read(execute(found, preset="smoke", seeds=(0, 1), assignments=assignments, workdir=workdir))


@pytest.mark.slow
def test_every_part_without_data_is_recorded_and_drawn(tmp_path_factory):
    parts = [name for name in (*ON_IMAGES, "ablations") if name != "cost"]
    made = executed(tmp_path_factory, *TINY, f"parts={','.join(parts)}")
    frame = made.frame
    assert {"effect clusters", "TARNet", "T-learner", "R-learner", "effect clusters, relaxed"} < set(frame["method"])
    assert {name for name, _ in drawn(SYSTEM.figures, frame)} == {"effects", "salience", "pehe"}
    there = [title.split(":")[0].split(" by")[0] for title, table in SYSTEM.tables.items() if len(table(frame))]
    assert there == ["Held-out log likelihood", *["90 % intervals for the clusters' effects"] * 2]
    degenerate = frame["dataset"].isin(("S2", "S1 coverage"))  # 12 images do not identify every refit
    assert np.isfinite(frame.loc[~degenerate, "value"]).all()


@pytest.mark.slow
@pytest.mark.skipif(uganda.locate() is None or ihdp.locate() is None, reason="the data are not in the data directory")
def test_the_real_experiments_are_recorded_and_drawn(tmp_path_factory):
    frame = executed(tmp_path_factory, *TINY, "parts=Uganda,transport,IHDP").frame
    ridge = frame[(frame["method"] == "ridge on components") & (frame["metric"] == "AUTOC")]["value"]
    assert {name for name, _ in drawn(SYSTEM.figures, frame)} == {"toc", "quintiles", "transport"}
    assert 0.0 < float(ridge.iloc[0]) < 0.5
    assert set(frame[frame["dataset"] == "IHDP"]["method"]) == {
        "T-learner", "S-learner", "TARNet", "X-learner", "DR-learner", "R-learner",
    }  # fmt: skip


class Watched:
    """What a plan looks at."""

    seeds = (0, 1)

    def __init__(self, data_dir):
        self.data_dir, self.said = data_dir, []

    def say(self, message):
        self.said.append(message)


def test_parts_whose_data_are_missing_are_left_out(tmp_path):
    watched = Watched(tmp_path)
    assert not list(plan(dataclasses.replace(PRESETS["small"], parts=tuple(REAL)), watched))
    assert watched.said == [f"image_cate: the data of {', '.join(REAL)} are not in the data directory; left out"]


def test_cells_are_stages_of_all_seeds_and_variants(tmp_path):
    config = dataclasses.replace(PRESETS["small"], parts=("S1", "ablations"))
    cells = [cell for part in plan(config, Watched(tmp_path)) for cell in part.cells]
    assert cells[0] == {"stage": "S1", "seeds": "0,1"}
    assert {"method": "effect clusters, relaxed", "seeds": "0,1"} in cells


def test_the_study_of_intervals_has_the_librarys_own_settings():
    """What is judged is what users get: model, steps, rates, batches and members."""
    config = PRESETS["small"]
    ours, theirs = Trainer(config, None, config.steps).estimator(cluster_model(config)), ic.EffectClusters()  # pyright: ignore
    assert dataclasses.replace(ours, model=theirs.model) == theirs
    for field in ("first_rho", "likelihood", "draws", "temperature", "spread", "common_noise"):
        assert getattr(ours.model, field) == getattr(theirs.model, field)
    trunks = [model.network.trunk() for model in (ours.model, theirs.model)]
    assert trunks[0] == trunks[1]
    assert ours.model.network.estimator == theirs.model.network.estimator
    members = inspect.signature(ic.EffectClusters.ensemble).parameters["members"].default
    assert config.members == members


@pytest.mark.parametrize(("low", "high", "covered"), [(1.0, 3.0, 1.0), (2.1, 3.0, 0.0), (np.nan, np.nan, np.nan)])
def test_an_interval_that_there_is_not_holds_nothing_and_misses_nothing(low, high, covered):
    noted = []
    context = SimpleNamespace(at=lambda **place: SimpleNamespace(record_all=noted.append))
    made = SimpleNamespace(sd=[1.0], seeds=[0], experiments=[SimpleNamespace(mu=np.array([2.0]))])
    note_interval(context, made, 0, "sandwich", (np.array([low]), np.array([high])))  # pyright: ignore
    np.testing.assert_equal(noted[0]["covered"], covered)


def rows(dataset, method, metric, numbers, **place) -> list[dict]:
    at = {"dataset": dataset, "method": method, "metric": metric, **place}
    noise = [0.0 if value in (0, 1) else little(method, i) for i, value in enumerate(numbers)]
    return [{"seed": i, "value": value + noise[i], **at} for i, value in enumerate(numbers)]


def near(mean, seeds=5):
    return [mean + 0.001 * i for i in range(seeds)]


def s1(metric, mean, method=claims.OURS, seeds=5) -> pd.DataFrame:
    return pd.DataFrame(rows("S1", method, metric, near(mean, seeds)))


def against(metric, ours, theirs, method) -> pd.DataFrame:
    return pd.concat([s1(metric, ours), s1(metric, theirs, method)])


def s2(autoc, spread=0.1, sets=20) -> pd.DataFrame:
    return pd.DataFrame(
        rows("S2", claims.OURS, "AUTOC", [autoc] * sets)
        + rows("S2", claims.OURS, "AUTOC SE", [0.05] * sets)
        + rows("S2", claims.OURS, "spread of effects", near(spread, sets))
    )


def coverage(method, hits, sets=40) -> pd.DataFrame:
    held = [float(i < hits) for i in range(sets)]
    return pd.DataFrame([row for k in (0, 1) for row in rows("S1 coverage", method, "covered", held, cluster=k)])


def trial(ate=0.75, autoc=0.3, seeds=3, method=claims.OURS) -> pd.DataFrame:
    name = claims.TRIAL
    found = rows(name, "difference in means", "ATE", [0.7415]) + rows(name, "difference in means", "ATE SE", [0.0755])
    for metric, value in (
        ("ATE", ate),
        ("AUTOC", autoc),
        ("AUTOC SE", 0.07),
        ("AUTOC p", 0.001 if autoc > 0.2 else 0.3),
    ):
        found += rows(name, method, metric, [value] * seeds)
    return pd.DataFrame(found)


def cost(method, *timed) -> pd.DataFrame:
    return pd.DataFrame([row for value, place in timed for row in rows("cost", method, "seconds", [value], **place)])


def step(draws8=7.0, images128=4.0) -> pd.DataFrame:
    return cost("a step", (1.0, {"draws": 1, "images": 32}), (draws8, {"draws": 8, "images": 32}),
                (images128, {"draws": 1, "images": 128}))  # fmt: skip


def rate(draws=2.0, units=4.2) -> pd.DataFrame:
    return cost("RATE", (1.0, {"draws": 200, "n": 2_000}), (draws, {"draws": 400, "n": 2_000}),
                (units, {"draws": 200, "n": 8_000}))  # fmt: skip


def memory(large) -> pd.DataFrame:
    return cost("transport", (100.0, {"n": 4_096}), (large, {"n": 32_768})).assign(
        metric="bytes beside input and output"
    )


AVERAGED, EACH = (f"salience correlation of {name}" for name in ("averaged maps", "images"))
CASES = {
    "9a": tuple(against("PEHE", v, 0.8, "difference in means") for v in (0.4, 0.5)),
    "9b": tuple(s1("corr(p)", v) for v in (0.9, 0.8)),
    "9c": tuple(s1("largest |mu error|", v) for v in (0.1, 0.3)),
    "9d": tuple(s1("ATE less difference in means, SE", v) for v in (1.0, -2.5)),
    "10": tuple(against("PEHE", v, 0.46, "TARNet") for v in (0.37, 0.5)),
    "11a": (s2(0.05), s2(0.2)),
    "11b": (s2(0.0), s2(0.0, spread=0.3)),
    "12a": (s1(AVERAGED, 0.4), s1(AVERAGED, 0.2)),
    "12b": (s1(EACH, 0.4), s1(EACH, 0.2)),
    "13a": tuple(coverage("mean-field", v) for v in (36, 10)),
    "13b": tuple(coverage("sandwich, other images", v) for v in (36, 40)),
    "13c": tuple(coverage("ensemble, all images", v) for v in (36, 30)),
    "14a": (trial(), trial(ate=0.9)),
    "14b": (trial(), trial(autoc=0.1)),
    "14c": (trial(method=claims.COMMON), trial(ate=0.9, method=claims.COMMON)),
    "14d": (trial(method=claims.COMMON), trial(autoc=0.1, method=claims.COMMON)),
    "15a": (step(), step(draws8=9.0)),
    "15b": (step(), step(images128=5.0)),
    "15c": (memory(100.0), memory(800.0)),
    "15d": (rate(), rate(units=9.0)),
}


@pytest.mark.parametrize("number", CASES)
def test_a_claim_is_met_or_not_by_its_numbers(number):
    good, bad = CASES[number]
    assert JUDGES[number](good).met is True
    assert JUDGES[number](bad).met is False
    assert JUDGES[number](good).value


@pytest.mark.parametrize("number", [n for n in CASES if not n.startswith("15")])
def test_too_few_repetitions_decide_nothing(number):
    good, _ = CASES[number]
    assert JUDGES[number](good[good["seed"] < 2]).met is None


@pytest.mark.parametrize("number", CASES)
def test_without_records_nothing_is_judged(number):
    for columns in ([], ["dataset", "method", "part", "cluster", "draws", "images", "n"]):
        frame = pd.DataFrame({"metric": [], "seed": [], "value": [], **{c: [] for c in columns}})
        assert JUDGES[number](frame).met is None


def test_every_judged_claim_has_a_case():
    assert set(JUDGES) == set(CASES)


def test_an_interval_that_failed_leaves_coverage_open():
    made = coverage("sandwich, other images", 36).reset_index(drop=True)
    made.loc[0, "value"] = np.nan
    assert JUDGES["13b"](made).met is None


def test_a_missing_seed_leaves_the_comparison_open():
    made = against("PEHE", 0.37, 0.5, "TARNet")
    assert JUDGES["10"](made.iloc[:-1]).met is None


@functools.cache
def bench():
    from experiments.bench import cate

    return cate


def test_the_benchs_simulation_has_the_size_of_ihdp():
    problem = bench().simulated(0)
    assert problem.x.shape == (672, 25)
    assert problem.error(problem.effect) == 0


@pytest.mark.peers
@pytest.mark.slow
def test_the_bench_runs(monkeypatch):
    pytest.importorskip("catenets")
    pytest.importorskip("econml")
    monkeypatch.setattr(bench(), "EPOCHS", 2)
    monkeypatch.setattr(bench(), "REPLICATIONS", 1)
    assert [result.peer.split()[0] for result in bench().run()] == ["CATENets", "CATENets", "EconML"]
