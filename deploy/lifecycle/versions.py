"""`tidecast models`, `promote` and `rollback`: the registry's versions, shown and promoted."""

import logging
import time

from rich.console import Console
from rich.table import Table

from model.artifacts.registry import Registry
from model.artifacts.versions import Version
from tidecast.freq import format_duration
from tidecast.times import format_time

logger = logging.getLogger(__name__)

SHOWN_TAGS = ("validation_mse", "naive_day_mse", "naive_last_mse", "verdict", "gain")
"""The tags that a version is shown with."""


def print_versions(name: str | None, tracking_uri: str) -> dict[str, object]:
    """Print a table of a model's versions, or of all models' champions; the same as data."""
    registry = Registry(tracking_uri)
    names = [name] if name else registry.names()
    versions = {each: registry.versions(each) for each in names}
    table = Table(caption="error and naive: on each version's own validation part; only a verdict compares versions")
    for heading in ("version", "alias", "age", "trained until", "error", "naive", "verdict"):
        table.add_column(heading, no_wrap=heading != "verdict", min_width=24 if heading == "verdict" else None)
    listed = [version for each in versions.values() for version in each if name or version.aliases or len(each) == 1]
    for version in listed:
        table.add_row(*_row(version))
    Console(highlight=False).print(table)
    return {"models": {each: [_facts(version) for version in found] for each, found in versions.items()}}


def _row(version: Version) -> tuple[str, ...]:
    tags = version.tags
    naive = [float(value) for tag, value in tags.items() if tag.startswith("naive_") and tag.endswith("_mse")]
    verdict = [f"{tags['verdict']}: {tags.get('why', '')}"] if "verdict" in tags else []
    verdict += [f"refused{f' in {group}' * bool(group)}: {reason}" for group, reason in version.refusals.items()]
    return (
        version.label,
        ", ".join(version.aliases),
        format_duration(max(0, 1000 * time.time() - version.created), whole=True),
        format_time(int(tags["trained_until"])) if "trained_until" in tags else "",
        tags.get("validation_mse", ""),
        f"{min(naive):.4g}" if naive else "",
        "; ".join(verdict),
    )


def _facts(version: Version) -> dict[str, object]:
    shown = {tag: version.tags[tag] for tag in (*SHOWN_TAGS, "trained_until", "why", "against") if tag in version.tags}
    facts = {"model": version.label, "aliases": list(version.aliases), "created": version.created, **shown}
    return facts | ({"refused": version.refusals} if version.refusals else {})


def promote(model: str, tracking_uri: str) -> dict[str, object]:
    """Make a version the champion."""
    registry = Registry(tracking_uri)
    version = registry.resolve(model)
    changed = registry.promote(version)
    logger.info(f"{version.label} is the champion{'' if changed else ' already'}")
    return {"model": version.label}


def rollback(name: str, tracking_uri: str) -> dict[str, object]:
    """Make the previous champion the champion again."""
    version = Registry(tracking_uri).rollback(name)
    logger.info(f"{version.label} is the champion again")
    return {"model": version.label}
