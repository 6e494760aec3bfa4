import numpy as np
import pandas as pd
import pytest

from experiments.lab import registry, runs
from experiments.lab.plots import drawn
from experiments.lab.runner import execute
from experiments.scan_eeg import SYSTEM
from experiments.scan_eeg.claims import CLAIMS
from latent.scan_eeg import select_by_udr
from tests.experiments.noise import noise as little
from tests.experiments.scan_eeg import TINY


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs")
    folder = execute(registry.load("scan_eeg"), preset="smoke", seeds=(0,), assignments=TINY, workdir=workdir)
    return runs.read(folder)


@pytest.mark.slow
def test_every_part_without_data_is_recorded_and_drawn(made):
    frame = made.frame
    assert set(frame["part"].dropna()) == {
        "pool", "selection", "denoising", "markers", "latents", "recombination", "curves", "cost",
    }  # fmt: skip
    assert {"LPP difference + LR", "beta-VAE + LR", "beta-VAE by UDR + LR", "SCAN"} < set(frame["method"])
    assert {name for name, _ in drawn(SYSTEM.figures, frame)} == {
        "accuracies", "udr", "latents", "traversals", "prototypes", "recombined", "denoised",
    }  # fmt: skip
    empty = {title for title, table in SYSTEM.tables.items() if not len(table(frame))}
    assert empty == {"Correlation with the same person's other trials"}


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do(made):
    before = (made.folder / runs.RECORDS).stat().st_size
    execute(registry.load("scan_eeg"), preset="smoke", seeds=(0,), assignments=TINY, workdir=made.folder.parents[1])
    assert (made.folder / runs.RECORDS).stat().st_size == before


def test_udr_selects_within_the_beta_of_the_highest_median():
    scores, betas = np.array([0.9, 0.1, 0.5, 0.6]), np.array([2.0, 2.0, 8.0, 8.0])
    assert select_by_udr(scores, betas) == 3


def rows(method, metric, numbers, **place) -> list[dict]:
    at = {"dataset": "simulated", "method": method, "metric": metric, **place}
    return [
        {"seed": i, "value": value + little(metric, method, i, *place.values()), **at}
        for i, value in enumerate(numbers)
    ]


def near(mean, seeds=5):
    return [mean + 0.001 * i for i in range(seeds)]


def compared(age=0.3, sex=0.2, anxiety=0.2, depression=0.0, random=0.5, seeds=5) -> pd.DataFrame:
    gains = {"age": age, "sex": sex, "anxiety": anxiety, "depression": depression}
    found = [r for label, gain in gains.items() for r in rows("beta-VAE + LR", label, near(0.5 + gain, seeds))]
    found += [r for label in gains for r in rows("LPP difference + LR", label, [0.5] * seeds)]
    return pd.DataFrame(found + rows("beta-VAE + LR", "random", near(random, seeds)))


def denoised(single=0.2, erp=0.03, less=0.08) -> pd.DataFrame:
    gains = {("single trial", "whole"): single, ("ERP", "whole"): erp,
             ("single trial", "less grand mean"): less, ("ERP", "less grand mean"): less}  # fmt: skip
    return pd.DataFrame([
        row
        for (source, form), gain in gains.items()
        for method, start in (("none", [0.4] * 5), ("beta-VAE", near(0.4 + gain)))
        for row in rows(method, "correlation with clean", start, part="denoising", source=source, form=form)
    ])  # fmt: skip


def pool(part="pool", **by_metric) -> pd.DataFrame:
    """Three values by beta (2, 8, 16) of every metric, at twenty seeds and two members each."""
    return pd.DataFrame([
        row
        for metric, means in by_metric.items()
        for beta, mean in zip((2.0, 8.0, 16.0), means, strict=True)
        for member in (0, 1)
        for row in rows("beta-VAE", metric.replace("__", ": ").replace("_", " "), near(mean, 20), part=part, beta=beta,
                        member=member)
    ])  # fmt: skip


