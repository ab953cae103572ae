"""Settings of a Kafka connection: security and timeouts."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal, get_args

from tidecast.errors import ConfigError, unusable

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
ClientName = Literal["kafka-python", "librdkafka"]
ClientChoice = Literal["auto", "kafka-python", "librdkafka"]

HEARTBEAT_S = 0.5
"""Seconds between two heartbeats of a group's member, and so until a rebalance is noticed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSettings:
    """Security and timeouts of a Kafka connection. Raises ConfigError naming the field that is wrong.

    TLS always verifies the broker's certificate and its host name.
    """

    security_protocol: SecurityProtocol = "PLAINTEXT"
    """The listener's protocol: SSL is TLS, SASL_* authenticates a user."""
    sasl_mechanism: SaslMechanism | None = None
    """How the user authenticates; only with SASL_*."""
    sasl_username: str | None = None
    """The user's name."""
    sasl_password: str | None = field(default=None, repr=False)
    """The user's password."""
    ssl_cafile: str | None = None
    """PEM file with the certificate authorities trusted to sign the broker's certificate; None: the system's."""
    ssl_certfile: str | None = None
    """PEM file with the client's certificate and its chain, where the broker requires one."""
    ssl_keyfile: str | None = None
    """PEM file with the private key of the client's certificate."""
    ssl_key_password: str | None = field(default=None, repr=False)
    """The password of that private key."""
    request_s: float = 15.0
    """Seconds that a broker may take for one response."""
    delivery_s: float = 60.0
    """Seconds after which a record, or a call on a transaction, counts as failed."""
    transaction_s: float = 60.0
    """Seconds after which the broker aborts a transaction that was left open."""
    session_s: float = 10.0
    """Seconds without a heartbeat after which a member is removed from its group."""
    client: ClientChoice = "auto"
    """What reads and writes records; auto: librdkafka if confluent-kafka is installed."""

    def __post_init__(self) -> None:
        _one_of("client", self.client, get_args(ClientChoice))
        _one_of("security_protocol", self.security_protocol, get_args(SecurityProtocol))
        self._check_sasl()
        self._check_times()
        self._check_files()

    @property
    def stall_s(self) -> float:
        """Seconds that an open transaction can block readers: until its abort; the broker looks every 10 s."""
        return self.transaction_s + 15.0

    def _check_sasl(self) -> None:
        given = (self.sasl_mechanism, self.sasl_username, self.sasl_password)
        if not self.security_protocol.startswith("SASL_"):
            if any(value is not None for value in given):
                raise ConfigError(
                    f"security_protocol: {self.security_protocol} takes no sasl_* settings; SASL_SSL does"
                )
            return
        _one_of("sasl_mechanism", self.sasl_mechanism, get_args(SaslMechanism))
        for name in ("sasl_username", "sasl_password"):
            if not getattr(self, name):
                raise ConfigError(f"{name}: {self.sasl_mechanism} needs one")

    def _check_times(self) -> None:
        for name in ("request_s", "delivery_s", "transaction_s", "session_s"):
            if not (isfinite(seconds := getattr(self, name)) and seconds > 0):
                raise ConfigError(f"{name}: {seconds:g} is not a positive number of seconds")
        if self.session_s < 3 * HEARTBEAT_S:
            raise ConfigError(f"session_s: {self.session_s:g} must hold three heartbeats of {HEARTBEAT_S:g} s")
        if self.delivery_s < self.request_s:
            raise ConfigError(f"delivery_s: {self.delivery_s:g} is shorter than request_s, {self.request_s:g}")

    def _check_files(self) -> None:
        given = (self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile, self.ssl_key_password)
        if not self.security_protocol.endswith("SSL"):
            if any(value is not None for value in given):
                raise ConfigError(f"security_protocol: {self.security_protocol} takes no ssl_* settings; SSL does")
            return
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ConfigError("ssl_certfile: a certificate and its key, ssl_keyfile, are given together")
        if self.ssl_key_password is not None and self.ssl_keyfile is None:
            raise ConfigError("ssl_key_password: there is no ssl_keyfile")
        self.tls_context()  # the client's own error would only be that it cannot connect

    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS context, with its files read again; None without TLS. Raises ConfigError."""
        if not self.security_protocol.endswith("SSL"):
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies certificates and host names
        if self.ssl_cafile is None:
            context.load_default_certs()
        else:
            with _reading("ssl_cafile", self.ssl_cafile):
                context.load_verify_locations(self.ssl_cafile)
        if self.ssl_certfile is not None and self.ssl_keyfile is not None:
            with _reading("ssl_certfile, ssl_keyfile", self.ssl_certfile, self.ssl_keyfile):
                # Without a password OpenSSL would prompt for one on the terminal.
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, self.ssl_key_password or "")
        return context


def _one_of(name: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}: {value or 'nothing'} is not one of {', '.join(choices)}")


@contextmanager
def _reading(name: str, *paths: str) -> Iterator[None]:
    try:
        for path in paths:
            open(path, "rb").close()  # ssl does not name the file that it cannot open
        yield
    except ssl.SSLError as error:
        reason = (error.reason or "").replace("_", " ").lower() or "no PEM, or not what ssl_key_password opens"
        raise ConfigError(f"{name}: {' and '.join(paths)} can't be used: {reason}") from None
    except OSError as error:
        raise unusable(f"{name}: {error.filename}", error, ConfigError) from None
