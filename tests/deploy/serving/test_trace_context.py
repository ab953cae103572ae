"""A trace goes on from a record to its forecast, whatever else the record's headers are."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from waiting import Idle

from deploy.models.loading import load_onnx
from deploy.operations.explain import recompute_forecast
from deploy.serving.loop import Service
from deploy.serving.tasks import task_for
from deploy.settings.serve import Guarantee, ServeConfig
from pipeline.formats.events import Event, encode
from pipeline.log import EventLog
from pipeline.log.connect import connect

START, HOUR = 1_700_002_800_000, 3_600_000


def headers_of(log: EventLog, topic: str) -> list[dict[str, bytes]]:
    """Of each record; none has a name twice."""
    start, end = log.bounds(topic)[0]
    found = []
    for record in itertools.chain.from_iterable(log.read(topic, 0, start, end)):
        found.append(dict(record.headers))
        assert len(found[-1]) == len(record.headers)
    return found


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_a_trace_goes_on_to_the_forecast_that_its_record_completed(
    log: EventLog, log_address: str, guarantee: Guarantee, own_model: Path, fresh: Callable[[str], str]
) -> None:
    topic, many = fresh("traced"), [(f"h{number}", b"x") for number in range(98)]
    config = ServeConfig(topic=topic, group=topic, instance="a", guarantee=guarantee).with_outputs(
        "forecasts", shadow=False
    )
    log.create_topic(topic, 1)
    with closing(log.producer()) as producer:
        for hour in range(14):
            value = encode(Event("pump", START + hour * HOUR, (float(hour % 5),)))
            trace = [("traceparent", b"00-%032d-%016d-01" % (hour, hour)), ("tracestate", b"vendor=%d" % hour)]
            headers: Sequence[tuple[str, bytes]] = [*many, *trace] if hour != 12 else []
            producer.send(topic, 0, b"pump", value, timestamp=START + hour * HOUR, headers=headers)
        producer.send(topic, 0, b"pump", b"no event", timestamp=START, headers=[("traceparent", b"of-the-letter")])
        producer.flush()
    predictor = load_onnx(own_model, "tiny/2", "cpu")
    with closing(connect(log_address)) as served:
        service = Service(served, predictor, task_for(predictor, config), config)
        service.run(Idle(lambda: service.stats.taken))
    first, without, last = headers_of(log, config.output)
    assert first["traceparent"] == b"00-%032d-%016d-01" % (11, 11)
    assert (last["traceparent"], last["tracestate"]) == (b"00-%032d-%016d-01" % (13, 13), b"vendor=13")
    assert "traceparent" not in without
    assert "h1" not in first
    explained = recompute_forecast(log, config.output, 0, log.bounds(config.output)[0].start, str(own_model), "", None)
    assert (explained.same, explained.headers["traceparent"].encode()) == (True, first["traceparent"])
    assert headers_of(log, config.dead_letters)[0]["traceparent"] == b"of-the-letter"
