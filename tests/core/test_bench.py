import math
import os
import re
import time

import pytest

from core import bench
from core.bench import BenchResult, Load, LoadMeter, Timing, beside, peer_module, require_agreement
from core.errors import RelicError


def test_a_peer_is_imported_and_a_missing_one_is_named_with_the_remedy():
    assert peer_module("math") is math
    with pytest.raises(RelicError, match=r"needs no_such_peer.*make peers"):
        peer_module("no_such_peer")


def test_what_the_first_call_takes_longer_is_compilation_and_seconds_are_per_step():
    naps = iter([0.3, *[0.02] * 5])

    def ours():
        time.sleep(next(naps))

    found = beside("a nap", ours, "a longer one", lambda: time.sleep(0.08), steps=2, repeats=5)
    assert 0.2 < found.compile_s < 1
    assert 0.01 <= found.ours_s < found.peer_s
    assert 0.04 <= found.peer_s < 0.08
    assert found.ratio == pytest.approx(found.peer_s / found.ours_s)
    assert 0 <= found.ours_spread < 2
    assert 0 <= found.peer_spread < 2


def test_a_timing_is_a_median_with_its_interquartile_range():
    timing = Timing.of([5.0, 1.0, 2.0, 4.0, 3.0])
    assert (timing.median, timing.iqr) == (3.0, 2.0)
    assert timing.spread == pytest.approx(2 / 3)
    assert (timing * 0.5).spread == timing.spread
    both = timing + Timing(1.0, 1.0)
    assert (both.median, both.iqr) == (4.0, 3.0)
    assert Timing.of([1.0, 2.0]).median == 1.5
    assert math.isnan(Timing.of([1.0, 2.0]).spread)
    result = BenchResult.of("toy", timing, "peer", Timing(6.0), 0.0)
    assert (result.ratio, result.ours_spread) == (2.0, timing.spread)
    assert math.isnan(result.peer_spread)


@pytest.mark.parametrize(
    ("before", "during", "busy"),
    [(0.0, 0.02, False), (0.3, 0.0, True), (0.0, 0.3, True), (math.nan, math.nan, False), (math.nan, 1.0, True)],
)
def test_a_machine_is_busy_where_others_took_a_twentieth_of_it_before_or_during_the_run(before, during, busy):
    assert Load(before, during, 4).is_busy is busy


def test_what_other_processes_take_is_what_all_take_less_our_own(monkeypatch):
    """In four seconds of the run all processes take 6 core seconds, 4 of them ours."""
    readings = iter([(0.0, 100.0, 1.0), (2.0, 100.8, 1.2), (6.0, 106.8, 5.2)])
    monkeypatch.setattr(bench, "_used", lambda: next(readings))
    load = LoadMeter(seconds=0).load()
    assert (load.before, load.during) == (pytest.approx(0.3), pytest.approx(0.5))
    assert re.search(r"kept 0.3 of \d+ cores busy before the run, 0.5 of \d+ cores busy during the run", load.words())


def test_core_seconds_of_all_processes_leave_out_idle_time_and_what_guests_count_twice(tmp_path):
    ticks = os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"
    stat.write_text(f"cpu  {ticks} {ticks} {ticks} 999999 999999 {ticks} {ticks} {ticks} 777 777\ncpu0 1 1\n")
    assert bench._all_processes(stat) == 6
    assert math.isnan(bench._all_processes(tmp_path / "absent"))


def test_without_counts_of_the_system_its_load_average_tells(monkeypatch):
    monkeypatch.setattr("os.getloadavg", lambda: (2.5, 0.0, 0.0), raising=False)
    begin, end = (0.0, math.nan, 0.0), (10.0, math.nan, 10.0)
    assert bench._by_others(begin, end) == pytest.approx(1.5)


@pytest.mark.parametrize("difference", [0.1, math.nan])
def test_sides_that_disagree_are_not_compared(difference):
    require_agreement(1e-5, 1e-4, "losses")
    with pytest.raises(RelicError, match="losses differ"):
        require_agreement(difference, 1e-4, "losses")
