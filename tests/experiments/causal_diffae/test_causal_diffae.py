import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest

from causal import counterfactual_answers as answers
from causal import counterfactual_metrics as cm
from causal import counterfactual_worlds as cw
from causal import image_scms as scm
from core.batches import epoch_sampler
from core.datasets.morphomnist import Strokes
from core.learner import with_ema, with_sampler
from experiments.causal_diffae import PRESETS, SYSTEM, claims
from experiments.causal_diffae.study import digits, scores
from experiments.causal_diffae.study import strokes as st
from experiments.lab import Place, registry, runs
from experiments.lab.runner import execute
from tests.experiments.causal_diffae import TINY
from tests.experiments.noise import noise as little

SMOKE = PRESETS["smoke"]


@pytest.mark.slow
def test_every_part_is_recorded_and_drawn_and_a_second_run_has_nothing_to_do(tmp_path):
    found = registry.load("causal_diffae")
    folder = execute(found, preset="smoke", seeds=(0, 1), assignments=TINY, workdir=tmp_path)
    run = runs.read(folder)
    frame = run.frame
    assert set(frame["dataset"]) == {"StrokeToy", "pendulum", "circuit"}
    assert {"CausalDiffAE", "DiffAE", "DiffAE aligned", "labels", "Diff-SCM", "CausalVAE", "SCM-VAE"} <= set(
        frame["method"]
    )
    drawn = {stem for stem, draw in SYSTEM.figures.items() if draw(frame) is not None}
    assert drawn == {"strokes", "traversals", "traversals_measured", "guidance", "trade_off"}
    assert [len(table(frame)) > 0 for table in SYSTEM.tables.values()] == [True, True, True, False, False]
    assert all(judge(frame).met is None for judge in JUDGED.values())
    before = (folder / runs.RECORDS).stat().st_size
    execute(found, preset="smoke", seeds=(0, 1), assignments=TINY, workdir=tmp_path)
    assert (folder / runs.RECORDS).stat().st_size == before


class Notes:
    """A context that keeps what is recorded."""

    seeds = (0, 1)

    def __init__(self, workdir):
        self.workdir, self.rows = workdir, []

    def at(self, **place):
        return Place(self, place)

    def record(self, **row):
        self.rows.append(row)

    def progress(self, description):
        return lambda done, total: None

    def value(self, method, metric):
        (found,) = {
            row["value"] for row in self.rows if (row["method"], row["metric"], row["seed"]) == (method, metric, 0)
        }
        return found


@pytest.mark.slow
def test_the_truth_is_perfect_and_doing_nothing_is_not(tmp_path):
    config, notes = dataclasses.replace(SMOKE, test=48, predictor_steps=4, train=64), Notes(tmp_path)
    scores.group(config, notes, name="nothing", prepared=lambda: scores.ready(config, notes))
    assert notes.value("truth", "cf-MSE do(t)") == 0
    assert notes.value("truth", "Frechet, do(t)") == pytest.approx(0, abs=1e-8)
    assert notes.value("truth", "r(i), do(t)") > 0.9
    assert notes.value("truth", "effect, do(i)") == pytest.approx(1.0, abs=0.15)
    assert notes.value("do nothing", "reconstruction MSE") == 0
    assert notes.value("do nothing", "cf-MSE do(t)") > 0.01
    assert notes.value("do nothing", "thickness kept under do(i), px") == 0
    assert notes.value("do nothing", "effect, do(t)") == 0
    pixels = [row for row in notes.rows if row["metric"] == "picture"]
    assert not pixels


