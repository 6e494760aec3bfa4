import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import concept_space as experiment
from experiments.concept_space import SYSTEM, claims
from experiments.lab import registry, runs
from experiments.lab.runner import execute

TINY = ("side=4", "channels=(8,)", "images=16", "steps=4", "checkpoints=2", "generations=2", "sampling_steps=3",
        "sweep=0.8", "alphas=0.5", "vector_steps=6", "vector_checkpoints=6", "vector_width=8",
        "vector_generations=2")  # fmt: skip


def tiny(workdir, *more):
    return execute(
        registry.load("concept_space"), preset="smoke", seeds=(0,), assignments=(*TINY, *more), workdir=workdir
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Discs of two concepts and the first group of vectors; every other group is compiled apart."""
    with pytest.MonkeyPatch.context() as patch:
        groups = experiment.settings_of
        patch.setattr(experiment, "settings_of", lambda config: {"diffusion": groups(config)["diffusion"]})
        return runs.read(tiny(tmp_path_factory.mktemp("runs")))


@pytest.mark.slow
def test_every_part_is_recorded_and_drawn(run):
    frame = run.frame
    assert set(frame["dataset"]) == {"discs", "vectors"}
    assert set(frame["method"]) == {"naive", "over-prompting", "latent", "patched", "world"}
    assert set(frame["variant"]) == {"plain", "underspecified", "unconditional", "permuted"}
    assert set(SYSTEM.figures(frame)) == {"trajectories", "speed", "elicitation"}
    assert len(SYSTEM.tables(frame)) == 2


@pytest.mark.slow
def test_every_group_and_three_concepts_are_recorded_and_drawn(tmp_path):
    frame = runs.read(tiny(tmp_path, "shape=triangle", "cubes=1")).frame
    assert set(frame["dataset"]) == {"triangles", "vectors"}
    assert {f"class {i:03b}" for i in range(8)} < set(frame["method"])
    assert {"guided", "deterministic"} < set(frame["variant"])
    assert set(SYSTEM.figures(frame)) == {"trajectories", "speed", "cube"}
    assert len(SYSTEM.tables(frame)) == 3


@pytest.mark.slow
def test_one_seed_judges_nothing(run):
    verdicts = [
        judge(run.frame)
        for judge in (
            claims.judge_learned, claims.judge_speed, claims.judge_turn, claims.judge_elicitation,
            claims.judge_protocols_agree, claims.judge_underspecified, claims.judge_delayed, claims.judge_controls,
        )
    ]  # fmt: skip
    assert {verdict.met for verdict in verdicts} == {None}


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do(run, monkeypatch):
    monkeypatch.setattr(experiment, "vectors", None)
    monkeypatch.setattr(experiment, "images", None)
    groups = experiment.settings_of
    monkeypatch.setattr(experiment, "settings_of", lambda config: {"diffusion": groups(config)["diffusion"]})
    before = (run.folder / runs.RECORDS).stat().st_size
    tiny(run.folder.parents[1])
    assert (run.folder / runs.RECORDS).stat().st_size == before


def rows(seeds=5, **columns) -> list[dict]:
    """The same row for every seed; a callable value gets the seed."""
    place = {"dataset": "vectors", "variant": "plain", "method": "naive", "sep_colour": 0.2, "sep_size": 0.4}
    return [
        {**place, "seed": seed, **{k: v(seed) if callable(v) else v for k, v in columns.items()}}
        for seed in range(seeds)
    ]


@pytest.mark.parametrize("slower", [True, False])
def test_speed_is_judged_by_rank_over_separations(slower):
    found = []
    for concept, other in (("colour", "size"), ("size", "colour")):
        for sep in (0.1, 0.2, 0.3, 0.5, 0.6, 0.8):
            value = 100 / sep if slower else 100 * sep
            found += rows(seeds=6, metric=f"time to learn {concept}", value=value,
                          **{f"sep_{concept}": sep, f"sep_{other}": 0.4})  # fmt: skip
    assert claims.judge_speed(pd.DataFrame(found)).met is slower


@pytest.mark.parametrize(("latent", "met"), [(200.0, True), (400.0, False)])
def test_elicitation_must_come_at_an_earlier_checkpoint(latent, met):
    found = []
    for dataset in ("discs", "vectors"):
        for method, value in (("naive", 400.0), ("over-prompting", np.inf), ("latent", latent), ("patched", 400.0)):
            found += rows(dataset=dataset, method=method, metric="time", value=value)
    assert claims.judge_elicitation(pd.DataFrame(found)).met is met


@pytest.mark.parametrize(("inside", "met"), [(1.0, True), (0.0, False)])
def test_a_turn_at_the_end_is_no_turn(inside, met):
    found = []
    for dataset in ("discs", "vectors"):
        for metric, value in (
            ("first to the stronger", 1.0), ("turn inside", inside), ("turn in degrees", 90.0), ("turn at", 100.0),
        ):  # fmt: skip
            found += rows(dataset=dataset, metric=metric, value=value)
    assert claims.judge_turn(pd.DataFrame(found)).met is met


def test_controls_above_chance_are_not_met():
    found = [row for variant in ("unconditional", "permuted")
             for row in rows(variant=variant, metric="final both right", value=lambda seed: 0.1 * seed)]  # fmt: skip
    assert claims.judge_controls(pd.DataFrame(found)).met is False


def test_a_flat_curve_over_alpha_is_no_trend():
    for slope, met in ((1.0, True), (0.0, False)):
        found = [row for alpha in (0.0, 0.25, 0.5, 0.75)
                 for row in rows(variant="underspecified", alpha=alpha, metric="final both right",
                                 value=lambda seed, a=alpha, s=slope: 0.9 - s * a + 0.001 * seed)]  # fmt: skip
        assert claims.judge_underspecified(pd.DataFrame(found)).met is met


def test_a_delay_must_grow_with_alpha():
    for slope, met in ((400.0, True), (0.0, False)):
        found = [row for alpha in (0.0, 0.25, 0.5, 0.75)
                 for row in rows(variant="underspecified", alpha=alpha, metric="time",
                                 value=lambda seed, a=alpha, s=slope: 200 + s * a + seed)]  # fmt: skip
        assert claims.judge_delayed(pd.DataFrame(found)).met is met


class Notes:
    """A context of one seed that keeps what is recorded, and dies at a number of steps of a training."""

    seeds = (0,)

    def __init__(self, workdir, dies_at=np.inf):
        self.workdir, self.dies_at, self.rows, self.steps = workdir, dies_at, [], []

    def record(self, **row):
        self.rows.append(row)

    def progress(self, description):
        def tell(done, total):
            self.steps.append(done)
            if done >= self.dies_at:
                raise InterruptedError

        return tell


@pytest.mark.parametrize("part", ["images", "vectors"])
def test_a_killed_run_goes_on_and_records_what_an_uninterrupted_one_does(part, tmp_path, monkeypatch):
    config = dataclasses.replace(
        experiment.PRESETS["smoke"], side=4, channels=(8,), images=8, steps=8, checkpoints=4, generations=2,
        sweep=(0.2,), sampling_steps=2, vector_steps=8, vector_checkpoints=4, vector_width=8, vector_generations=2,
        batch_size=4,
    )  # fmt: skip
    monkeypatch.setattr("core.fit.SAVE_SECONDS", 0.0)
    monkeypatch.setattr(experiment, "EXAGGERATIONS", (2.5,))
    monkeypatch.setattr(experiment, "STRENGTHS", (2.0,))
    setting = experiment.Setting(0.2)

    def run(context):
        folder = context.workdir / part
        if part == "images":
            experiment.images(config, context, 0, setting, folder)
        else:
            experiment.vectors(config, context, [setting], folder)
        return context.rows

    expected = run(Notes(tmp_path / "uninterrupted"))
    with pytest.raises(InterruptedError):
        run(Notes(tmp_path / "killed", dies_at=7))
    again = Notes(tmp_path / "killed")
    assert run(again) == expected
    assert again.steps[0] > 2, "it began anew"
    assert len({row["step"] for row in expected if "step" in row}) >= 3


@pytest.mark.parametrize("preset", list(SYSTEM.presets))
def test_learners_of_every_preset_can_be_initialised_and_updated(preset):
    config, key = SYSTEM.presets[preset], jax.random.key(0)
    for cube in (None, 0.8):
        world = experiment.Setting(0.2, sep_background=cube).world
        data = jax.eval_shape(lambda world=world: experiment.disc_data(config, world, 0))
        learner = experiment.disc_learner(config)
        state = jax.eval_shape(learner.init, key, data)
        assert jax.eval_shape(learner.update, state, data)[0] == state
    for kinds in experiment.settings_of(config).values():
        setting = {"world": kinds[0].world, "alpha": 0.0, "permuted": False, "conditional": 1.0, "dropped": 0.0}
        setting = jax.tree.map(jnp.asarray, setting)
        learner = experiment.point_learner(config, kinds[0])
        state = jax.eval_shape(learner.init, key, setting)
        assert jax.eval_shape(learner.update, state, setting)[0] == state
