"""Changed topics, offsets, checkpoints and clocks."""

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterable, Iterator

import msgspec
from faults import BOTH, Figure, fault
from kafka import KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata
from load import PARTITIONS, RECORDS, SERIES, Load, Row, row, rows
from oracle import History, Oracle, ResetSeries, read
from service import ROOT, Unexpected
from world import World

from model.artifacts.registry import Registry
from model.artifacts.versions import MODEL_FILE
from pipeline.log.kafka.client import metadata_text
from pipeline.state.records import PARTITION_KEY, SERIES_PREFIX, decode_metadata
from tidecast.errors import UnknownTopic

HALF = RECORDS // 2
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
SLEEP = "import select, time; time.sleep = lambda seconds: select.select([], [], [], seconds) and None"
"""Python's own sleep fails under libfaketime, which takes its monotonic deadline for a moment of the faked clock."""
CLOCK = """
import time
now, now_ns = time.time, time.time_ns
time.time, time.time_ns = lambda: now() + {0} * 86400, lambda: now_ns() + {0} * 86400 * 10**9
"""
"""Python's clock alone: libfaketime does not know how librdkafka waits, which then waits for a day or not at all."""
LIMIT = 5_000


def first_half(world: World, records: int = HALF) -> None:
    """Run a service until the topic is read, and stop it gracefully."""
    service = world.serve()
    world.load.send(records)
    world.until_drained()
    service.terminate()
    service.wait_for_exit()


def refused(world: World, way_out: str) -> None:
    """The next start must exit with 78, and say what to do."""
    service = world.serve("a", supervised=False)
    if (code := service.wait_for_exit()) != 78 or way_out not in service.stderr:
        raise Unexpected(f"it ended with {code}: {service.stderr}")


@fault("partition count changed while down", "refused, with what to do: 78", result=False)
def more_partitions(world: World) -> None:
    first_half(world)
    world.admin.create_partitions({world.topic: PARTITIONS + 1})
    world.until(lambda: world.log.partitions(world.topic) > PARTITIONS, "no partition was added")
    refused(world, "")


@fault("topic replaced while down", "refused, with what to do: 78", result=False)
def replaced_topic(world: World) -> None:
    first_half(world)
    before = world.log.topic_id(world.topic)
    world.admin.delete_topics([world.topic])

    def made_again() -> bool:
        try:
            world.log.create_topic(world.topic, PARTITIONS)
            return world.log.topic_id(world.topic) != before
        except UnknownTopic:  # one broker knows of its end, another one does not yet
            return False

    world.until(made_again, "it was not made again")
    refused(world, "Use another group")


