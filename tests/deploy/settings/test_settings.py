"""Settings of a Kafka connection: validation, where they come from, and their precedence."""

import datetime
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy.settings.files import kafka_settings, log_address
from pipeline.log.settings import KafkaSettings

Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]

USER = {"sasl_mechanism": "PLAIN", "sasl_username": "alice", "sasl_password": "s3cret"}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"security_protocol": "TLS"}, "security_protocol: TLS is not one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
    ({"security_protocol": "SASL_SSL"}, "sasl_mechanism: nothing is not one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"),
    ({**USER, "security_protocol": "SASL_SSL", "sasl_mechanism": "GSSAPI"}, "sasl_mechanism: GSSAPI is not one of"),
    ({**USER, "security_protocol": "SASL_SSL", "sasl_username": None}, "sasl_username: PLAIN needs one"),
    ({**USER, "security_protocol": "SASL_SSL", "sasl_password": ""}, "sasl_password: PLAIN needs one"),
    (USER, "security_protocol: PLAINTEXT takes no sasl_"),
    ({"security_protocol": "SSL", "sasl_password": "s3cret"}, "security_protocol: SSL takes no sasl_"),
    ({"ssl_cafile": "ca.pem"}, "security_protocol: PLAINTEXT takes no ssl_"),
    (
        {**USER, "security_protocol": "SASL_PLAINTEXT", "ssl_key_password": "x"},
        "security_protocol: SASL_PLAINTEXT takes no ssl_",
    ),
    ({"security_protocol": "SSL", "ssl_certfile": "own.pem"}, "ssl_certfile: a certificate and its key, ssl_keyfile"),
    ({"security_protocol": "SSL", "ssl_keyfile": "own.key"}, "ssl_certfile: a certificate and its key, ssl_keyfile"),
    ({"security_protocol": "SSL", "ssl_key_password": "s3cret"}, "ssl_key_password: there is no ssl_keyfile"),
    ({"security_protocol": "SSL", "ssl_cafile": "none.pem"}, "ssl_cafile: none.pem: No such file or directory"),
    ({"security_protocol": "SSL", "ssl_cafile": "junk.pem"}, "ssl_cafile: junk.pem can't be used"),
    (
        {"security_protocol": "SSL", "ssl_certfile": "junk.pem", "ssl_keyfile": "none.key"},
        "ssl_certfile, ssl_keyfile: none.key: No such file",
    ),
    (
        {"security_protocol": "SSL", "ssl_certfile": "own.pem", "ssl_keyfile": "own.key"},
        "ssl_certfile, ssl_keyfile: own.pem and own.key can't be used: .* ssl_key_password",
    ),
    (
        {"security_protocol": "SSL", "ssl_certfile": "own.pem", "ssl_keyfile": "own.key", "ssl_key_password": "s3cret"},
        "ssl_certfile, ssl_keyfile: own.pem and own.key can't be used: .* ssl_key_password",
    ),
    ({"request_s": 0.0}, "request_s: 0 is not a positive number of seconds"),
    ({"transaction_s": float("nan")}, "transaction_s: nan is not a positive number of seconds"),
    ({"session_s": float("inf")}, "session_s: inf is not a positive number of seconds"),
    ({"session_s": 1.0}, "session_s: 1 must hold three heartbeats"),
    ({"request_s": 61.0}, "delivery_s: 60 is shorter than request_s, 61"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIDECAST_KAFKA_CLIENT")
    Path("junk.pem").write_text("junk")
    key = ec.generate_private_key(ec.SECP256R1())
    now, nobody = datetime.datetime.now(datetime.UTC), x509.Name([])
    builder = x509.CertificateBuilder(nobody, nobody, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    Path("own.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    Path("own.key").write_bytes(key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"key-9Z")))
    return tmp_path


def written(text: str, name: str = "tidecast.toml") -> Path:
    Path(name).write_text(text)
    return Path(name)


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_invalid_settings_name_their_field(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}") as raised:
        KafkaSettings(**given)
    assert "s3cret" not in str(raised.value)


def test_repr_redacts_secrets() -> None:
    own = {"ssl_certfile": "own.pem", "ssl_keyfile": "own.key", "ssl_key_password": "key-9Z"}
    shown = repr(KafkaSettings(security_protocol="SASL_SSL", **USER, **own))  # type: ignore[arg-type]
    assert "alice" in shown
    assert "own.key" in shown
    assert "s3cret" not in shown
    assert "key-9Z" not in shown


def test_defaults_without_variables_or_a_file() -> None:
    assert kafka_settings() == KafkaSettings()
    assert log_address("kafka:9092").kafka == KafkaSettings()


def test_a_variable_overrides_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    written("from the file\n", "password")
    written("from the variable's file\r\n", "other")
    path = written(
        """
        [kafka]
        security-protocol = "SASL_PLAINTEXT"
        sasl_mechanism = "PLAIN"
        sasl-username = "bob"
        sasl-password-file = "password"
        request-s = 10
        delivery-s = "20.5"
        """
    )
    found = kafka_settings(path)
    assert (found.sasl_username, found.sasl_password) == ("bob", "from the file")
    assert (found.request_s, found.delivery_s) == (10.0, 20.5)
    monkeypatch.setenv("TIDECAST_KAFKA_SASL_USERNAME", "alice")
    monkeypatch.setenv("TIDECAST_KAFKA_REQUEST_S", "5")
    monkeypatch.setenv("TIDECAST_KAFKA_SASL_PASSWORD_FILE", "other")
    found = kafka_settings(path)
    assert (found.sasl_username, found.sasl_password, found.request_s) == ("alice", "from the variable's file", 5.0)
    monkeypatch.setenv("TIDECAST_KAFKA_SASL_PASSWORD", " as it is ")
    assert kafka_settings(path).sasl_password == " as it is "
    address = log_address("kafka:9092", path)
    assert (address, address.kafka) == ("kafka:9092", kafka_settings(path))


def test_sqlite_ignores_kafka_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDECAST_KAFKA_SASL_PASSWORD_FILE", "absent")
    assert log_address("sqlite:log.db").kafka == KafkaSettings()


def test_unknown_and_empty_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDECAST_KAFKA_PORT", "tcp://10.0.0.7:9092")
    monkeypatch.setenv("TIDECAST_KAFKA_SASL_USERNAME", "")
    assert kafka_settings() == KafkaSettings()


FAULTS = [
    ("[kafka]\nsecurity = 'SSL'", r"tidecast.toml: \[kafka\] has no setting called 'security'"),
    ("[kafka]\nssl-check-hostname = false", r"\[kafka\] has no setting called 'ssl-check-hostname'"),
    (
        "[kafka]\nsasl-password = 's3cret'",
        r"\[kafka\] takes no sasl-password: sasl-password-file names .* TIDECAST_KAFKA_SASL_PASSWORD",
    ),
    ("[kafka]\nssl_key_password = 's3cret'", r"\[kafka\] takes no ssl-key-password: ssl-key-password-file"),
    ("[kafka]\nrequest-s = 'soon'", "kafka: request-s: 'soon' is not a number of seconds"),
    ("[kafka]\nsecurity-protocol = 'TLS'", "kafka: security_protocol: TLS is not one of"),
    ("[kafka]\nsasl-password-file = 'absent'", "kafka: sasl-password-file: absent: No such file or directory"),
    ("[kafka]\nsasl-password-file = 'latin'", "kafka: sasl-password-file: latin: not UTF-8 text$"),
    ("kafka = 'there'", "no option is called 'kafka'"),
    ("[kafka2]\nx = 1", r"\[kafka2\] is a table, and no command is called so"),
    ("[kafka]\nrequest-s = 1\nrequest_s = 2", r"\[kafka\]: 'request-s' is given twice"),
    ("[kafka]\nsasl-username = {a = 1}", r"\[kafka\] sasl-username: neither a table nor"),
]


@pytest.mark.parametrize(("text", "message"), FAULTS)
def test_a_wrong_kafka_table_is_one_line_and_78(tidecast: Tidecast, text: str, message: str) -> None:
    written(text)
    Path("latin").write_bytes(b"s3cret\xe9")
    ended = tidecast("tail", "power", "--bootstrap", "127.0.0.1:1")
    assert (ended.returncode, ended.stdout) == (78, "")
    assert re.fullmatch(f"tidecast: .*{message}.*\n", ended.stderr), ended.stderr
    assert "s3cret" not in ended.stderr


COMMANDS = {
    "ingest": ["own.pem", "--topic", "power"],
    "tail": ["power"],
    "train": ["--name", "m", "--topic", "power"],
    "serve": ["--topic", "power", "--model", "m"],
    "demo": [],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_with_a_log_reads_the_kafka_settings(tidecast: Tidecast, command: str) -> None:
    path = written("bootstrap = '127.0.0.1:1'\n[kafka]\nsession-s = 0.1", "other.toml")
    ended = tidecast(command, *COMMANDS[command], "--config", path)
    assert ended.returncode == 78
    assert ended.stderr == "tidecast: kafka: session_s: 0.1 must hold three heartbeats of 0.5 s\n"


def test_trace_reads_kafka_settings_from_its_settings_file(tidecast: Tidecast) -> None:
    written("topic = 'power'\nbootstrap = '127.0.0.1:1'\n[kafka]\nsession-s = 0.1", "model.toml")
    ended = tidecast("trace", "model.toml")
    assert (ended.returncode, ended.stderr.splitlines()[-1][:25]) == (78, "tidecast: kafka: session_")


def test_an_address_with_credentials_is_rejected_without_showing_them(tidecast: Tidecast) -> None:
    ended = tidecast("tail", "power", "--bootstrap", "alice:s3cret@127.0.0.1:1")
    assert ended.returncode == 78
    assert "s3cret" not in ended.stderr


def test_an_unavailable_registry_is_named_without_its_password(tidecast: Tidecast) -> None:
    ended = tidecast("serve", "--topic", "power", "--model", "m", "--tracking-uri", "http://alice:s3cret@127.0.0.1:1")
    assert (ended.returncode, ended.stderr) == (75, "tidecast: http://127.0.0.1:1: no MLflow server answers there\n")


def test_help_of_bootstrap_names_the_kafka_table(tidecast: Tidecast) -> None:
    assert "table [kafka], or TIDECAST_KAFKA_*" in " ".join(tidecast("tail", "--help").stdout.split())
