import dataclasses
import pathlib

import jax
import numpy as np
import pandas as pd
import pytest

from experiments import concept_space
from experiments.concept_space import PRESETS, SYSTEM
from experiments.concept_space.study import images, report, vectors
from experiments.concept_space.study.report import Setting
from experiments.lab import Place, registry, runs
from experiments.lab.runner import execute
from tests.experiments.concept_space import TINY


def tiny(workdir, *more):
    return execute(
        registry.load("concept_space"), preset="smoke", seeds=(0,), assignments=(*TINY, *more), workdir=workdir
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Discs of two concepts and the first group of vectors; every other group is compiled apart."""
    with pytest.MonkeyPatch.context() as patch:
        groups = concept_space.settings_of
        patch.setattr(concept_space, "settings_of", lambda config: {"diffusion": groups(config)["diffusion"]})
        return runs.read(tiny(tmp_path_factory.mktemp("runs")))


def drawn(frame):
    return {stem for stem, draw in SYSTEM.figures.items() if draw(frame) is not None}


def shown(frame):
    return [title for title, table in SYSTEM.tables.items() if len(table(frame))]


@pytest.mark.slow
def test_every_part_is_recorded_and_drawn(run):
    frame = run.frame
    asked = {"naive", "over-prompting", "latent", "patched", "random direction", "naive, best of 4", "naive, best of 5"}
    assert set(frame["dataset"]) == {"discs", "vectors"}
    assert set(frame["method"]) == asked | {"world"}
    assert set(frame["variant"]) == {"plain", "underspecified", "unconditional", "permuted"}
    assert drawn(frame) == {"trajectories", "speed", "elicitation"}
    assert len(shown(frame)) >= 7
    assert all(verdict.met is None for verdict in (judge(frame) for judge in JUDGED.values()))


@pytest.mark.slow
def test_every_group_and_three_concepts_are_recorded_and_drawn(tmp_path):
    frame = runs.read(tiny(tmp_path, "shape=triangle", "cubes=1", "cost_repeats=2")).frame
    assert set(frame["dataset"]) == {"triangles", "vectors", "cost"}
    assert {f"class {i:03b}" for i in range(8)} < set(frame["method"])
    assert {"guided", "deterministic"} < set(frame["variant"])
    assert drawn(frame) == {"trajectories", "speed", "cube"}
    assert len(frame[frame["metric"] == "seconds"]) == 4


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do(run, monkeypatch):
    groups = concept_space.settings_of
    monkeypatch.setattr(concept_space, "settings_of", lambda config: {"diffusion": groups(config)["diffusion"]})
    for name in ("vectors", "images"):
        monkeypatch.setattr(concept_space, name, None)
    monkeypatch.setattr(concept_space.functools, "partial", lambda measure, **_: measure)
    before = (run.folder / runs.RECORDS).stat().st_size
    tiny(run.folder.parents[1])
    assert (run.folder / runs.RECORDS).stat().st_size == before


JUDGED = {claim.number: claim.evidence for claim in SYSTEM.claims if hasattr(claim.evidence, "words")}


def judged(number, found):
    return JUDGED[number](pd.DataFrame(found))


def rows(seeds=5, **columns) -> list[dict]:
    """The same row for every seed; a callable value gets the seed."""
    place = {"dataset": "vectors", "variant": "plain", "method": "naive", "sep_colour": 0.2, "sep_size": 0.4}
    return [
        {**place, "seed": seed, **{k: v(seed) if callable(v) else v for k, v in columns.items()}}
        for seed in range(seeds)
    ]


SWEEP = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8)


@pytest.mark.parametrize(
    ("power", "met"), [(-1, (True, True, False)), (1, (False, False, False)), (0, (False, False, True))]
)
def test_speed_is_judged_by_rank_over_separations(power, met):
    found = []
    names = ("colour of class 10", "colour of class 11", "size of class 01")
    for order, sep in enumerate(SWEEP):
        value = sep**power if power else (3, 5, 1, 6, 2, 4)[order]
        for name in names:
            found += rows(6, metric=f"{name} learned at", value=value, sep_colour=sep, world="2 x 2")
    assert tuple(judged(number, found).met for number in ("7a", "7b", "7c")) == met
    for row in found[:6]:
        row["value"] = np.inf  # censored, and so the last of all
    assert judged("7a", found).met in ((True, None) if power == -1 else (False,))


def test_vectors_are_learned_in_every_run():
    names = ("colour of class 10", "size of class 01")
    found = [row for sep in SWEEP for name in names
             for row in rows(metric=f"{name} learned at", value=np.inf if sep == 0.1 else 300.0, sep_colour=sep,
                             world="2 x 2")]  # fmt: skip
    assert judged("6a", found).met is True
    found[-1]["value"] = np.inf
    assert judged("6a", found).met is False
    found[-1]["value"] = np.nan
    assert judged("6a", found).met is None


@pytest.mark.parametrize(("learned", "met"), [(0.97, True), (0.8, False), (0.905, None)])
def test_discs_are_learned_in_the_mean(learned, met):
    found = [row for sep in (0.2, 0.8) for name in ("colour of class 10", "size of class 01")
             for row in rows(dataset="discs", metric=f"final {name}", sep_colour=sep, world="2 x 2",
                             value=lambda seed: learned + 0.01 * (seed - 2))]  # fmt: skip
    assert judged("6b", found).met is met


def asked(dataset, seeds, **steps):
    seps = (0.2, 0.3, 0.4, 0.6, 0.8) if dataset == "vectors" else (0.2,)
    return [row for sep in seps for method, value in steps.items()
            for row in rows(seeds, dataset=dataset, method=method, metric="shown at", value=value, sep_colour=sep,
                            world="2 x 2")]  # fmt: skip


@pytest.mark.parametrize(
    ("latent", "naive", "met"),
    [(200.0, 400.0, True), (400.0, 400.0, False), (300.0, np.inf, True), (np.inf, np.inf, False),
     (lambda seed: 200.0 if seed else 900.0, 400.0, True), (lambda seed: 200.0 if seed > 1 else 900.0, 400.0, False)],
)  # fmt: skip
def test_the_best_of_four_interventions_must_be_sooner_than_the_best_of_four_naive_draws(latent, naive, met):
    found = asked("vectors", 8, latent=latent, **{"naive, best of 4": naive, "random direction": naive, "naive": 1e6})
    assert judged("9a", found).met is met
    assert judged("9b", found).met is met
    assert judged("9a", asked("vectors", 7, latent=latent, **{"naive, best of 4": naive})).met is None
    assert judged("9a", found[1:]).met is (False if met is False else None)


def test_as_many_naive_draws_are_taken_as_there_are_prompts_and_with_all_alike_neither_is_favoured():
    rng, wins = np.random.default_rng(0), {True: 0, False: 0}
    names = [
        f"{kind} {i}" for kind, count in (("latent", 4), ("over", 5), ("naive", 5), ("random", 4)) for i in range(count)
    ]
    for _ in range(300):
        points = {name: rng.uniform(0.2, 1.2, (3, 8, 2)) for name in ("class 11", *names)}
        ways = report.Seen(np.arange(3), points, np.ones(2)).protocols()
        assert {name: len(each) for name, each in ways.items()} == {
            "naive": 1, "latent": 4, "over-prompting": 5, "random direction": 4, "naive, best of 4": 4,
            "naive, best of 5": 5,
        }  # fmt: skip
        best = {name: max(report.cs.success(p[-1], np.ones(2)) for p in each) for name, each in ways.items()}
        if best["latent"] != best["naive, best of 4"]:
            wins[bool(best["latent"] > best["naive, best of 4"])] += 1
    assert 0.4 < wins[True] / sum(wins.values()) < 0.6


@pytest.mark.parametrize(("latent", "seeds", "met"), [
    (200.0, 8, True), (400.0, 8, False), (200.0, 7, None), (lambda seed: 200.0 if seed else 900.0, 8, True),
    (lambda seed: 200.0 if seed > 1 else 900.0, 8, False)])  # fmt: skip
def test_on_discs_seven_of_eight_seeds_must_be_sooner(latent, seeds, met):
    rivals = {f"naive, best of {count}": 400.0 for count in (4, 5)}
    found = asked("discs", seeds, latent=latent, **rivals, **{"over-prompting": latent})
    assert (judged("9c", found).met, judged("9d", found).met) == (met, met)


@pytest.mark.parametrize(("inside", "near", "met"), [
    (1.0, (0.1, 0.9), True), (0.0, (0.1, 0.9), False), (1.0, (0.9, 0.1), False), (1.0, (0.5, 0.5), False),
    (lambda seed: float(seed > 0), (0.1, 0.9), True)])  # fmt: skip
def test_the_path_must_pass_nearer_to_01_and_turn_inside(inside, near, met):
    place = {"dataset": "discs", "world": "2 x 2"}
    found = [row for step, point in ((10, (0.4, 0.4)), (20, near), (30, (1.0, 1.0)))
             for name, value in zip(("colour", "size"), point, strict=True)
             for row in rows(metric=name, value=value, step=step, **place)]  # fmt: skip
    found += rows(metric="turn inside", value=inside, **place)
    assert judged("8", found).met is met
    assert judged("8", found[:-1]).met is None
    assert judged("8", found[1:]).met is None


@pytest.mark.parametrize(("latent", "met"), [(450.0, True), (900.0, False), (np.inf, False)])
def test_protocols_agree_within_a_checkpoint(latent, met):
    place = {"dataset": "discs", "world": "2 x 2"}
    found = [row for step in (300.0, 450.0, 600.0, 900.0)
             for row in rows(8, method="latent", metric="both right", value=0.5, step=step, **place)]  # fmt: skip
    found += rows(8, method="over-prompting", metric="time", value=300.0, **place)
    found += rows(8, method="latent", metric="time", value=latent, **place)
    assert judged("10", found).met is met


@pytest.mark.parametrize(("early", "late", "met"), [(0.4, 0.1, True), (0.1, 0.3, False)])
def test_controls_must_stay_at_chance_once_they_are_trained(early, late, met):
    found = [row for variant in ("unconditional", "permuted") for step, value in ((10, early), (80, late), (100, 0.0))
             for row in rows(variant=variant, metric="both right", step=step,
                             value=lambda seed, v=value: v if seed == 1 else 0.0)]  # fmt: skip
    assert judged("12", found).met is met


def test_a_flat_curve_over_alpha_is_no_trend():
    for slope, met in ((1.0, True), (-1.0, False), (0.0, None)):
        found = [row for alpha in (0.0, 0.25, 0.5, 0.75) for metric, way in (("final both right", -1), ("time", 1))
                 for row in rows(8, variant="underspecified", alpha=alpha, metric=metric,
                                 value=lambda seed, a=alpha, s=slope, w=way: 0.5 + w * s * a)]  # fmt: skip
        assert judged("11a", found).met is met
        assert judged("11b", found).met is met


@pytest.mark.parametrize(("many", "met"), [(12.0, True), (20.0, False)])
def test_many_runs_must_cost_less_than_sixteen(many, met):
    found = [{"metric": "seconds", "part": "cost", "runs": n, "seed": s, "value": v + 0.01 * s}
             for n, v in ((1, 1.0), (48, many)) for s in range(5)]  # fmt: skip
    assert judged("13a", found).met is met


@pytest.mark.parametrize("number", list(JUDGED))
def test_without_records_nothing_is_judged(number):
    assert judged(number, {"metric": [], "seed": [], "value": []}).met is None


class Notes:
    """A context of one seed that keeps what is recorded, and dies at a number of steps of a training."""

    seeds, missing = (0,), ({"part": "one"},)

    def __init__(self, workdir, dies_at=np.inf):
        self.workdir, self.dies_at, self.rows, self.steps = workdir, dies_at, [], []

    def at(self, **place):
        return Place(self, place)

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
        PRESETS["smoke"], side=4, channels=(8,), images=8, steps=8, checkpoints=4, generations=2,
        sweep=(0.2,), sampling_steps=2, vector_steps=8, vector_checkpoints=4, vector_width=8, vector_generations=2,
        batch_size=4,
    )  # fmt: skip
    monkeypatch.setattr("core.fit.SAVE_SECONDS", 0.0)
    monkeypatch.setattr(report, "EXAGGERATIONS", (2.5,))
    monkeypatch.setattr(report, "STRENGTHS", (2.0,))
    setting = Setting(0.2)

    def run(context):
        if part == "images":
            images.images(config, context, seed=0, setting=setting)
        else:
            vectors.vectors(config, context, settings=[setting])
        return context.rows

    expected = run(Notes(tmp_path / "uninterrupted"))
    with pytest.raises(InterruptedError):
        run(Notes(tmp_path / "killed", dies_at=7))
    again = Notes(tmp_path / "killed")
    assert run(again) == expected
    assert again.steps[0] > 2, "it began anew"
    assert len({row["step"] for row in expected if "step" in row}) >= 3

    folders, remove = [], report.shutil.rmtree

    def dies(folder, **how):
        if not (pathlib.Path(folder) / "looks").exists():
            return remove(folder, **how)
        folders.append(folder)
        remove(folder / "looks", **how)
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(report.shutil, "rmtree", dies)
        with pytest.raises(InterruptedError):
            run(Notes(tmp_path / "killed late"))
    late = Notes(tmp_path / "killed late")
    assert run(late) == expected, "of checkpoints that were removed in part"
    assert not folders[-1].exists()


@pytest.mark.parametrize("preset", list(SYSTEM.presets))
def test_learners_of_every_preset_can_be_initialised_and_updated(preset):
    config, key = SYSTEM.presets[preset], jax.random.key(0)
    for cube in (None, 0.8):
        world = Setting(0.2, sep_background=cube).world
        data = jax.eval_shape(lambda world=world: images.disc_data(config, world, 0))
        learner = images.disc_learner(config)
        state = jax.eval_shape(learner.init, key, data)
        assert jax.eval_shape(learner.update, state, data)[0] == state
    for kinds in vectors.settings_of(config).values():
        setting = jax.tree.map(lambda leaf: leaf[0], vectors.as_numbers(config, kinds[:1]))
        learner = vectors.point_learner(config, kinds[0])
        state = jax.eval_shape(learner.init, key, setting)
        assert jax.eval_shape(learner.update, state, setting)[0] == state
