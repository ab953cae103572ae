"""Opening a log by its address. Each implementation is imported only when it is used."""

from pipeline.log import EventLog
from pipeline.log.settings import KafkaSettings


def connect(address: str, kafka: KafkaSettings | None = None) -> EventLog:
    """Open the log at `address`: ``sqlite:PATH``, or Kafka's ``host:port[,host:port...]`` as `kafka` says.

    Raises ConfigError for an address of neither form, LogUnavailable if no broker responds, NotAuthorized if it refuses
    these settings.
    """
    if address.startswith("sqlite:"):
        from pipeline.log.sqlite import SqliteLog

        return SqliteLog(address.removeprefix("sqlite:"))
    from pipeline.log.kafka import KafkaLog

    return KafkaLog(address, kafka or KafkaSettings())