@fault("committed offset no longer in the log", "refused, with what to do: 78", result=False)
def committed_gone(world: World) -> None:
    first_half(world)
    world.load.send(HALF // 2)
    world.delete_before(nearly_all(world))
    refused(world, "--on-lost earliest")


@fault("the same, with --on-lost earliest", "logs what it skips, and continues from the earliest", BOTH)
def goes_on_from_earliest(world: World) -> None:
    first_half(world)
    committed = {partition: where.offset for partition, where in world.positions().items()}
    world.load.send(HALF // 2)
    gone, history = nearly_all(world), read(world.log, world.topic)
    world.delete_before(gone)
    service = world.serve("a", "--on-lost", "earliest")
    world.until_drained()
    if service.stderr.count("were deleted before they were read") != PARTITIONS:
        raise Unexpected(f"that is not logged: {service.stderr}")
    kept = {
        partition: [each for each in records if not committed[partition] <= each.offset < gone[partition]]
        for partition, records in history.items()
    }
    world.load.send(HALF // 2)
    world.expected = world.oracle.expected_output(joined(kept, read(world.log, world.topic)))


def nearly_all(world: World) -> dict[int, int]:
    """Offsets near the end of each partition."""
    return {partition: end - 100 for partition, (_, end) in world.log.bounds(world.topic).items()}


def joined(before: History, after: History) -> History:
    """Records read before a deletion, followed by later ones."""
    return {
        partition: [*records, *(each for each in after[partition] if each.offset > records[-1].offset)]
        for partition, records in before.items()
    }


@fault(
    "a checkpoint record corrupt, each kind of byte",
    "that series starts empty, counted and logged; the others' outputs equal",
    BOTH,
)
def corrupt_checkpoint(world: World) -> None:
    first_half(world)
    reset = {partition: corrupted(world, partition) for partition in range(PARTITIONS)}
    service = world.serve()
    world.load.send(HALF)
    world.until_drained()
    if any(f"{len(each.series)} series start with empty windows" not in service.stderr for each in reset.values()):
        raise Unexpected(f"that is not logged: {service.stderr}")
    world.expected = world.oracle.expected_output(read(world.log, world.topic), reset)


def corrupted(world: World, partition: int) -> ResetSeries:
    """Flip a bit in the states of a partition's first series, at a different position in each."""
    newest = {record.key or b"": record.value or b"" for record in read(world.log, world.state)[partition]}
    states = sorted((key, value) for key, value in newest.items() if key.startswith(SERIES_PREFIX))
    flipped = [(key, flip(value, place)) for (key, value), place in zip(states, places(states[0][1]), strict=False)]
    flipped.append((states[-1][0], states[-2][1]))  # whole, under another one's key
    overwrite(world, partition, flipped)
    names = [key.removeprefix(SERIES_PREFIX).decode() for key, _ in flipped]
    return ResetSeries(world.positions()[partition].offset, names)


def overwrite(world: World, partition: int, states: Iterable[tuple[bytes, bytes]]) -> None:
    """Write directly to the state topic."""
    with contextlib.closing(KafkaProducer(bootstrap_servers=world.bootstrap.split(","))) as producer:
        for key, value in states:
            producer.send(world.state, value, key, partition=partition)
        producer.flush()


def places(record: bytes) -> tuple[int, ...]:
    """One in each part of a series' record: format, array, config, step, time, values, marks, checksum."""
    config, *_ = msgspec.msgpack.decode(record[1:-4])
    step = 2 + 2 + len(config)
    return (0, 1, 4, step + 1, step + 7, len(record) // 2, len(record) - 5, len(record) - 1)


def flip(record: bytes, place: int) -> bytes:
    return record[:place] + bytes((record[place] ^ 1,)) + record[place + 1 :]


@fault(
    "a partition's checkpoint record corrupt, or its commit's metadata",
    "each is recovered from the other, which is logged; outputs equal",
    cases=("record", "metadata"),
)
def one_position_corrupt(world: World, which: str) -> None:
    first_half(world)
    (corrupt_record if which == "record" else corrupt_metadata)(world)
    service = world.serve()
    world.load.send(HALF)
    world.until_drained()
    if f"{which} is corrupt" not in service.stderr:
        raise Unexpected(f"that is not logged: {service.stderr}")


@fault("both of them corrupt", "refused, with what to do: 78", result=False)
def both_positions_corrupt(world: World) -> None:
    first_half(world)
    corrupt_record(world)
    corrupt_metadata(world)
    refused(world, "Use another group")


def corrupt_record(world: World) -> None:
    newest = {record.key: record.value or b"" for record in read(world.log, world.state)[0]}
    overwrite(world, 0, [(PARTITION_KEY, flip(newest[PARTITION_KEY], 8))])


def corrupt_metadata(world: World) -> None:
    where = world.positions()[0]
    changed = OffsetAndMetadata(where.offset, metadata_text(where.metadata)[:-1] + "x", -1)
    world.admin.alter_group_offsets(world.group, {TopicPartition(world.topic, 0): changed})


@fault(
    "retention shorter than the look-back; one series a thousand times slower",
    "checkpoint and tail: outputs equal after restarts",
    BOTH,
)
def short_retention(world: World) -> None:
    source = with_a_slow_one()
    history: History = {partition: [] for partition in range(PARTITIONS)}
    with contextlib.closing(Load(world.bootstrap, world.topic, source)) as load:
        for _ in range(10):
            service = world.serve("a", "--static")
            load.send(RECORDS // 10)
            world.until_drained()
            service.terminate()
            service.wait_for_exit()
            service = world.serve("a", "--static", supervised=False)
            load.send(RECORDS // 10)
            world.until_commit()
            service.kill()
            history = {p: [*history[p], *new] for p, new in newer(world, history).items()}
            world.delete_before({p: decode_metadata(at.metadata) or 0 for p, at in world.positions().items()})
    service = world.serve("a", "--static")
    world.until(lambda: "takes over" in service.stderr, "it does not join")
    world.expected = world.oracle.expected_output(history)


def with_a_slow_one() -> Iterator[Row]:
    """Each thousandth record is one of a series that so comes to a window in the whole load only."""
    for number, each in enumerate(rows()):
        if number % 1000 == 0:
            yield row(PARTITIONS * SERIES, number // 1000, float(number))
        yield each


def newer(world: World, history: History) -> History:
    """Records that were written since."""
    ends = {partition: records[-1].offset if records else -1 for partition, records in history.items()}
    found = read(world.log, world.topic)
    return {
        partition: [each for each in records if each.offset > ends[partition]] for partition, records in found.items()
    }


@fault(
    "machine clock a day ahead, and a day behind",
    "event time and record timestamps only: outputs equal",
    BOTH,
    cases=("+1d", "-1d"),
    needs="faketime",
)
def wrong_clock(world: World, offset: str) -> None:
    clock = {"LD_PRELOAD": FAKETIME, "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    if os.environ["TIDECAST_KAFKA_CLIENT"] == "librdkafka":
        (world.folder / "sitecustomize.py").write_text(CLOCK.format(1 if offset == "+1d" else -1))
        clock = {}
    else:
        (world.folder / "sitecustomize.py").write_text(SLEEP)
    service = world.serve(environment={**clock, "PYTHONPATH": f"{ROOT}:{world.folder}"})
    with world.sending(rate=500):
        world.until_commit()
        service.kill()
        world.until_commit()


@fault(
    "a million series",
    f"new ones above the cap of {LIMIT:,} a partition become dead letters; memory bounded",
    alone=True,
)
def million_series(world: World) -> Figure:
    service = world.serve("a", "--series-limit", str(LIMIT))
    world.load.send(HALF)
    world.until_drained()
    usual = service.peak()
    new = (row(number, 0, 1.0) for number in itertools.count(SERIES))
    with contextlib.closing(Load(world.bootstrap, world.topic, new)) as load:
        load.send(1_000_000)
    world.load.send(HALF)
    world.until_drained(600)
    peak = service.peak()
    world.expected = world.oracle.expected_output(read(world.log, world.topic), limit=LIMIT)
    return Figure("more memory", peak - usual, 150, "MiB")


@fault(
    "the cached model cut short, or a bit of it flipped",
    "digest mismatch: downloaded again, the right one serves",
    cases=("cut", "flipped"),
)
def bad_cache(world: World, how: str) -> None:
    registered(world)
    first_half(world)
    (cached,) = world.folder.glob(".tidecast/models/*.onnx")
    data = cached.read_bytes()
    cached.write_bytes(data[: len(data) // 2] if how == "cut" else flip(data, len(data) // 2))
    world.serve()
    world.load.send(HALF)
    world.until_drained()
    if cached.read_bytes() != data:
        raise Unexpected("the cache is as bad as it was")


def registered(world: World) -> None:
    """Serve the model from a registry, in the folder where services look for one."""
    run = world.folder / "run"
    run.mkdir()
    shutil.copy(world.model, run / MODEL_FILE)
    registry = Registry(f"sqlite:///{world.folder / '.tidecast' / 'mlflow.db'}")
    with registry.run("tiny") as training:
        version = registry.register("tiny", training, run, tags={})
    world.model, world.oracle = version.label, Oracle(run / MODEL_FILE, version.label)
