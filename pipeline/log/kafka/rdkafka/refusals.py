"""Which records of those that were not written the broker refuses, and which it would take."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.log import Refusal, Sent
from pipeline.log.kafka.rdkafka.config import is_untold, same_error

TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)
REFUSALS = (*TOO_LARGE, KafkaError.INVALID_TIMESTAMP, KafkaError.INVALID_RECORD)
"""Errors of a record itself, which any further attempt would meet again; all that share its batch may have them."""
FOLLOWING = (KafkaError._INVALID_DIFFERENT_RECORD, KafkaError._PURGE_QUEUE)
"""Errors of records that were not written because of another one, of the same batch or before it."""


class Given(Sent, frozen=True, gc=False):
    """A record that the client has, and calls if it can't write it."""

    number: int
    """Its place among those that were sent."""
    lost: "list[Lost]"

    def __call__(self, error: KafkaError, message: Message) -> None:
        """Be lost."""
        self.lost.append(Lost(self, error, message.partition()))


class Lost(NamedTuple):
    """A record that was not written, why, and in which partition."""

    given: Given
    error: KafkaError
    partition: int


def unmendable(lost: Sequence[Lost], *, in_transaction: bool) -> Lost | None:
    """The record for which all fails, if it is not for refusals alone: another one may be written yet.

    In a transaction that does not matter, as none of it will be.
    """
    others = [each for each in lost if each.error.code() not in (*REFUSALS, *FOLLOWING)]
    if any(each.error.code() in REFUSALS for each in lost) and (in_transaction or not others):
        return None
    return (others or lost)[0]


def refused(lost: Sequence[Lost], *, alone: bool) -> dict[int, KafkaError]:
    """Which records are refused, by number, and why; none if that is known only of whole batches.

    It is known of records that went `alone`, where the broker told the others of the batch from them, and where there
    are no others.
    """
    told = {(given.topic, partition) for given, error, partition in lost if error.code() == FOLLOWING[0]}
    failed = [each for each in lost if each.error.code() in REFUSALS]
    sizes = Counter((given.topic, partition) for given, _, partition in failed)

    def is_refused(given: Given, error: KafkaError, partition: int) -> bool:
        where = given.topic, partition
        return alone or (where in told and error.code() not in TOO_LARGE) or (where not in told and sizes[where] == 1)

    return {each.given.number: each.error for each in failed if is_refused(*each)}


def refusal(error: KafkaError) -> Refusal:
    """Why a record is refused."""
    same = same_error(error)
    why = ": ".join(filter(None, (type(same).__name__.removesuffix("Error"), *same.args)))
    return Refusal(why, error.code() in TOO_LARGE)


def transaction_error(client: Producer) -> KafkaException | None:
    """Why a transaction that is open can't go on; the client tells that to what is not allowed in one."""
    try:
        client.begin_transaction()
    except KafkaException as error:
        return None if is_untold(error) else error
    return None
