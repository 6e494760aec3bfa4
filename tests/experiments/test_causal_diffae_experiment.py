import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest

from causal import counterfactual_metrics as cm
from causal import image_scms as scm
from core.batches import epoch_sampler
from core.datasets.morphomnist import Strokes
from core.learner import with_ema, with_sampler
from experiments.causal_diffae import PRESETS, SYSTEM, claims
from experiments.causal_diffae.study import digits, scores, worlds
from experiments.causal_diffae.study import strokes as st
from experiments.lab import registry, runs
from experiments.lab.runner import execute
from tests.experiments.noise import noise as little

SMOKE = PRESETS["smoke"]
TINY = ("train=64", "test=6", "sampling=3", "width=8", "block=2", "steps=4", "batch=8", "vae_steps=4",
        "predictor_steps=4", "world_train=16", "world_steps=4", "world_width=8")  # fmt: skip


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
    assert set(SYSTEM.figures(frame)) == {
        "strokes", "traversals", "traversals_measured", "guidance", "trade_off"
    }  # fmt: skip
    assert len(SYSTEM.tables(frame)) == 3
    before = (folder / runs.RECORDS).stat().st_size
    execute(found, preset="smoke", seeds=(0, 1), assignments=TINY, workdir=tmp_path)
    assert (folder / runs.RECORDS).stat().st_size == before


class Notes:
    """A context that keeps what is recorded."""

    seeds = (0, 1)

    def __init__(self, workdir):
        self.workdir, self.rows = workdir, []

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
    config = dataclasses.replace(SMOKE, test=48, predictor_steps=4, train=64)
    rows, asked, notes = st.training_rows(config), st.question(config), Notes(tmp_path)
    by = scores.judge(config, notes, rows, asked)
    scores.nothing(config, notes, "nothing", rows, asked, by)
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


def test_questions_have_their_own_answers():
    asked = st.question(SMOKE)
    np.testing.assert_array_equal(asked.truth[0], asked.x)
    np.testing.assert_array_equal(asked.answers[2][:, 0], asked.labels[:, 0])  # do(i) leaves t
    assert (np.asarray(asked.answers[1] != asked.labels).all(0)).all()  # do(t) moves both


@pytest.mark.parametrize("make", [worlds.pendulum, worlds.circuit])
def test_worlds_answer_interventions_by_their_own_mechanisms(make):
    there = make(SMOKE)
    factual = np.asarray(there.asked["null"][1])
    graph = np.array(there.graph, bool)
    reach = np.linalg.matrix_power(np.eye(4) + graph, 4) > 0
    for is_set, labels in there.asked.values():
        moved = reach[np.asarray(is_set)].any(0) if np.asarray(is_set).any() else np.zeros(4, bool)
        np.testing.assert_allclose(np.asarray(labels)[:, ~moved], factual[:, ~moved], atol=1e-6)
        assert (np.abs(np.asarray(labels) - factual)[:, np.asarray(is_set)].max(0, initial=1.0) > 0.1).all()
    assert there.rows["x"].shape[1:3] == (SMOKE.world_side, SMOKE.world_side)


def test_patches_are_undone():
    images = np.random.default_rng(0).uniform(size=(2, 28, 28, 1)).astype(np.float32)
    assert digits.blocks_of(images).shape == (2, 14, 14, 4)
    np.testing.assert_allclose(digits.images_of(digits.blocks_of(images)), images, atol=1e-6)


def test_real_digits_are_scored_by_measurement():
    t, i = np.array([2.0, 3.0, 4.0], np.float32), np.array([100.0, 150.0, 200.0], np.float32)
    x = np.arange(28) - 13.5
    bars = [(np.abs(x) <= w / 2)[:, None] * np.full(28, level / 255) for w, level in zip((2, 4, 6), i, strict=True)]
    strokes = Strokes(np.stack(bars)[..., None], t, i, np.array([1, 7, 1]))
    asked = digits.question(SMOKE, strokes, 0)
    order = [int(np.flatnonzero(i == level)[0]) for level in asked.strokes.intensity]
    assert sorted(order) == [0, 1, 2]
    follows = scm.counterfactual_intensity(asked.strokes.thickness, asked.strokes.intensity,
                                           asked.labels[1, :, 0] * 0.63 + 2.5)  # fmt: skip
    np.testing.assert_allclose(asked.labels[1, :, 1], (np.asarray(follows) - 158) / 48.4, atol=1e-4)
    found = digits.scores(asked, np.stack([asked.strokes.images] * 3), lambda x: np.zeros(len(x)))
    assert found["digits kept, do(i)"] == 1.0
    assert found["reconstruction MSE"] == 0.0
    assert found["MAE(i) measured, null"] < 0.02