def named(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(metric=frame["metric"].replace({"UDR": "UDR (lasso)"}))


def seconds(alone, together, label=5.0) -> pd.DataFrame:
    metric = "seconds per model and step"
    return pd.DataFrame(
        rows("one after another", metric, near(alone), dataset="cost")
        + rows("one program", metric, near(together), dataset="cost")
        + rows("SCAN", "seconds for a new label", near(label), dataset="cost")
    )


def people(mean, count=60) -> pd.DataFrame:
    """Alcoholic people and controls, each rightly told in 0.1 more or less of the repetitions than the mean."""
    at = {"method": "beta-VAE-10 (FZ, PZ, OZ) + LR", "dataset": "UCI ERPs", "metric": "balanced accuracy", "seed": 0}
    return pd.DataFrame([
        at | {"person": i, "class": i % 2, "value": mean + (0.1 if i % 4 < 2 else -0.1)} for i in range(count)
    ])  # fmt: skip


def one_number(metric, mean, **place) -> pd.DataFrame:
    return pd.DataFrame(rows("SCAN", metric, near(mean), **place))


CASES = {
    "5a": (compared(), compared(sex=0.1)),
    "5b": (compared(), compared(depression=-0.06)),
    "5c": (compared(), compared(random=0.6)),
    "6": (denoised(), denoised(less=0.04)),
    "7a": (pool(active_latents=(7, 5, 4)), pool(active_latents=(4, 5, 7))),
    "7b": (
        pool(best_latent__age=(0.7, 0.75, 0.8), largest_correlation__N1_latency=(0.6, 0.7, 0.8)),
        pool(best_latent__age=(0.7, 0.75, 0.8), largest_correlation__N1_latency=(0.8, 0.7, 0.6)),
    ),
    "7c": (named(pool(UDR=(0.2, 0.3, 0.2))), named(pool(UDR=(0.2, 0.3, 0.4)))),
    "8a": (
        pool("markers", marker_is_carrier__depression=(0, 0.97, 0), marker_is_carrier__sex=(0, 0.97, 0)),
        pool("markers", marker_is_carrier__depression=(0, 0.97, 0), marker_is_carrier__sex=(0, 0.5, 0)),
    ),
    "8b": (
        pool("markers", largest_difference__random=(0, 0.1, 0)),
        pool("markers", largest_difference__random=(0, 0.2, 0)),
    ),
    "9a": (
        one_number("selected less median accuracy", 0.02, part="selection"),
        one_number("selected less median accuracy", -0.02, part="selection"),
    ),
    "9b": (
        named(pool(UDR=(0.1, 0.2, 0.3), mean_largest_correlation=(0.4, 0.5, 0.6))),
        named(pool(UDR=(0.1, 0.2, 0.3), mean_largest_correlation=(0.6, 0.5, 0.4))),
    ),
    "10": (seconds(1, 1), seconds(1, 1, label=31)),
    "11": (people(0.7), people(0.55)),
    "12a": (seconds(1, 0.9), seconds(1, 1.05)),
}


JUDGES = {claim.number: claim.evidence for claim in CLAIMS if callable(claim.evidence)}


@pytest.mark.parametrize("number", JUDGES)
def test_a_claim_is_met_or_not_by_its_numbers(number):
    good, bad = CASES[number]
    assert JUDGES[number](good).met is True
    assert JUDGES[number](bad).met is False
    assert JUDGES[number](good).value


@pytest.mark.parametrize("number", JUDGES)
def test_a_seed_that_failed_or_too_few_of_them_decide_nothing(number):
    failed = CASES[number][0].reset_index(drop=True)
    by = "person" if number == "11" else "seed"
    failed.loc[failed.index[failed[by] == 1], "value"] = np.nan
    assert JUDGES[number](failed).met is None
    assert JUDGES[number](failed[failed[by] < 1]).met is None


def test_a_representation_that_beats_the_lpp_by_more_than_the_limit_is_not_within_it():
    assert JUDGES["5b"](compared(depression=0.08)).met is False


def test_the_worst_model_of_a_seed_counts():
    made = pool("markers", largest_difference__random=(0, 0.1, 0))
    assert JUDGES["8b"](made).met is True
    made.loc[made["member"] == 1, "value"] += 0.1
    assert JUDGES["8b"](made).met is False  # the mean of the two is 0.15


def test_repetitions_of_a_cross_validation_are_no_evidence_and_few_people_decide_nothing():
    found = JUDGES["11"](people(0.7))
    assert found.interval[1] - found.interval[0] > 0.03  # over people, however often each was told
    assert JUDGES["11"](people(0.7, 10)).met is None
    assert JUDGES["11"](people(0.7).drop(columns=["person", "class"])).met is None


@pytest.mark.parametrize("number", JUDGES)
def test_without_records_nothing_is_judged(number):
    for columns in ([], ["dataset", "method", "part", "beta", "member", "source", "form"]):
        frame = pd.DataFrame({"metric": [], "seed": [], "value": [], **{c: [] for c in columns}})
        assert JUDGES[number](frame).met is None
