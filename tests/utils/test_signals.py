"""Requests to stop: each signal as Ctrl-C, once, and not in the middle of a save."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from ddplug.utils.signals import saving, stoppable

pytestmark = pytest.mark.usefixtures("default_signals")

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_stops_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(KeyboardInterrupt), stoppable(passing_on=False) as stop:
        send(number)
    assert (stop.asked, stop.number, stop.name) == (True, number, number.name)
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_second_signal_changes_nothing() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), stoppable(passing_on=False):
        try:
            send(signal.SIGTERM)
        finally:
            for number in SIGNALS:
                send(number)
            done.append("put away")
    assert done == ["put away"]


def test_a_save_is_finished_first() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), stoppable(passing_on=False) as stop:
        with saving(), saving():
            send(signal.SIGHUP)
            done.append("saved")
        done.append("never")
    assert (done, stop.number) == (["saved"], signal.SIGHUP)


def test_what_somebody_handles_or_ignores_stays() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            send(signal.SIGTERM)
            send(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGHUP, ignored)
    assert heard == [signal.SIGTERM]


def test_elsewhere_nothing_changes() -> None:
    found = []

    def work() -> None:
        with stoppable(), saving():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]
    with stoppable(passing_on=False), stoppable() as inner:
        assert not inner.asked
