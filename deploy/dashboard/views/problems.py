"""What is wrong with the service, worst first, each as a sentence."""

import time
from dataclasses import dataclass
from typing import Any

from deploy.dashboard.topics.reader import Reader
from deploy.dashboard.topics.recent import SPAN_S
from deploy.dashboard.topics.service import clock
from deploy.dashboard.topics.state import State

SETTLED_S = 15.0
"""Seconds that records may wait for a forecast, and a group may be without members."""
REFUSED, FEWEST = 0.03, 5
"""The share of records that may be refused, and how many are few in any case."""
MINUTES = SPAN_S // 60
CHECKPOINT_S = 900.0
"""Seconds after which a checkpoint is too old while records come."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What it is in a word, since when (epoch seconds, None if that is not known), and as a sentence."""

    what: str
    since: float | None
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """As the page has it: times in epoch milliseconds."""
        since = None if self.since is None else round(self.since * 1000)
        return {"what": self.what, "since": since, "sentence": self.sentence}


def problems(state: State, reader: Reader) -> list[Problem]:
    """All that is wrong now."""
    with state.lock:
        found = [_unreachable(reader), _nobody(state), _stuck(state)]
        if not reader.error and not any(reader.followed(kind).waiting for kind in ("input", "output")):
            found.append(_nothing_forecast(state))
        if not any(each is not None and each.what == "refused" for each in found):
            found.append(_refused(state))
        found.append(_old_checkpoint(state))
    return [each for each in found if each is not None]


def _unreachable(reader: Reader) -> Problem | None:
    if reader.error is None:
        return None
    return Problem("log", reader.failing_since, f"The log can't be read: {reader.error}")


def _nobody(state: State) -> Problem | None:
    since = state.service.nobody_since
    if since is None or time.time() - since < SETTLED_S:
        return None
    waiting = sum((state.service.lag or {}).values())
    records = f": {waiting:,} records wait" if waiting else ""
    return Problem("nobody", since, f"No service runs in the group {state.topics.group}{records}.")


def _stuck(state: State) -> Problem | None:
    found = state.service.stuck
    return None if found is None else Problem("stuck", *found)


def _nothing_forecast(state: State) -> Problem | None:
    """Records come, and no forecast: mostly as they are refused, or as series have too few values as yet."""
    service, made = state.service, "answered" if state.is_text else "forecast"
    found = service.recent.without("input", "output")
    if found is None or time.time() - found[0] < SETTLED_S:
        return None
    since, share = service.last_forecast, _share(state)
    when = f"since {clock(since)}" if since else "meanwhile"
    waiting = sum((service.lag or {}).values())
    why = share or (f"{waiting:,} wait" if waiting else "none is refused; series may still have too few values")
    sentence = f"{found[1]:,} records came in the last {MINUTES} minutes, but nothing was {made} {when}: {why}."
    return Problem("refused" if share else "nothing", since or found[0], sentence)


def _share(state: State) -> str | None:
    """What share of the newest records is refused, and mostly why; None if none is."""
    reasons = state.service.refused.counts
    letters, records = reasons.total(), state.service.recent.counts["input"]
    if not letters:
        return None
    most, count = reasons.most_common(1)[0]
    share = min(1.0, letters / max(records, 1))
    mostly = "all" if count == letters else f"{count / letters:.0%} of those"
    return f"{share:.0%} of them are refused, {mostly} as {most}"


def _refused(state: State) -> Problem | None:
    letters, records = state.service.refused.counts.total(), state.service.recent.counts["input"]
    if letters < FEWEST or letters < REFUSED * records or (share := _share(state)) is None:
        return None
    return Problem("refused", None, f"{records:,} records came in the last {MINUTES} minutes: {share}.")


def _old_checkpoint(state: State) -> Problem | None:
    """A checkpoint that is old though records have been committed since."""
    service, now = state.service, time.time()
    old = [
        (ts / 1000, number)
        for number, (ts, position) in state.checkpoints.items()
        if number in service.committed
        and service.committed[number].offset > position
        and 0 <= ts / 1000 < now - CHECKPOINT_S
    ]
    if not old or not service.recent.counts["output"]:
        return None
    ts, number = min(old)
    of = f"Partition {number}" if len(old) == 1 else f"{len(old)} partitions, such as {number},"
    verb = "has" if len(old) == 1 else "have"
    return Problem("checkpoint", ts, f"{of} {verb} had no checkpoint since {clock(ts)}: a restart replays all since.")
