"""Retraining on a schedule, as a process."""

import signal
import subprocess
from collections.abc import Callable

import pytest


@pytest.mark.slow
def test_two_signals_at_once_end_a_schedule_as_one_does(start_tidecast: Callable[..., "subprocess.Popen[str]"]) -> None:
    """As of a supervisor that signals a process and its group."""
    process = start_tidecast("schedule", "--topic", "t", "--name", "m", "--every", "1d")
    assert process.stderr is not None
    for line in process.stderr:
        if "next at" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert (process.returncode, said) == (0, "")
