"""A first connection to Kafka, which finds out why there is none.

The client itself retries for long whatever the reason, and does not report it: a wrong password, a certificate that is
not accepted and a listener of another protocol all end as a timeout.
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
_CLIENT_CERTIFICATE = "it requires a client certificate, and got none that it accepts (ssl_certfile)"


def check_connection(servers: Sequence[tuple[str, int]], kafka: KafkaSettings, label: str) -> None:
    """Return if one of the servers accepts the connection. Raises NotAuthorized, LogUnavailable with all reasons."""
    failures = []
    for host, port in servers:
        try:
            return _try(host, port, kafka)
        except LogError as error:
            failures.append(error)
    refused = any(isinstance(failure, NotAuthorized) for failure in failures)
    kind, does = (NotAuthorized, "denies access") if refused else (LogUnavailable, "does not answer")
    raise kind(f"{label} {does} ({', '.join(map(str, failures))})")


def _try(host: str, port: int, kafka: KafkaSettings) -> None:
    _handshake(host.strip("[]"), port, kafka)
    try:
        _authenticate(host, port, kafka)
    except NotAuthorized:  # a broker that shuts down disconnects like one that refuses, but only once
        _handshake(host.strip("[]"), port, kafka)
        _authenticate(host, port, kafka)


def _handshake(host: str, port: int, kafka: KafkaSettings) -> None:
    """Open a TCP connection, with TLS if configured."""
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
            raise NotAuthorized(f"{where}: {_CLIENT_CERTIFICATE}") from error
        raise LogUnavailable(f"{where}: it does not speak TLS, which {kafka.security_protocol} requires") from error
    except OSError as error:
        raise LogUnavailable(f"{where}: {error.strerror or error}") from error


def _authenticate(host: str, port: int, kafka: KafkaSettings) -> None:
    """Authenticate, and send a request that is answered only after authentication."""
    config = admin(kafka) | {"bootstrap_servers": [f"{host}:{port}"]}
    net = NetworkSelector(**config)
    manager = KafkaConnectionManager(net, **config)
    milliseconds = kafka.request_s * 1000
    connection = manager.get_connection("bootstrap-0", timeout_ms=milliseconds)

    async def authenticate() -> None:
        await manager.wait_for(connection.init_future, milliseconds)
        await manager.wait_for(connection.send_request(MetadataRequest(topics=[])), milliseconds)

    try:
        net.run(authenticate)
    except errors.KafkaError as error:
        raise _reason(error, connection, f"{host}:{port}", kafka) from error
    finally:
        manager.close()
        net.close()


def _reason(error: errors.KafkaError, connection: KafkaConnection, where: str, kafka: KafkaSettings) -> LogError:
    protocol, cause = kafka.security_protocol, error.args[0] if error.args else None
    if isinstance(cause, ssl.SSLError) and _refused_certificate(cause):
        return NotAuthorized(f"{where}: {_CLIENT_CERTIFICATE}")
    if isinstance(error, errors.IllegalSaslStateError):
        return NotAuthorized(f"{where}: it does not authenticate users, and {protocol} does (security_protocol)")
    closed = isinstance(error, errors.KafkaConnectionError)
    if isinstance(error, errors.InvalidReceiveError) or (closed and connection.broker_version_data is None):
        return LogUnavailable(f"{where}: it closes the connection; does it speak {protocol} (security_protocol)?")
    if closed and kafka.sasl_mechanism is None:
        return NotAuthorized(f"{where}: it authenticates users, and {protocol} does not (security_protocol)")
    # The client often cannot tell which: it drops the response with which the broker closes the connection.
    if closed or isinstance(error, errors.SaslAuthenticationFailedError | errors.UnsupportedSaslMechanismError):
        wrong = f"wrong name or password for {kafka.sasl_username!r}"
        return NotAuthorized(f"{where}: {wrong}, or it does not offer {kafka.sasl_mechanism} (sasl_mechanism)")
    return meaning(error, where)


def _refused_certificate(error: ssl.SSLError) -> bool:
    """Whether it is the broker's TLS alert on the client's certificate, or on a missing one."""
    return "ALERT" in (reason := error.reason or "") and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)
