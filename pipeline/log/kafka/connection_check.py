"""The first connection to a Kafka, made to say why there is none.

The client tries again for long whatever the reason, and keeps the reason to itself: a wrong password, a certificate
that is not accepted, or a listener that speaks another protocol all end as a time-out.
"""

import contextlib
import socket
import ssl
from collections.abc import Sequence

from kafka import errors
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.protocol.metadata import MetadataRequest

from pipeline.log.kafka.client import admin, meaning
from pipeline.log.settings import KafkaSettings
from tidecast.errors import LogError, LogUnavailable, NotAuthorized

CONNECT = 3.0
"""Seconds that a broker may take to accept the first connection."""
_OUR_CERTIFICATE = "it asks for a certificate, and does not accept ours, or that there is none (ssl_certfile)"


def check_connection(servers: Sequence[tuple[str, int]], kafka: KafkaSettings, label: str) -> None:
    """Return if one of the servers answers and lets us in. Raises NotAuthorized, LogUnavailable with all reasons."""
    failures = []
    for host, port in servers:
        try:
            return _try(host, port, kafka)
        except LogError as error:
            failures.append(error)
    refused = any(isinstance(failure, NotAuthorized) for failure in failures)
    kind, does = (NotAuthorized, "does not let us in") if refused else (LogUnavailable, "does not answer")
    raise kind(f"{label} {does} ({', '.join(map(str, failures))})")


def _try(host: str, port: int, kafka: KafkaSettings) -> None:
    _shake_hands(host.strip("[]"), port, kafka)
    try:
        _introduce(host, port, kafka)
    except NotAuthorized:  # a broker that goes down hangs up like one that refuses, but only once
        _shake_hands(host.strip("[]"), port, kafka)
        _introduce(host, port, kafka)


def _shake_hands(host: str, port: int, kafka: KafkaSettings) -> None:
    """Open a connection, encrypted if it is to be."""
    where, context = f"{host}:{port}", kafka.tls_context()
    try:
        with contextlib.ExitStack() as stack:
            plain = stack.enter_context(socket.create_connection((host, port), CONNECT))
            plain.settimeout(kafka.request_s)
            if context is not None:
                stack.enter_context(context.wrap_socket(plain, server_hostname=host))
    except ssl.SSLCertVerificationError as error:
        raise NotAuthorized(f"{where}: its certificate is not accepted: {error.verify_message}") from error
    except ssl.SSLError as error:
        if _refused_certificate(error):
            raise NotAuthorized(f"{where}: {_OUR_CERTIFICATE}") from error
        raise LogUnavailable(f"{where}: no TLS there, which {kafka.security_protocol} needs") from error
    except OSError as error:
        raise LogUnavailable(f"{where}: {error.strerror or error}") from error


def _introduce(host: str, port: int, kafka: KafkaSettings) -> None:
    """Authenticate, and ask a question that only who may connect gets answered."""
    config = admin(kafka) | {"bootstrap_servers": [f"{host}:{port}"]}
    net = NetworkSelector(**config)
    manager = KafkaConnectionManager(net, **config)
    milliseconds = kafka.request_s * 1000
    connection = manager.get_connection("bootstrap-0", timeout_ms=milliseconds)

    async def introduce() -> None:
        await manager.wait_for(connection.init_future, milliseconds)
        await manager.wait_for(connection.send_request(MetadataRequest(topics=[])), milliseconds)

    try:
        net.run(introduce)
    except errors.KafkaError as error:
        raise _reason(error, connection, f"{host}:{port}", kafka) from error
    finally:
        manager.close()
        net.close()


def _reason(error: errors.KafkaError, connection: KafkaConnection, where: str, kafka: KafkaSettings) -> LogError:
    protocol, cause = kafka.security_protocol, error.args[0] if error.args else None
    if isinstance(cause, ssl.SSLError) and _refused_certificate(cause):
        return NotAuthorized(f"{where}: {_OUR_CERTIFICATE}")
    if isinstance(error, errors.IllegalSaslStateError):
        return NotAuthorized(f"{where}: it asks for no user, and {protocol} brings one (security_protocol)")
    hung_up = isinstance(error, errors.KafkaConnectionError)
    if isinstance(error, errors.InvalidReceiveError) or (hung_up and connection.broker_version_data is None):
        return LogUnavailable(f"{where}: it hangs up; does it speak {protocol} (security_protocol)?")
    if hung_up and kafka.sasl_mechanism is None:
        return NotAuthorized(f"{where}: it asks for a user, and {protocol} brings none (security_protocol)")
    # Which of them it is the client often does not know: it drops an answer with which a connection ends.
    if hung_up or isinstance(error, errors.SaslAuthenticationFailedError | errors.UnsupportedSaslMechanismError):
        wrong = f"wrong name or password for {kafka.sasl_username!r}"
        return NotAuthorized(f"{where}: {wrong}, or it does not offer {kafka.sasl_mechanism} (sasl_mechanism)")
    return meaning(error, where)


def _refused_certificate(error: ssl.SSLError) -> bool:
    """Whether it is the other side's alert on our certificate, or on that there is none."""
    return "ALERT" in (reason := error.reason or "") and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)
