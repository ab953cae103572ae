"""Failpoints: what the variable may say, and that a step acts once, at its time."""

import pytest

from pipeline.failpoint import STEPS, Failpoint, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Failpoint()),
        ("flushed", Failpoint("flushed", 1, "kill")),
        ("flushed:3", Failpoint("flushed", 3, "kill")),
        ("pass-sent:2:hold=1.5", Failpoint("pass-sent", 2, "hold=1.5")),
    ],
)
def test_valid_failpoints_are_parsed(text: str, expected: Failpoint) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize("text", ["asleep", "flushed:x", "flushed:1:explode", "flushed:1:kill:2", "flushed:1:hold=x"])
def test_invalid_failpoints_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="TIDECAST_FAILPOINT"):
        parse(text)


def test_a_failpoint_acts_once_at_its_step() -> None:
    armed = parse("flushed:2:fail")
    for step in (*STEPS, *STEPS[: STEPS.index("flushed")]):
        armed.reached(step)
    with pytest.raises(RuntimeError, match="flushed"):
        armed.reached("flushed")
    armed.reached("flushed")
