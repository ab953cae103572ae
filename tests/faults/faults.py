"""The table of faults: what a row is, and how one is run."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from oracle import Verdict
from world import World

from deploy.settings.serve import Guarantee

EXACTLY_ONCE: tuple[Guarantee, ...] = ("exactly-once",)
BOTH: tuple[Guarantee, ...] = ("exactly-once", "at-least-once")


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value and its upper limit."""

    what: str
    value: float
    limit: float
    unit: str = "s"

    @property
    def ok(self) -> bool:
        return self.value <= self.limit

    def __str__(self) -> str:
        return f"{self.what} {self.value:.3g} {self.unit} (<= {self.limit:g})"


Scenario = Callable[..., Figure | list[Figure] | None]
"""Applies a fault to a world, in one of its cases if it has any, and measures."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A row of the table of faults."""

    name: str
    expected: str
    scenario: Scenario
    guarantee: Guarantee
    cases: Sequence[Any] = ((),)
    """Each runs in a world of its own; their outcomes are one row."""
    lane: bool = False
    """Whether its services need a lane of their own to the brokers."""
    alone: bool = False
    """Whether it must run alone: it harms the brokers, or needs the whole machine."""
    result: bool = True
    """Whether the topic must be read to its end, and the output match the oracle's."""
    needs: str = ""
    """A program that must be installed."""


@dataclass(slots=True)
class Outcome:
    """The result of a fault; the worst of several cases."""

    verdict: Verdict = field(default_factory=Verdict)
    figures: dict[str, Figure] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    missing: str = ""

    @property
    def ok(self) -> bool:
        return not self.problems and not self.missing and all(figure.ok for figure in self.figures.values())

    @property
    def seen(self) -> str:
        if self.missing:
            return f"not run: no {self.missing}"
        said = [str(self.verdict)] if self.verdict.forecasts else []
        return "; ".join([*self.problems, *said]) or "as expected"

    @property
    def figure(self) -> str:
        return ", ".join(map(str, self.figures.values()))

    def measured(self, figures: Iterable[Figure]) -> None:
        """Keep the larger of two figures with the same name."""
        for figure in figures:
            before = self.figures.get(figure.what, figure)
            self.figures[figure.what] = max(before, figure, key=lambda each: each.value)


TABLE: list[Fault] = []


def fault(
    name: str, expected: str, guarantees: Sequence[Guarantee] = EXACTLY_ONCE, **how: Any
) -> Callable[[Scenario], Scenario]:
    """Add a scenario to the table: a row for each guarantee."""

    def add(scenario: Scenario) -> Scenario:
        for guarantee in guarantees:
            title = f"{name}, {guarantee.replace('-', ' ')}" if len(guarantees) > 1 else name
            TABLE.append(Fault(title, expected, scenario, guarantee, **how))
        return scenario

    return add


def run(fault: Fault, world: World, case: Any, outcome: Outcome) -> None:
    """Run one case in its world, and add to the outcome."""
    figures = fault.scenario(world, *([case] if case != () else []))
    outcome.measured([figures] if isinstance(figures, Figure) else figures or [])
    if not fault.result:
        return
    verdict, is_right = final_verdict(world)
    outcome.verdict += verdict
    if not is_right:
        outcome.problems.append(f"{case or world.topic}: {verdict}")


def final_verdict(world: World) -> tuple[Verdict, bool]:
    """Let services read the whole topic, and stop them: the verdict, and whether it satisfies the guarantee."""
    world.until_drained()
    world.stop()
    verdict = world.verdict()
    return verdict, verdict.is_right(world.allowed_repeats())
