"""A signal that asks a process to stop is answered, also where it comes while a module is imported."""

import importlib
import signal
import sys
import threading
import time

import pytest

from core.stopping import handled, stop_signals

SWALLOWS = """
import os, signal, time
try:  # as libraries try for optional parts
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
except BaseException:
    pass
"""


@pytest.fixture
def careless(tmp_path, monkeypatch):
    """The name of a module that is interrupted while it is imported, and goes on."""
    (tmp_path / "careless_module.py").write_text(SWALLOWS)
    monkeypatch.syspath_prepend(tmp_path)
    yield "careless_module"
    sys.modules.pop("careless_module", None)


def stop(number, frame):
    raise KeyboardInterrupt(number)


def test_an_interrupt_during_an_import_is_raised_after_it(careless):
    def work():
        with handled(signal.SIGINT, by=stop):
            importlib.import_module(careless)
            time.sleep(5)

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        work()
    assert time.monotonic() - start < 3


def test_an_interrupt_during_an_import_may_be_answered_at_once(careless):
    answers = []
    with handled(signal.SIGINT, by=stop, importing=lambda number, frame: answers.append(number)):
        importlib.import_module(careless)
    assert answers == [signal.SIGINT]


def test_handlers_are_as_before_afterwards_and_other_threads_change_none():
    before = [signal.getsignal(number) for number in stop_signals()]
    with handled(*stop_signals(), by=stop), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in stop_signals()] == before
    found = []

    def work():
        with handled(signal.SIGTERM, by=stop):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]
