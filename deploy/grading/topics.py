"""Which topics lie beside a service's forecasts, and which one is meant where another is named."""

from typing import Literal

from pipeline.log import EventLog
from tidecast.errors import ConfigError, UnknownTopic

KINDS = ("scores", "alerts")


def topic_beside(log: EventLog, output: str, kind: Literal["scores", "alerts"]) -> str | None:
    """The topic of the scores or alerts of these forecasts; None where there is none.

    Raises UnknownTopic if there are no such forecasts either; ConfigError if `output` is another topic of a service,
    saying which one is meant.
    """
    wanted, of_events = f"{output}-{kind}", f"{output}-forecasts-{kind}"
    parts = {each: output.removesuffix(f"-{each}") for each in KINDS if output.endswith(f"-{each}")}
    known = log.identities([wanted, output, of_events, *parts.values()])
    if wanted in known:
        return wanted
    if of_events in known:
        raise ConfigError(f"{output} is a topic of events: give that of the forecasts, {output}-forecasts")
    if output not in known:
        raise UnknownTopic(f"there is no topic {output}: `tidecast serve` writes it")
    for each, forecasts in parts.items():
        if each == kind or forecasts in known:
            raise ConfigError(f"{output} is the topic of the {each}: give that of the forecasts, {forecasts}")
    return None
