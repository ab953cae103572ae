"""What the client's errors mean, as sentences with the way out."""

from kafka import errors

REASONS: tuple[tuple[type[Exception], str], ...] = (
    (
        errors.UnknownTopicOrPartitionError,
        "there is no such topic or partition: it was deleted, made anew, or is misspelt; tidecast check looks at all "
        "topics of a service",
    ),
    (
        errors.OffsetOutOfRangeError,
        "the records at this position are gone: retention deleted them before they were read, or the topic was made "
        "anew. Raise its retention; what is left can be read from its earliest record",
    ),
    (errors.UnknownTopicIdError, "the topic was deleted or made anew meanwhile: start again"),
    (errors.InvalidTopicError, "a topic's name takes up to 249 letters, digits and . _ -"),
    (errors.GroupAuthorizationFailedError, "the user may not use this consumer group: it needs the ACL Read on it"),
    (errors.TopicAuthorizationFailedError, "the user may not do this with the topic: it needs an ACL on it"),
    (errors.ClusterAuthorizationFailedError, "the user may not do this with the cluster: it needs an ACL on it"),
    (errors.TransactionalIdAuthorizationFailedError, "the user may not use this transactional id: it needs an ACL"),
    (errors.MessageSizeTooLargeError, "a message is larger than max.message.bytes of the topic: raise it"),
    (errors.RecordListTooLargeError, "a batch is larger than max.message.bytes of the topic: raise it"),
    (errors.InvalidTimestampError, "the broker refuses a record's time: see message.timestamp.*.ms of the topic"),
    (errors.NotEnoughReplicasError, "fewer replicas are in sync than min.insync.replicas: a broker is down"),
    (errors.NotEnoughReplicasAfterAppendError, "fewer replicas are in sync than min.insync.replicas: a broker is down"),
    (errors.InvalidReplicationFactorError, "there are fewer brokers than the replication factor asks for"),
    (errors.PolicyViolationError, "a policy of the cluster forbids it: create the topic beforehand"),
    (errors.NotLeaderForPartitionError, "the partition's leader is changing, or its broker is down: try again"),
    (errors.LeaderNotAvailableError, "the partition has no leader: its brokers are down or restart; try again"),
    (errors.CoordinatorNotAvailableError, "the group's coordinator is not up yet: try again"),
    (errors.NodeNotReadyError, "the broker is not ready: it is down or restarts; try again"),
    (errors.KafkaTimeoutError, "no broker answered in time: it is down, or out of reach; try again"),
)


def reason(error: BaseException) -> str:
    """Why it failed, with the client's name for it."""
    said = next((sentence for kind, sentence in REASONS if isinstance(error, kind)), None)
    detail = str(error.args[0]) if getattr(error, "args", ()) else ""
    return f"{said} ({type(error).__name__}{detail and f': {detail}'})" if said else str(error)
