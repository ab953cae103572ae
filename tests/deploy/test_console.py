"""What is shown while something goes on: shares of one total."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.console import progress
from deploy.training.registration import training_progress
from model.training.loop import Epoch


def test_a_total_given_with_the_first_report_is_that_of_every_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "deploy")
    with progress("read power") as report:
        for done in range(0, 1001, 10):
            report(done, total=1000)
    assert caplog.messages == [f"read power: {done:,} of 1,000" for done in (200, 400, 600, 800, 1000)]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(51, 99)), min_size=1, max_size=20))
def test_a_training_s_share_is_in_percent_whatever_its_steps_turn_out_to_be(steps: list[tuple[int, int]]) -> None:
    """Members end early, so the total of steps falls; the share never exceeds a whole."""
    caught: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: caught.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("deploy.console")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with training_progress(lambda epoch: f"loss {epoch.validation_loss}") as on_step:
            for done, total in sorted(steps):
                on_step(done, total, [])
            on_step(100, 100, [Epoch(number=1, train_loss=1, validation_loss=2, seconds=0)])
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    shares = [int(message.removeprefix("train: ").partition("%")[0]) for message in caught]
    assert shares == sorted(shares)
    assert caught[-1] == "train: 100%, epoch 1: loss 2"


def test_of_networks_trained_side_by_side_the_best_epoch_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "deploy")
    losses = (("segment-1", 3.0), ("segment-1", 1.0), ("segment-2", 2.0))
    history = [Epoch(number=1, train_loss=1, validation_loss=loss, seconds=0, member=name) for name, loss in losses]
    with training_progress(lambda epoch: f"loss {epoch.validation_loss}") as on_step:
        on_step(1, 2, history)
    assert caplog.messages == ["train: 50%, 3 epochs of 2 networks, best loss 1.0"]
