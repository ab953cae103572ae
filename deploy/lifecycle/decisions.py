"""What a decision about a version brings about: aliases that move, a line, and a summary."""

import logging
from dataclasses import asdict

from model.artifacts.registry import CHALLENGER, PROMOTED, Registry
from model.artifacts.versions import Version
from model.evaluation.promotion import PromotionDecision
from pipeline import failpoint
from tidecast.errors import PromotionConflict

logger = logging.getLogger(__name__)

OUTCOMES = {
    "promote": "is the champion now",
    "first": "is the champion",
    "undecided": "nothing decided",
    "no drift": "no drift",
    "too soon": "too soon",
    "not the first": "is the champion already",
}
"""Decisions in words; of others the version is not promoted."""


def decision_tags(decision: PromotionDecision) -> dict[str, str]:
    """As the tags of a version."""
    numbers = {name: f"{value:.6g}" for name, value in asdict(decision).items() if isinstance(value, float)}
    return {"verdict": decision.decision, "why": decision.why, **numbers}


def apply_decision(
    registry: Registry, version: Version, decision: str, why: str, details: PromotionDecision | None
) -> dict[str, object]:
    """Move the aliases that a decision moves; not twice, as somebody may have moved them back."""
    if PROMOTED in version.tags:
        return summary(version, "promoted before", why, details)
    registry.set_alias(version, CHALLENGER)
    failpoint.reached("challenger")
    if decision == "promote":
        try:
            registry.promote(version, instead_of=version.tags["against"].rpartition("/")[2])
        except PromotionConflict as error:
            decision, why = "overtaken", str(error)
    return summary(version, decision, why, details)


def summary(version: Version, decision: str, why: str, details: PromotionDecision | None) -> dict[str, object]:
    """What came of a retraining, said and as data."""
    logger.info(f"{version.label}: {OUTCOMES.get(decision, 'is not promoted')}: {why}")
    facts: dict[str, object] = {"model": version.label, "decision": decision, "why": why}
    numbers = {} if details is None else asdict(details)
    return facts | {name: value for name, value in numbers.items() if name not in facts}
