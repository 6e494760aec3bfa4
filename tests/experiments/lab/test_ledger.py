"""The ledger says what tests and records say, and bindings point to tests that exist and can fail."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.lab import bindings, ledger, mean, numbers, outcomes, registry, sources
from experiments.lab.outcomes import Outcome
from experiments.lab.system import Claim, ShownByTest, Verdict
from tests.experiments.toy import SYSTEM, Judged, quick_run

HOLM = "tests/core/test_stats.py::test_holm_gives_the_known_adjustment"
CODE = sources.total(sources.of_test(HOLM.partition("::")[0], ledger.ROOT))


def bound_tests() -> list[str]:
    """Node ids of all tests that claims of available systems are bound to."""
    claims = [claim for slug in registry.available() for claim in registry.load(slug).system.claims]
    return [claim.evidence.nodeid for claim in claims if isinstance(claim.evidence, ShownByTest)]


def test_every_binding_points_to_a_test_that_exists_and_can_fail():
    faults = {nodeid: fault for nodeid in bound_tests() if (fault := bindings.fault(nodeid, ledger.ROOT))}
    assert not faults
    collected = collect(sorted({nodeid.split("::")[0] for nodeid in bound_tests()}))
    assert set(bound_tests()) <= collected


def collect(paths: list[str]) -> set[str]:
    """Node ids without parameters that pytest collects from files, slow ones included."""
    if not paths:
        return set()
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-n", "0", "-p", "no:cacheprovider"]
    result = subprocess.run([*command, *paths], cwd=ledger.ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return {line.partition("[")[0] for line in result.stdout.splitlines() if "::" in line}


CANNOT_FAIL = {
    "skipped": ("@pytest.mark.skip(reason='x')\ndef test_it():\n    assert f() == 1", "always skipped"),
    "skipped if true": ("@pytest.mark.skipif(True, reason='x')\ndef test_it():\n    assert f() == 1", "always skipped"),
    "expected to fail": ("@pytest.mark.xfail\ndef test_it():\n    assert f() == 1", "expected to fail"),
    "skips itself": ("def test_it():\n    pytest.skip('later')\n    assert f() == 1", "always skipped"),
    "module skipped": ("pytestmark = pytest.mark.skip\ndef test_it():\n    assert f() == 1", "always skipped"),
    "no assertion": ("def test_it():\n    f()", "checks nothing"),
    "constant assertion": ("def test_it():\n    assert True", "checks nothing"),
    "another name": ("def test_that():\n    assert f() == 1", "has no test test_it"),
}


@pytest.mark.parametrize("case", CANNOT_FAIL)
def test_a_test_that_cannot_fail_is_no_evidence(case, tmp_path):
    source, fault = CANNOT_FAIL[case]
    (tmp_path / "test_x.py").write_text("import pytest\ndef f():\n    return 1\n" + source)
    assert fault in bindings.fault("test_x.py::test_it", tmp_path)


CAN_FAIL = {
    "assertion": "def test_it():\n    assert f() == 1",
    "numpy": "def test_it():\n    np.testing.assert_allclose(f(), 1)",
    "raises": "def test_it():\n    with pytest.raises(ValueError):\n        f()",
    "through a function": "def same(x):\n    assert x == 1\ndef test_it():\n    same(f())",
    "skipped on a condition": "@pytest.mark.skipif(f() == 2, reason='')\ndef test_it():\n    assert f() == 1",
    "skips itself on a condition": "def test_it():\n    if f():\n        pytest.skip('no data')\n    assert f() == 1",
    "slow": "@pytest.mark.slow\ndef test_it():\n    assert f() == 1",
}


@pytest.mark.parametrize("case", CAN_FAIL)
def test_a_test_that_can_fail_is_evidence(case, tmp_path):
    (tmp_path / "test_x.py").write_text(CAN_FAIL[case])
    assert bindings.fault("test_x.py::test_it", tmp_path) is None


def test_a_file_that_is_not_there_is_no_evidence(tmp_path):
    assert "there is no file test_x.py" in bindings.fault("test_x.py::test_it", tmp_path)


TESTS = """
import os, sys
import numpy as np
import pytest

def test_passes(record_property):
    record_property("value", "error 0.1")
    record_property("interval", (np.float32(0.0), 0.25))

@pytest.mark.skip
def test_is_skipped(): ...

