"""A topic's configuration, from its settings as the broker names them."""

from collections.abc import Mapping

from pipeline.log.topics import TopicConfig

ANY_TIME = dict.fromkeys(("message.timestamp.before.max.ms", "message.timestamp.after.max.ms"), str(2**63 - 1))
"""The settings of a topic that takes records of any time."""
SETTINGS = ("cleanup.policy", "max.message.bytes", "min.insync.replicas", "retention.bytes", "retention.ms")
TIMES = ("message.timestamp.type", *ANY_TIME)
"""The topic settings that a TopicConfig is made from; brokers before 3.6 do not have all TIMES."""


def topic_config(settings: Mapping[str, str], replication: int, brokers: int) -> TopicConfig:
    """From a topic's settings, the replicas of its partition with fewest, and the cluster's brokers."""
    return TopicConfig(
        compacted="compact" in settings["cleanup.policy"],
        retention_ms=_limit(settings, "retention.ms"),
        retention_bytes=_limit(settings, "retention.bytes"),
        replication=replication,
        min_insync=int(settings["min.insync.replicas"]),
        max_message_bytes=int(settings["max.message.bytes"]),
        brokers=brokers,
        append_time=settings.get("message.timestamp.type") == "LogAppendTime",
        oldest_ms=_time_limit(settings, "before"),
        ahead_ms=_time_limit(settings, "after"),
    )


def _limit(settings: Mapping[str, str], name: str) -> int | None:
    """A topic's limit; None if it is unlimited, or if the cleanup policy deletes nothing."""
    value = int(settings[name])
    return value if value >= 0 and "delete" in settings["cleanup.policy"] else None


def _time_limit(settings: Mapping[str, str], side: str) -> int | None:
    value = int(settings.get(f"message.timestamp.{side}.max.ms", -1))
    unlimited = settings.get("message.timestamp.type") == "LogAppendTime" or value == 2**63 - 1
    return None if unlimited or value < 0 else value
