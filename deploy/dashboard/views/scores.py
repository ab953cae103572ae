"""Scores of one series, in its own units."""

from typing import Any

import msgspec

from deploy.grading.totals import Row, Totals


def scores(totals: Totals) -> dict[str, Any]:
    """The scores of one target: of all, by step, by model (the oldest first)."""
    overall = totals.rows("series")
    since: dict[str, int] = {}
    for key, part in totals.parts.items():
        since[key.model] = min(part.since, since.get(key.model, part.since))
    steps = sorted({step for key in totals.parts for step in key.steps})
    by_step = [_named(row, step=step) for step in steps for row in _part(totals, step=step)]
    models = sorted(since, key=lambda model: (since[model], model))
    by_model = [_named(row, model=model, unscored=None) for model in models for row in _part(totals, model=model)]
    return {"overall": as_dict(overall[0]) if overall else None, "by_step": by_step, "by_model": by_model}


def _part(totals: Totals, *, step: int | None = None, model: str | None = None) -> list[Row]:
    """The row of one step or version, if anything was scored of it."""
    part = Totals(scale=totals.scale)
    part.unscored = {key: count for key, count in totals.unscored.items() if step in (None, key[2])}
    for key, each in totals.parts.items():
        at = [number for number, own in enumerate(key.steps) if step in (None, own)]
        if at and model in (None, key.model):
            steps = tuple(key.steps[number] for number in at)
            part.add_sums(key._replace(steps=steps), each.sums[at], each.since, each.until)
    return part.rows("series")


def _named(row: Row, **names: Any) -> dict[str, Any]:
    return as_dict(msgspec.structs.replace(row, **names))


def as_dict(row: Row) -> dict[str, Any]:
    """A row with all of its fields."""
    return {name: getattr(row, name) for name in row.__struct_fields__}