@pytest.mark.xfail
def test_is_expected_to_fail():
    assert os.environ.get("FAIL") == "never"

@pytest.mark.parametrize("case", os.environ.get("CASES", "left right").split())
def test_has_cases(case, record_property):
    record_property("value", case)
    assert case != os.environ.get("FAIL")

@pytest.fixture
def broken():
    assert not os.environ.get("FAIL")

def test_needs_a_fixture(broken): ...
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with tests; call it with pytest's arguments and variables to get the outcomes."""
    (tmp_path / "test_x.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **environment: str) -> dict[str, Outcome]:
        options = ["-q", "-p", "experiments.lab.outcomes", "-p", "no:cacheprovider", "--import-mode=importlib"]
        with monkeypatch.context() as context:
            context.delitem(sys.modules, "test_x", raising=False)
            for name, value in environment.items():
                context.setenv(name, value)
            assert pytest.main([*options, *arguments]) in (0, 1)
        return {name.removeprefix("test_x.py::"): found for name, found in outcomes.read(tmp_path).items()}

    return run


def test_outcomes_are_kept_with_what_was_measured(project):
    found = project()
    assert found["test_passes"].passed is True
    assert found["test_passes"].value == "error 0.1"
    assert found["test_passes"].interval == (0.0, 0.25)
    assert found["test_passes"].commit
    assert found["test_is_skipped"].passed is None
    assert found["test_is_expected_to_fail"].passed is None
    assert found["test_has_cases"].passed is True
    assert found["test_has_cases"].value == "left; right"


def test_outcomes_tell_by_what_code_they_were_found(project, tmp_path):
    before = project()["test_passes"].code
    assert before == sources.total(sources.of_test("test_x.py", tmp_path))
    path = tmp_path / "test_x.py"
    path.write_text(path.read_text().replace("error 0.1", "error 0.2"))
    assert sources.total(sources.of_test("test_x.py", tmp_path)) != before
    assert project("-k", "left")["test_has_cases"].code == ""  # the other case was found by other code
    assert project()["test_has_cases"].code not in ("", before)


def test_an_outcome_of_code_that_was_written_meanwhile_tells_none(tmp_path, monkeypatch):
    """Whatever the process's clock says: that of the file system lags behind it by some milliseconds."""
    ahead, now = 20_000_000, time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + ahead)
    writer = outcomes.Writer(tmp_path / outcomes.FILE)
    (tmp_path / "test_x.py").write_text(TESTS)
    assert writer._code("test_x.py") == ""


def test_the_newest_outcome_counts_and_all_cases_must_pass(project):
    found = project(FAIL="right")
    assert found["test_has_cases"].passed is False
    assert found["test_needs_a_fixture"].passed is False
    assert project("-k", "left")["test_has_cases"].passed is False  # the other has failed and was not run again
    assert project()["test_has_cases"].passed is True
    assert project(CASES="left right top")["test_has_cases"].value == "left; right; top"


def test_cases_that_are_no_longer_there_do_not_count(project):
    assert project(CASES="left right", FAIL="right")["test_has_cases"].passed is False
    assert project(CASES="left")["test_has_cases"].passed is True


def test_a_case_that_was_never_run_leaves_the_claim_not_measured(project):
    assert project("-k", "left")["test_has_cases"].passed is None


def test_asking_for_one_case_does_not_forget_the_others(project):
    project(FAIL="right")
    assert project("test_x.py::test_has_cases[left]")["test_has_cases"].passed is False


def test_only_the_controller_writes_when_tests_run_in_parallel(project, tmp_path):
    found = project("-n", "1")
    lines = [json.loads(line) for line in (tmp_path / outcomes.FILE).read_text().splitlines()]
    assert len(lines) == len({line["nodeid"] for line in lines}) == 6
    assert found["test_passes"].interval == (0.0, 0.25)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return quick_run(tmp_path_factory.mktemp("runs"))


def lines_of(run, tests=None, **options) -> dict[str, ledger.Line]:
    found = ledger.ledger(SYSTEM, [run] if run else [], tests or {}, **options)
    return {line.claim: line for line in found}


def test_claims_are_in_the_order_of_their_numbers():
    assert list(lines_of(None)) == ["2", "8", "8a", "10"]


def test_claims_without_evidence_are_not_shown():
    lines = lines_of(None)
    assert lines["8a"].state == "not shown"
    assert lines["8"].state == "not shown"
    assert "has no test test_nothing_of_the_kind" in lines["8"].source