def test_real_digits_are_scored_by_measurement():
    t, i = np.array([2.0, 3.0, 4.0], np.float32), np.array([100.0, 150.0, 200.0], np.float32)
    x = np.arange(28) - 13.5
    bars = [(np.abs(x) <= w / 2)[:, None] * np.full(28, level / 255) for w, level in zip((2, 4, 6), i, strict=True)]
    strokes = Strokes(np.stack(bars)[..., None], t, i, np.array([1, 7, 1]))
    asked = cw.digit_question(3, strokes, 0)
    order = [int(np.flatnonzero(i == level)[0]) for level in asked.strokes.intensity]
    assert sorted(order) == [0, 1, 2]
    follows = scm.counterfactual_intensity(asked.strokes.thickness, asked.strokes.intensity,
                                           asked.labels[1, :, 0] * 0.63 + 2.5)  # fmt: skip
    np.testing.assert_allclose(asked.labels[1, :, 1], (np.asarray(follows) - 158) / 48.4, atol=1e-4)
    found = answers.of_digits(asked, np.stack([asked.strokes.images] * 3), lambda x: np.zeros(len(x)))
    assert found["digits kept, do(i)"] == 1.0
    assert found["reconstruction MSE"] == 0.0
    assert found["MAE(i) measured, null"] < 0.02


JUDGED = {claim.number: claim.evidence for claim in SYSTEM.claims if hasattr(claim.evidence, "words")}


def rows(method, metric, value, dataset="StrokeToy", seeds=3, **more):
    return [
        {
            "dataset": dataset,
            "method": method,
            "metric": metric,
            "seed": s,
            "value": value + 1e-3 * s * abs(value) + abs(value) * little(method, metric, s),
            **more,
        }
        for s in range(seeds)
    ]


def real(metric, value, count=64, seeds=1):
    return [*rows("CausalDiffAE", metric, value, "MorphoMNIST", seeds),
            *({**row, "value": count} for row in rows("CausalDiffAE", "digits, do(i)", count, "MorphoMNIST", seeds)),
            *rows("classifier", "accuracy", 0.95, "MorphoMNIST", seeds)]  # fmt: skip


def fewer_labels(v):
    return [row for metric in ("MAE(t) measured, do(t)", "MAE(i) measured, do(t)")
            for row in [*rows("CausalDiffAE", metric, 0.2), *rows("CausalDiffAE, 50% labels", metric, v),
                        *rows("CausalDiffAE, 20% labels", metric, 0.4)]]  # fmt: skip


def trade_off(kept, aligned):
    return [*rows("CausalDiffAE", "reconstruction MSE", kept),
            *rows("CausalDiffAE, small gamma", "reconstruction MSE", 0.001),
            *rows("CausalDiffAE", "label correlation", aligned),
            *rows("CausalDiffAE, small gamma", "label correlation", 0.5)]  # fmt: skip


def told(alone, propagated):
    return [*rows("labels", "r(i), do(t)", alone), *rows("labels, propagated", "r(i), do(t)", propagated)]


def effects(*sizes):
    return [row for weight, effect in zip((0.0, 0.5, 1.0, 1.5), sizes, strict=True)
            for row in rows("CausalDiffAE", "effect of do(t)", effect, weight=weight)]  # fmt: skip


CASES = [
    ("6a", lambda v: [*rows("CausalDiffAE", "cf-MSE do(t)", v), *rows("do nothing", "cf-MSE do(t)", 0.03),
                      *rows("DiffAE", "cf-MSE do(t)", 0.08)], 0.02, 0.04),
    ("6b", lambda v: [*rows("CausalDiffAE", "cf-MSE do(t)", 0.02),
                      *rows("CausalDiffAE", "cf-MSE do(t), random x_T", v)], 0.05, 0.03),
    ("6c", lambda v: rows("CausalDiffAE", "label correlation", v), 0.98, 0.9),
    ("6d", lambda v: trade_off(v, 0.99), 0.005, 0.0005),
    ("6d", lambda v: trade_off(0.005, v), 0.99, 0.4),
    ("7a", lambda v: rows("CausalDiffAE", "r(i), do(t)", v), 0.85, 0.7),
    ("7b", lambda v: rows("CausalDiffAE", "thickness kept under do(i), px", v), 0.3, 0.6),
    ("7c", lambda v: told(v, 0.9), 0.4, 0.95),
    ("7c", lambda v: told(0.4, v), 0.9, 0.7),
    ("8a", fewer_labels, 0.25, 0.35),
    ("8b", lambda v: effects(0.0, 0.4, 0.8, v), 1.0, 0.7),
    ("8b", lambda v: effects(0.0, v, 0.8, 1.0), 0.4, 0.9),
    ("9a", lambda v: real("r(i), do(i)", v), 0.97, 0.8),
    ("9b", lambda v: real("digits kept, do(i)", v), 0.97, 0.5),
    ("9c", lambda v: real("digits kept, do(t)", v), 0.9, 0.5),
]  # fmt: skip


