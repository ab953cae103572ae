"""`tidecast models`, `promote` and `rollback`: the registry's versions, shown and promoted."""

import logging
import time
from contextlib import suppress

from rich.table import Table

from deploy.console import print_table
from model.artifacts.registry import Registry
from model.artifacts.versions import Version
from tidecast.freq import format_duration
from tidecast.times import format_time

logger = logging.getLogger(__name__)

SHOWN_TAGS = ("validation_mse", "verdict", "gain", "trained_until", "why", "against")
"""The tags that a version is shown with, and the errors of the naive forecasts."""
CAPTION = """error: the mean squared error in z-scores (1: the variance of a series in training) on the version's own \
validation part, and naive: the best naive forecast's there; only a verdict, on the same data, compares versions"""


def print_versions(name: str | None, tracking_uri: str) -> dict[str, object]:
    """Print a table of a model's versions, or of all models' champions; the same as data."""
    registry = Registry(tracking_uri)
    names = [name] if name else registry.names()
    versions = {each: registry.versions(each) for each in names}
    table = Table(caption=CAPTION, caption_justify="left")
    for heading in ("version", "alias", "age", "trained until", "error", "naive", "verdict"):
        table.add_column(heading, no_wrap=heading != "verdict", min_width=24 if heading == "verdict" else None)
    listed = [version for each in versions.values() for version in each if name or version.aliases or len(each) == 1]
    for version in listed:
        table.add_row(*_row(version))
    print_table(table)
    return {"models": {each: [_facts(version) for version in found] for each, found in versions.items()}}


def _row(version: Version) -> tuple[str, ...]:
    tags = version.tags
    naive = [error for tag, value in tags.items() if _of_naive(tag) and (error := _number(value)) is not None]
    error = _number(tags.get("validation_mse", ""))
    verdict = [f"{tags['verdict']}: {tags.get('why', '')}"] if "verdict" in tags else []
    verdict += [f"refused{f' in {group}' * bool(group)}: {reason}" for group, reason in version.refusals.items()]
    return (
        version.label,
        ", ".join(version.aliases),
        format_duration(max(0, 1000 * time.time() - version.created), whole=True),
        format_time(int(until)) if (until := tags.get("trained_until", "")).isdecimal() else until,
        tags.get("validation_mse", "") if error is None else f"{error:.4g}",
        f"{min(naive):.4g}" if naive else "",
        "; ".join(verdict),
    )


def _number(tag: str) -> float | None:
    """A tag's number; None for a text, which anybody may have written to the registry."""
    with suppress(ValueError):
        return float(tag)
    return None


def _facts(version: Version) -> dict[str, object]:
    shown = {tag: value for tag, value in version.tags.items() if tag in SHOWN_TAGS or _of_naive(tag)}
    facts = {"model": version.label, "aliases": list(version.aliases), "created": version.created, **shown}
    return facts | ({"refused": version.refusals} if version.refusals else {})


def _of_naive(tag: str) -> bool:
    return tag.startswith("naive_") and tag.endswith("_mse")


def promote(model: str, tracking_uri: str) -> dict[str, object]:
    """Make a version the champion."""
    registry = Registry(tracking_uri)
    version = registry.resolve(model)
    changed = registry.promote(version)
    _say_refusals(version)
    logger.info(f"{version.label} is the champion{'' if changed else ' already'}")
    return {"model": version.label}


def rollback(name: str, tracking_uri: str) -> dict[str, object]:
    """Make the previous champion the champion again."""
    version = Registry(tracking_uri).rollback(name)
    _say_refusals(version)
    logger.info(f"{version.label} is the champion again")
    return {"model": version.label}


def _say_refusals(version: Version) -> None:
    """Services go on with another one, where people expect this."""
    for group, reason in version.refusals.items():
        logger.warning(f"{version.label} was refused{f' in {group}' * bool(group)}, and still is: {reason}")