@pytest.mark.parametrize(("passed", "state"), [(True, "met"), (False, "not met")])
def test_a_claim_is_what_its_test_says(passed, state):
    line = lines_of(None, {HOLM: Outcome(passed, "0.03", (0.0, 0.1), code=CODE)})["10"]
    assert (line.state, line.value, line.interval) == (state, "0.03", (0.0, 0.1))
    assert line.shown_by == HOLM


def test_a_test_that_was_skipped_or_never_ran_measures_nothing():
    assert lines_of(None)["10"].state == "not measured"
    skipped = lines_of(None, {HOLM: Outcome(None, "0.03", (0.0, 0.1))})["10"]
    assert (skipped.state, skipped.value) == ("not measured", "")


def test_a_claim_is_what_its_records_say(run):
    line = lines_of(run)["2"]
    assert line.state == "met"
    assert line.value.startswith("error 0.0")
    assert line.interval[0] < line.interval[1]
    assert "preset small" in line.source


def test_a_claim_that_its_records_leave_undecided_is_open(run):
    straddles = Judged("an interval that holds the limit", lambda frame: Verdict(None, "0.4", (0.3, 0.6)))
    [line] = ledger.ledger(dataclasses.replace(SYSTEM, claims=[Claim("1", "half", straddles)]), [run], {})
    assert (line.state, line.met, line.interval) == ("open", None, (0.3, 0.6))


def test_an_open_claim_that_misses_its_limit_as_measured_says_so(run):
    values = numbers("error", method="adam", dataset="line")
    [line] = ledger.ledger(
        dataclasses.replace(SYSTEM, claims=[Claim("1", "half", mean(values, most=0.07, seeds=2))]), [run], {}
    )
    assert line.state == "open"
    assert line.value.startswith("on the wrong side: error")


def test_claims_are_open_while_seeds_of_the_run_are_missing(run):
    found = Claim("1", "small", mean(numbers("error", method="adam", dataset="line"), most=9, seeds=2))
    system = dataclasses.replace(SYSTEM, claims=[found])
    assert ledger.ledger(system, [run], {})[0].state == "met"
    asked = dataclasses.replace(run, info={**run.info, "seeds": [*run.info["seeds"], 17]})
    assert ledger.ledger(system, [asked], {})[0].state == "open"


def test_the_largest_preset_that_ran_decides_and_changed_settings_never_do(run):
    found = Claim("1", "small", mean(numbers("error", method="adam", dataset="line"), most=9, seeds=2))
    system = dataclasses.replace(SYSTEM, claims=[found])
    of_one_seed = {**run.info, "preset": "paper", "seeds": [0], "finished": [0]}
    paper = dataclasses.replace(run, info=of_one_seed, records=[r for r in run.records if r.seed == 0])
    changed = dataclasses.replace(run, info={**run.info, "changes": {"steps": 9}})
    assert ledger.ledger(system, [run, paper], {})[0].state == "not measured"  # the paper's seeds do not suffice
    assert ledger.ledger(system, [changed], {})[0].state == "not measured"
    assert ledger.ledger(system, [changed], {}, changed=True)[0].state == "met"


def test_a_smoke_run_is_no_evidence_unless_asked_for(tmp_path):
    smoke = quick_run(tmp_path, preset="smoke")
    assert lines_of(smoke)["2"].state == "not measured"
    assert lines_of(smoke, preset="smoke")["2"].state == "met"


def test_too_few_records_leave_a_claim_not_measured(tmp_path):
    line = lines_of(quick_run(tmp_path, seeds=(0,)))["2"]
    assert line.met is None
    assert "do not suffice" in line.source


def test_the_json_document_has_the_promised_fields(run):
    rows = json.loads(json.dumps(ledger.as_json(list(lines_of(run).values())), allow_nan=False))
    assert [row["met"] for row in rows] == [True, None, None, None]
    assert {"claim", "statement", "shown_by", "met", "value", "interval"} <= rows[0].keys()


def test_markdown_has_a_row_per_claim(run):
    text = ledger.markdown(list(lines_of(run).values()))
    assert len(text.splitlines()) == 2 + len(SYSTEM.claims)
    assert "✓" in text


def test_node_ids_start_from_the_root_of_the_project():
    assert (ledger.ROOT / Path(HOLM.split("::")[0])).is_file()
