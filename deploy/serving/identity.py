"""Who a service is: its instance's name among the members of a group, and the model that the group serves."""

import re
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from deploy.models.predictor import Predictor
from deploy.settings.locations import home, writable
from deploy.settings.serve import ServeConfig
from model.card import Card
from pipeline.log import Bounds, EventLog
from pipeline.state.records import PARTITION_KEY, decode_partition
from pipeline.windows.batch import Section, Sections
from tidecast.errors import ConsumerFenced, CorruptState, LogError, StateMismatch

SECTION = "model"
"""The section of a partition's record that holds its group's model."""
VERSION = 1
LOOKED_AT, LAST_RECORDS = 16, 4
"""Most partitions of others that are looked at for their model, and how many of each one's newest records."""


@contextmanager
def instance_name(group: str) -> Iterator[str]:
    """A name that no other process has at the same time, whatever its host is called and its pid.

    Where a home folder is there it is kept in it, so that a restart fences the transaction that a kill left open.
    """
    with ExitStack() as stack:
        yield _kept_name(group, stack) or _new_name()


def _new_name() -> str:
    return f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}"


def _kept_name(group: str, stack: ExitStack) -> str | None:
    """The first of this group's names here that no living process has, until the stack is closed."""
    folder = home() / "instances"
    if not home().is_dir() or not writable(folder):
        return None
    for number in count():
        try:
            folder.mkdir(exist_ok=True)
            stack.enter_context(FileLock(folder / f"{group}-{number}.lock", timeout=0))
            return _read_or_write(folder / f"{group}-{number}")
        except Timeout:
            continue
        except (OSError, NotImplementedError):  # a file system without locks
            return None
    return None


def _read_or_write(path: Path) -> str:
    with suppress(FileNotFoundError):
        kept = path.read_text(errors="replace")
        if re.fullmatch(r"\S{1,100}-[0-9a-f]{12}", kept):
            return kept
    name = _new_name()
    path.write_text(name)
    return name


def fenced(error: ConsumerFenced, log: EventLog, config: ServeConfig) -> ConsumerFenced:
    """The same error, with who has taken over and what to do."""
    members = []
    with suppress(LogError):
        members = log.members(config.group)
    same = [member.host for member in members if member.name == config.instance]
    others = [f"{member.name} at {member.host}" for member in members if member.name != config.instance]
    own = "give each process an --instance of its own"
    if len(same) > 1 or (same and config.static):
        hosts = " and ".join(same)
        return ConsumerFenced(f"{error}: another process is called {config.instance} too, of those at {hosts}; {own}")
    if others:
        who = ", ".join(others)
        return ConsumerFenced(f"{error}: {who} took over, after this one was silent for too long; restart it")
    return ConsumerFenced(f"{error}: another process took over; restart this one, and if both are to run, {own}")


class Family(msgspec.Struct, frozen=True):
    """What all versions of a model have in common: a group serves one family, as its windows are kept for it."""

    name: str
    """The model's name; empty for one without a card."""
    task: str
    forecast: str
    """What a forecast holds; empty for other tasks."""

    @classmethod
    def of(cls, predictor: Predictor) -> "Family":
        """That of a model."""
        card = predictor.card
        output = f"{card.output.horizon} steps of {', '.join(card.output.targets)}" if isinstance(card, Card) else ""
        return cls("" if card.arch == "foreign" else card.name, card.task, output)

    @property
    def section(self) -> Section:
        """It as a section of a partition's record."""
        return Section(VERSION, msgspec.json.encode(self))

    def __str__(self) -> str:
        return f"{self.name or 'a model without a card'} ({self.forecast or self.task})"

    def check(self, sections: Sections, group: str) -> None:
        """Raises StateMismatch if a partition's sections are those of another family."""
        section = sections.get(SECTION)
        if section is None or section.version != VERSION:
            return
        other = msgspec.json.decode(section.data, type=Family)
        renamed = self.name and other.name and self.name != other.name
        if renamed or (self.task, self.forecast) != (other.task, other.forecast):
            raise StateMismatch(
                f"group {group} serves {other}, and this is {self}: give it another --group; or reset this one: stop "
                f"its members, then delete the topic {group}-state and the group's offsets"
            )

    def check_others(self, log: EventLog, config: ServeConfig, own: Iterable[int]) -> None:
        """Raises StateMismatch if another member has written a checkpoint for another family."""
        bounds = log.bounds(config.state_topic)
        others = [number for number in bounds if number not in set(own)][:LOOKED_AT]
        newest = {
            each: Bounds(max(bounds[each].start, bounds[each].end - LAST_RECORDS), bounds[each].end) for each in others
        }
        for records in log.read_partitions(config.state_topic, newest):
            for record in records:
                if record.key == PARTITION_KEY and record.value is not None:
                    with suppress(CorruptState):
                        self.check(decode_partition(record.value).sections, config.group)
