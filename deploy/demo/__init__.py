"""The demo: the service, a registry and a replayed series on one screen."""

import time

NAME = "nyc-taxi"
INTRODUCTION = (
    "the demo: New York taxi rides per half hour, July 2014 to January 2015",
    "the first 70 % are published and trained on, the rest is replayed into the running service: after each half hour",
    "a day ahead is forecast, and compared with what came and with the naive forecast: the same as a day or week ago",
    "it takes about a minute; loading torch and MLflow comes first",
)
"""What the demo is about to do, said before anything slow is imported."""


def new_topic() -> str:
    """The topic of a demo that begins now."""
    return f"{NAME}-{time.strftime('%Y%m%d-%H%M%S')}"


def group_of(topic: str) -> str:
    """The consumer group of its service."""
    return f"tidecast-{topic}"
