"""Topics that are deleted, made anew, or given other limits while a service uses them."""

import contextlib
import time
from collections.abc import Iterator

from faults import BOTH, Figure, fault
from grades import ungraded
from kafka import KafkaProducer
from kafka.admin import ConfigResource
from load import MINUTE, PARTITIONS, RECORDS, START, Load, row, rows
from oracle import Expected, History, read
from service import Unexpected
from world import World

from pipeline.log import Record
from tidecast.errors import UnknownTopic

HALF = RECORDS // 2
AUXILIARY = ("output", "letters", "late", "topic")
DAY = 86_400_000
LONG = "a-series-with-a-long-name-" * 4


@fault(
    "a topic deleted while it is served: output, dead letters, late, input; under load and silent",
    "ends with 78 and the way out in 30 s; goes on after a restart, but for the input",
    BOTH,
    cases=[(which, load) for which in AUXILIARY for load in ("load", "silence")],
    result=False,
)
def topic_deleted(world: World, case: tuple[str, str]) -> Figure:
    which, load = case
    late = f"{world.topic}-late"
    topic = late if which == "late" else getattr(world, which)
    service = world.serve("a", "--late-topic", late, supervised=False)
    world.load.send(HALF)
    world.until_drained()
    with world.sending(at_least=0) if load == "load" and which != "topic" else contextlib.nullcontext():
        world.admin.delete_topics([topic])
        began = time.monotonic()
        service.wait_for_exit()
        ended = time.monotonic() - began
    said = f"topic {topic} was deleted while this service used it"
    if service.codes != [78] or said not in service.stderr:
        raise Unexpected(f"it ended with {service.codes}: {service.stderr}")
    if world.log.identities([topic]):
        raise Unexpected(f"{topic} was created again by one who used it")
    world.services.remove(service)
    if which != "topic":
        world.serve("a", "--late-topic", late)
        world.load.send(HALF)
        world.until_drained()
    return Figure("ended", ended, 30)


@fault(
    "the state topic deleted while it is served, or made anew",
    "the windows in memory are written again as a whole: outputs equal after a kill",
    BOTH,
    cases=("deleted", "made anew"),
)
def state_deleted(world: World, how: str) -> Figure:
    service = world.serve()
    with world.sending():
        world.until(lambda: world.members() == 1, "not all workers joined")
        world.wait(3 * (world.workers > 1))  # one that takes a partition over finds no state of it, and says so
        world.until(lambda: len(world.positions()) == PARTITIONS, "not all partitions began")
        before = world.log.topic_id(world.state)
        world.admin.delete_topics([world.state])
        if how == "made anew":
            world.until(lambda: not world.log.identities([world.state]), "it was not deleted")
            world.log.create_topic(world.state, PARTITIONS, compacted=True)

        def written_again() -> bool:
            with contextlib.suppress(UnknownTopic):  # the brokers learn of it one after another
                if world.log.topic_id(world.state) != before:
                    return all(read(world.log, world.state).values())
            return False

        seconds = world.until(written_again, "no whole checkpoint", 60)
        world.wait(1)
        service.kill()
        world.until_commit()
    return Figure("written again", seconds, 30)


@fault(
    "records whose forecasts the broker refuses: for their time, for their size",
    "written with the present time, or dead letters; all others each once, 0 restarts",
    BOTH,
    cases=("time", "size"),
)
def refused_by_the_broker(world: World, what: str) -> Figure:
    service = world.serve()
    world.load.send(HALF)
    world.until_drained()
    limit = {"message.timestamp.before.max.ms": str(DAY)}
    if what == "size":
        limit = {"max.message.bytes": str(size_of(read(world.log, world.output)[0][0]) + len(LONG))}
    world.admin.alter_configs([ConfigResource("topic", world.output, limit)])
    old = contextlib.closing(KafkaProducer(bootstrap_servers=world.bootstrap.split(","), acks="all"))
    poison = historic() if what == "time" else long_named()
    with old as producer, contextlib.closing(Load(world.bootstrap, world.topic, rows(6))) as between:
        for partition, key, value, timestamp in poison:
            producer.send(world.topic, value, key, partition=partition, timestamp_ms=timestamp)
            between.send(1)
        producer.flush()
    world.load.send(HALF // 2 if what == "time" else 500)  # each in a batch of its own, once the limit is so small
    world.until_drained()
    history = read(world.log, world.topic)
    world.expected = world.oracle.expected_output(history)
    allow_present_times(world, world.expected, history) if what == "time" else expect_letters(world, world.expected)
    return Figure("restarts", len(service.codes), 0, "")


def size_of(record: Record) -> int:
    """About what a record takes in a batch of its own."""
    headers = sum(len(name) + len(content or b"") + 2 for name, content in record.headers)
    return 61 + 16 + len(record.key or b"") + len(record.value or b"") + headers


def historic() -> Iterator[tuple[int, bytes, bytes, int]]:
    """Records of years ago, whose times are those of their events."""
    for step in range(100):
        for series in (7000, 7001):
            yield (*row(series, step, float(step)), START + step * MINUTE)


def long_named() -> Iterator[tuple[int, bytes, bytes, int | None]]:
    for step in range(24):
        name = f"{LONG}{step % 2}"
        body = b'{"series":"%b","ts":%d,"value":%d}' % (name.encode(), START + step // 2 * MINUTE, step)
        yield step % 2, name.encode(), body, None


def allow_present_times(world: World, expected: Expected, history: History) -> None:
    """Let forecasts of years ago have another time: that of their arrival."""
    old = {(each.partition, each.timestamp) for records in history.values() for each in records if is_old(each)}
    written = {
        (each.partition, ungraded(each.value or b"")): each.timestamp
        for records in read(world.log, world.output).values()
        for each in records
        if not is_old(each)
    }
    for identity, (value, timestamp) in list(expected.forecasts.items()):
        if (identity[0], timestamp) in old and (identity[0], value) in written:
            expected.forecasts[identity] = value, written[identity[0], value]


def is_old(record: Record) -> bool:
    return record.timestamp < START + 1000 * MINUTE


def expect_letters(world: World, expected: Expected) -> None:
    """Expect a dead letter in place of each forecast of a long-named series."""
    offsets = {
        (record.partition, record.key, record.value): record
        for records in read(world.log, world.topic).values()
        for record in records
        if (record.key or b"").startswith(LONG.encode())
    }
    steps = {(record.partition, (record.key or b"").decode()): [] for record in offsets.values()}  # type: ignore[var-annotated]
    for record in offsets.values():
        steps[record.partition, (record.key or b"").decode()].append(record)
    for identity in [identity for identity in expected.forecasts if identity[1].startswith(LONG)]:
        partition, series, ts = identity
        (cause,) = (each for each in steps[partition, series] if b'"ts":%d,' % ts in (each.value or b""))
        expected.letters.add((cause.topic, cause.partition, cause.offset))
        del expected.forecasts[identity]
