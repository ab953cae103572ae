"""Which log an address means. The implementations are imported only when asked for."""

from pipeline.log import EventLog


def connect(address: str) -> EventLog:
    """Open the log at `address`: ``sqlite:PATH`` or Kafka's ``host:port[,host:port...]``.

    Raises ValueError for an address of neither form, LogUnavailable if nothing answers there.
    """
    if address.startswith("sqlite:"):
        from pipeline.local import LocalLog

        return LocalLog(address.removeprefix("sqlite:"))
    from pipeline.kafka import KafkaLog

    return KafkaLog(address)
