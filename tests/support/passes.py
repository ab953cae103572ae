"""Checkpoints in one go."""

from collections.abc import Mapping

from pipeline.log import Consumer, Producer
from pipeline.state.checkpoint import PART_BYTES, CheckpointPass, Pass


def write_pass(
    producer: Producer, consumer: Consumer, state_topic: str, passes: Mapping[int, Pass], size: int = PART_BYTES
) -> None:
    """Write a whole pass at once, and commit each `record.position` with it."""
    begun = CheckpointPass(producer, state_topic, passes, size)
    begun.write()
    begun.commit({number: each.record.position for number, each in passes.items()}, consumer)