@pytest.mark.parametrize(("number", "made", "good", "bad"), CASES)
def test_claims_are_judged_both_ways_and_not_without_records(number, made, good, bad):
    assert JUDGED[number](pd.DataFrame(made(good))).met is True
    assert JUDGED[number](pd.DataFrame(made(bad))).met is False
    missing = JUDGED[number](pd.DataFrame(made(good)).iloc[1:])
    assert missing.met is None
    assert JUDGED[number](pd.DataFrame({"metric": [], "seed": [], "value": []})).met is None


def test_inversions_are_reported_and_one_that_failed_leaves_the_report_open():
    def made(v):
        return pd.DataFrame([row for mode, value in (("explicit", 0.01), ("fixed_point", 0.02), ("heun", v))
                             for row in rows("CausalDiffAE", "inversion MSE", value, mode=mode)])  # fmt: skip

    assert JUDGED["3c"](made(0.01)).met is True
    assert JUDGED["3c"](made(np.nan)).met is None


def test_digits_that_several_seeds_ask_of_count_once():
    one, many = (JUDGED["9b"](pd.DataFrame(real("digits kept, do(i)", 0.9, 100, seeds))) for seeds in (1, 8))
    assert one.met is many.met is None
    assert "(100)" in one.value
    assert "(100)" in many.value
    assert JUDGED["9a"](pd.DataFrame(real("r(i), do(i)", 0.92, 100, 8))).met is None


def test_weights_of_guidance_do_not_count_as_plain_decoding():
    frame = pd.DataFrame([*rows("CausalDiffAE", "cf-MSE do(t)", 0.02),
                          *rows("CausalDiffAE", "cf-MSE do(t)", 0.5, weight=1.5)])  # fmt: skip
    assert len(claims.strokes("cf-MSE do(t)", method="CausalDiffAE").of(frame)) == 3


@pytest.mark.parametrize("of_digits", [True, False])
def test_a_killed_training_goes_on_and_ends_as_an_uninterrupted_one_does(of_digits, tmp_path, monkeypatch):
    monkeypatch.setattr("core.fit.SAVE_SECONDS", 0.0)
    config = dataclasses.replace(SMOKE, batch=4, predictor_steps=250)
    data = {"x": np.linspace(-1, 1, 8 * 4).reshape(8, 2, 2, 1), "labels": np.linspace(-1, 1, 16).reshape(8, 2)}
    learner = cm.predictor_learner(cm.Predictor(2, (4,)), st.adam(config, 250))

    def train(context):
        if of_digits:
            drawing = with_sampler(with_ema(learner, 0.99), epoch_sampler(4))
            return digits.trained(context, "classifier", drawing, data, 0, 250)
        return st.train_plain(config, context, "predictor", learner, data, 250)

    def killed(description):
        def tell(done, total):
            if done > 100:
                raise InterruptedError

        return tell

    expected, context = train(Notes(tmp_path / "uninterrupted")), Notes(tmp_path / "killed")
    monkeypatch.setattr(context, "progress", killed)
    with pytest.raises(InterruptedError):
        train(context)
    steps = []
    monkeypatch.setattr(context, "progress", lambda description: lambda done, total: steps.append(done))
    jax.tree.map(np.testing.assert_array_equal, train(context), expected)
    assert steps == [200, 250], "it began anew"
