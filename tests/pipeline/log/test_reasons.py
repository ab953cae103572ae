"""The client's errors as sentences."""

from collections.abc import Callable
from contextlib import closing

import pytest
from kafka import errors

from pipeline.log.connect import connect
from pipeline.log.kafka.client import meaning
from pipeline.log.kafka.reasons import REASONS
from tidecast.errors import LogError, LogUnavailable, UnknownTopic


@pytest.mark.parametrize("kind", [kind for kind, _ in REASONS])
def test_an_error_is_a_sentence_with_the_client_s_name_for_it(kind: type[Exception]) -> None:
    said = str(meaning(kind(), "reading power"))
    assert said.startswith("reading power: ")
    assert said.endswith(f" ({kind.__name__})")
    assert "[Error" not in said


def test_an_error_that_nobody_described_is_told_as_it_is() -> None:
    assert "CorruptRecordError: bad bytes" in str(meaning(errors.CorruptRecordError("bad bytes"), "reading power"))


def test_its_kind_is_as_before() -> None:
    assert type(meaning(errors.UnknownTopicOrPartitionError(), "")) is UnknownTopic
    assert type(meaning(errors.OffsetOutOfRangeError(), "")) is LogUnavailable
    assert type(meaning(errors.MessageSizeTooLargeError(), "")) is LogError


def test_records_that_are_gone_are_told_so(kafka_bootstrap: str, fresh: Callable[[str], str]) -> None:
    topic = fresh("gone")
    with closing(connect(kafka_bootstrap)) as log:
        log.create_topic(topic, 1)
        with pytest.raises(LogError, match=r"the records at this position are gone: .* \(OffsetOutOfRangeError"):
            list(log.read(topic, 0, 5, 9))
