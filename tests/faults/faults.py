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
    """A measured number and what it must not exceed."""

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
"""Takes a world, and one of the fault's cases if it has any; does the fault, and measures."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A row of the table, before it is run."""

    name: str
    expected: str
    scenario: Scenario
    guarantee: Guarantee
    cases: Sequence[Any] = ((),)
    """A world for each; their outcomes are one row."""
    lane: bool = False
    """Whether its services reach the brokers by a lane of their own."""
    alone: bool = False
    """Whether nothing else may run meanwhile: it harms the brokers, or wants the whole machine."""
    result: bool = True
    """Whether everything must have been read at the end, and be as the oracle says."""
    needs: str = ""
    """A program that the machine must have."""


@dataclass(slots=True)
class Outcome:
    """What came of a fault; of several cases the worst."""

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
        """Keep the larger of figures of one name."""
        for figure in figures:
            before = self.figures.get(figure.what, figure)
            self.figures[figure.what] = max(before, figure, key=lambda each: each.value)


TABLE: list[Fault] = []


def fault(
    name: str, expected: str, guarantees: Sequence[Guarantee] = EXACTLY_ONCE, **how: Any
) -> Callable[[Scenario], Scenario]:
    """Put a scenario into the table: a row for each guarantee."""

    def listed(scenario: Scenario) -> Scenario:
        for guarantee in guarantees:
            called = f"{name}, {guarantee.replace('-', ' ')}" if len(guarantees) > 1 else name
            TABLE.append(Fault(called, expected, scenario, guarantee, **how))
        return scenario

    return listed


def run(fault: Fault, world: World, case: Any, outcome: Outcome) -> None:
    """Run one case in its world, and add to the outcome."""
    figures = fault.scenario(world, *([case] if case != () else []))
    outcome.measured([figures] if isinstance(figures, Figure) else figures or [])
    if not fault.result:
        return
    verdict, is_right = settled(world)
    outcome.verdict += verdict
    if not is_right:
        outcome.problems.append(f"{case or world.topic}: {verdict}")


def settled(world: World) -> tuple[Verdict, bool]:
    """Let a world come to its end: the verdict, and whether it is as its guarantee promises."""
    world.drained()
    world.stop()
    verdict = world.verdict()
    return verdict, verdict.is_right(world.allowed_repeats())