# --- judges -----------------------------------------------------------------------------------------------------------


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


CASES = [
    (claims.judge_order, lambda v: [*rows("CausalDiffAE", "cf-MSE do(t)", v), *rows("do nothing", "cf-MSE do(t)", 0.03),
                                    *rows("DiffAE", "cf-MSE do(t)", 0.08)], 0.02, 0.04),
    (claims.judge_abduction, lambda v: [*rows("CausalDiffAE", "cf-MSE do(t)", 0.02),
                                        *rows("CausalDiffAE", "cf-MSE do(t), random x_T", v)], 0.05, 0.03),
    (claims.judge_alignment, lambda v: rows("CausalDiffAE", "label correlation", v), 0.98, 0.9),
    (claims.judge_trade_off, lambda v: [*rows("CausalDiffAE", "reconstruction MSE", v),
                                        *rows("CausalDiffAE, small gamma", "reconstruction MSE", 0.001),
                                        *rows("CausalDiffAE", "label correlation", 0.99),
                                        *rows("CausalDiffAE, small gamma", "label correlation", 0.5)], 0.005, 0.0005),
    (claims.judge_follows, lambda v: rows("CausalDiffAE", "r(i), do(t)", v), 0.85, 0.7),
    (claims.judge_stays, lambda v: rows("CausalDiffAE", "thickness kept under do(i), px", v), 0.3, 0.6),
    (claims.judge_labels, lambda v: [*rows("labels", "r(i), do(t)", v),
                                     *rows("labels, propagated", "r(i), do(t)", 0.9)], 0.4, 0.95),
    (claims.judge_few_labels, lambda v: [
        row for metric in ("MAE(t) measured, do(t)", "MAE(i) measured, do(t)")
        for row in [*rows("CausalDiffAE", metric, 0.2), *rows("CausalDiffAE, 50% labels", metric, v),
                    *rows("CausalDiffAE, 20% labels", metric, 0.4)]], 0.25, 0.35),
    (claims.judge_guidance, lambda v: [
        row for weight, effect in ((0.0, 0.0), (0.5, 0.4), (1.0, 0.8), (1.5, v))
        for row in rows("CausalDiffAE", "effect of do(t)", effect, weight=weight)], 1.0, 0.7),
    (claims.judge_inversions, lambda v: [
        row for mode in ("explicit", "fixed_point", "heun")
        for row in rows("CausalDiffAE", "inversion MSE", v, mode=mode)], 0.01, np.inf),
    (claims.judge_real_intensity, lambda v: [*rows("CausalDiffAE", "r(i), do(i)", v, "MorphoMNIST", 1),
                                             *rows("CausalDiffAE", "digits, do(i)", 64, "MorphoMNIST", 1)], 0.95, 0.8),
    (lambda frame: claims.judge_real_digits(frame, "do(t)", 0.75),
     lambda v: [*rows("CausalDiffAE", "digits kept, do(t)", v, "MorphoMNIST", 1),
                *rows("CausalDiffAE", "digits, do(i)", 64, "MorphoMNIST", 1),
                *rows("classifier", "accuracy", 0.95, "MorphoMNIST", 1)], 0.9, 0.5),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize(("judge", "made", "good", "bad"), CASES)
def test_judges_decide_both_ways_and_not_without_records(judge, made, good, bad):
    assert judge(pd.DataFrame(made(good))).met is True
    assert judge(pd.DataFrame(made(bad))).met is False
    assert judge(pd.DataFrame(made(good)).iloc[:1]).met is None
    assert judge(pd.DataFrame({"metric": [], "seed": [], "value": []})).met is None


def test_weights_of_guidance_do_not_count_as_plain_decoding():
    frame = pd.DataFrame([*rows("CausalDiffAE", "cf-MSE do(t)", 0.02),
                          *rows("CausalDiffAE", "cf-MSE do(t)", 0.5, weight=1.5)])  # fmt: skip
    assert len(claims.strokes(frame, "CausalDiffAE", "cf-MSE do(t)")) == 3


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
