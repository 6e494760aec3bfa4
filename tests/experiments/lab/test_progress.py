"""Long work is never silent, and says how much of it is left."""

import dataclasses
import io
import time

import pytest

from core.errors import DataError
from experiments.lab import progress
from experiments.lab.cli import main
from experiments.lab.progress import Progress, Tally, duration
from experiments.lab.registry import Found
from experiments.lab.runner import execute
from experiments.lab.system import part
from tests.experiments.toy import SYSTEM

TOY = "tests.experiments.toy"


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(Progress, "_watch", lambda self: None)
    return Clock()


def test_what_is_left_takes_as_long_per_cell_as_what_this_run_did():
    tally = Tally(100.0, announced=set(range(30)), before={0, 1})
    assert tally.words(160.0) == "cell 3 of 30"
    tally.finished, tally.latest = {2, 3}, 220.0
    assert tally.words(220.0) == "cell 5 of 30, about 26 min left"
    assert tally.seconds_left(250.0) == 26 * 60 - 30
    assert tally.seconds_left(1e6) == 25 * 60
    tally.finished |= set(range(30))
    assert tally.words(230.0) == "cell 30 of 30"


def test_a_last_cell_that_takes_longer_than_the_others_is_not_said_to_end_at_once():
    tally = Tally(0.0, announced={"a", "b"}, finished={"a"}, latest=60.0)
    assert tally.words(100.0) == "cell 2 of 2, about 20 s left"
    assert tally.words(200.0) == "cell 2 of 2"


def test_a_run_that_announced_no_cells_is_not_counted():
    tally = Tally(0.0)
    tally.finished, tally.latest = {1}, 1.0
    assert tally.words(2.0) == ""


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (99, "99 s"), (700, "12 min"), (7200, "2 h 0 min"), (12_000, "3 h 20 min")]
)
def test_durations_read_well(seconds, words):
    assert duration(seconds) == words


def test_a_line_comes_after_some_seconds_of_silence_and_says_where_things_stand(clock, capsys):
    with Progress("toy, preset small", clock=clock) as display:
        display.announce(["a", "b", "c"], lambda cell: cell == "a")
        display.beat()
        assert capsys.readouterr().err == ""
        clock.now = 9.0
        display.beat()
        display.beat()
        assert capsys.readouterr().err == "[9 s] cell 2 of 3; toy, preset small\n"
        display.say("training b\nand more")
        clock.now = 14.0
        note = display.track("b, step")
        note(340, 2000)
        assert capsys.readouterr().err == "training b\nand more\n"
        clock.now = 20.0
        note(1340, 2000)
        assert capsys.readouterr().err == "[20 s] cell 2 of 3; b, step: 1,340 of 2,000\n"
        note(2000, 2000)
        clock.now = 30.0
        display.beat()
        assert capsys.readouterr().err == "[30 s] cell 2 of 3; training b\n"
        display.finished("b")
        clock.now = 40.0
        display.beat()
        assert capsys.readouterr().err == "[40 s] cell 3 of 3, about 20 s left; training b\n"


def test_the_innermost_speaks_and_only_in_the_process_that_does(clock, capsys):
    with Progress("outer", clock=clock) as outer:
        with Progress("inner", speaks=False, clock=clock) as inner:
            clock.now = 100.0
            outer.beat()
            inner.beat()
            inner.say("nothing")
            assert capsys.readouterr().err == ""
        outer.beat()
        assert capsys.readouterr().err == "[2 min] outer\n"
    outer.beat()
    assert capsys.readouterr().err == ""


def test_a_computation_that_never_reports_is_spoken_for(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.5)
    said, begun = "", time.monotonic()
    with Progress("a library is at work"):
        while not said and time.monotonic() < begun + 10:
            time.sleep(0.1)
            said += capsys.readouterr().err
    assert "a library is at work" in said


def test_a_terminal_gets_a_bar(clock, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with Progress("toy", bar=True, clock=clock) as display:
        display.announce("abc", lambda cell: False)
        display.say("training a")
        display.beat()
    assert "cell 1 of 3; training a" in terminal.getvalue()


def test_a_run_counts_its_cells_and_estimates_what_is_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    assert main(["run", TOY, "--preset", "smoke", "--seeds", "2", "--workdir", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    assert "cell 1 of 4; sgd 0: 10 of 20" in said
    assert "cell 4 of 4, about " in said


def test_numbers_that_belong_to_no_cell_of_their_part_are_an_error_before_anything_is_written(tmp_path):
    def contradicting(config, context):
        at = context.at(dataset="line", method="sgd", seed=0)
        at.record("error", 1.0)
        at.record("error", 2.0, part="cost")

    found = Found(dataclasses.replace(SYSTEM, plan=lambda config, context: [part(contradicting, part="first")]), TOY)
    for _ in range(2):  # nothing was written that a second run would take for done
        with pytest.raises(DataError, match=r'recorded 1 numbers .* "part": "cost"'):
            execute(found, preset="smoke", seeds=(0,), workdir=tmp_path)
