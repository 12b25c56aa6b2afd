"""What takes long is foretold once, from its first parts; of what is short nothing is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ddplug.distillation.loop import distill
from ddplug.testing import toy_images
from ddplug.utils.forecast import Forecast, Parts, forecasting, parts
from ddplug.utils.progress import progress


class Clock:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def ticking(self, seconds: float) -> Callable[[], float]:
        """Give a clock that moves each time it is asked."""

        def ask() -> float:
            self.now += seconds
            return self.now

        return ask


def counted(*seconds: float, work: float = 100, **options: Any) -> list[float]:
    """Do parts that take so long, of a hundred."""
    clock, told = Clock(), list[float]()
    some = Parts(work, told.append, clock=clock, **options)
    for took in seconds:
        clock.now += took
        some.done()
    return told


def test_it_is_told_once_and_as_soon_as_it_can_be_known() -> None:
    assert counted(4.5, 4.5, 4.5) == [450]
    # the first one warms up: two seconds of others are waited for
    assert counted(1.9, 1, 1, 1) == [pytest.approx(1.9 + 99)]
    assert counted(1.9, 1) == []


def test_what_came_before_counts() -> None:
    assert counted(2.0, work=10, began=-50.0) == [70.0]
    assert counted(2.0, work=10, began=-30.0) == []


@pytest.mark.parametrize("seconds", [[0.5] * 99, [0.55] * 90 + [4.0] * 5])
def test_of_what_is_short_or_nearly_done_nothing_is_said(seconds: list[float]) -> None:
    assert counted(*seconds) == []


def test_parts_may_differ_in_what_they_cost() -> None:
    clock, told = Clock(), list[float]()
    some = Parts(100, told.append, clock=clock)
    clock.now = 3.0
    some.done(4)
    assert told == [75.0]


def test_shares_of_a_part_are_no_more_than_the_part() -> None:
    clock, told = Clock(), list[tuple[str, float]]()
    forecast = Forecast(lambda part, seconds: told.append((part, seconds)), clock=clock)
    with forecasting(forecast), parts(100, "baselines") as done:
        with parts(2, "trials", counted=True) as tried:
            for _ in range(3):  # one more than usual
                clock.now += 0.6
                tried()
        done()
        with parts(2, "trials", counted=True) as tried:
            clock.now += 0.9
            tried()
    # the first half warms up; half a part took 0.6 + 0.6, the next half 0.9, and 98.5 are left
    ((what, seconds),) = told
    assert what == "baselines" and seconds == pytest.approx(2.7 + 98.5 * 2.1)


def test_a_preparation_is_watched_but_not_what_is_within_its_parts() -> None:
    clock, told = Clock(), list[tuple[str, float]]()
    with forecasting(Forecast(lambda part, seconds: told.append((part, seconds)), clock=clock)):
        for _ in progress(range(20), "networks"):
            for _ in progress(range(80), "epochs"):
                clock.now += 0.125
        for _ in progress(range(30), "classes"):
            clock.now += 5.0
    assert told == [("networks", 200.0), ("classes", 150.0)]
    for _ in progress(range(20), "networks"):
        clock.now += 10.0
    assert len(told) == 2


def test_a_run_tells_of_its_preparation_and_of_all() -> None:
    told: list[tuple[str, float]] = []
    forecast = Forecast(lambda part, seconds: told.append((part, seconds)), clock=Clock().ticking(1.0))
    options: dict[str, Any] = {"network": "mlp:width=2", "device": "cpu", "images_per_class": 1, "factor": 1}
    distill(toy_images(), "dm", steps=100, pool_size=70, callbacks=[forecast], **options)
    (part, prepared), (whole, seconds) = told
    assert (part, prepared) == ("pool", 70.0)
    assert whole == ""
    assert 100 <= seconds < 120  # nobody looks at the clock where all is told, so it stands but for a few looks
