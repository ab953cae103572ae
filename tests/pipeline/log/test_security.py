"""Connecting to a real Kafka with TLS, SASL and access control: who gets in, and what those read who don't."""

import base64
import contextlib
import datetime
import gc
import json
import logging
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from sharing import Shared, kill_process, start_process
from waiting import until

from pipeline.log import Commit, Consumer, EventLog, Record
from pipeline.log.connect import connect
from pipeline.log.settings import KafkaSettings
from tidecast.errors import LogError, LogUnavailable, NotAuthorized

Fresh = Callable[[str], str]
Tidecast = Callable[..., "subprocess.CompletedProcess[str]"]

PASSWORD = "tide-7Q-secret"
KEY_PASSWORD = "key-9Z-secret"
LISTENERS = {
    "PLAINTEXT": "PLAINTEXT",
    "TLS": "SSL",
    "MUTUAL": "SSL",
    "SASL": "SASL_SSL",
    "SCRAM": "SASL_SSL",
    "BARE": "SASL_PLAINTEXT",
    "ELSEWHERE": "SSL",
}
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

PROPERTIES = """
process.roles=broker,controller
node.id=0
controller.quorum.voters=0@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={advertised}
listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={folder}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=2
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.mutual.ssl.client.auth=required
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
super.users=User:ANONYMOUS;User:alice;User:CN=client
"""
SASL = """
listener.name.{name}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.{name}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
 user_alice="{password}" user_bob="{password}" user_carol="{password}";
listener.name.{name}.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.{name}.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
"""


def certificate(folder: Path, name: str, signer: str | None = None, password: str | None = None) -> None:
    """Writes NAME.pem and NAME.key, signed by SIGNER.pem, or an authority that signs itself; good for "localhost"."""
    key = signing = ec.generate_private_key(ec.SECP256R1())
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)]) for who in (name, signer or name))
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    if signer is not None:
        loaded = serialization.load_pem_private_key((folder / f"{signer}.key").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signing = loaded
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    hidden = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    (folder / f"{name}.pem").write_bytes(made.sign(signing, hashes.SHA256()).public_bytes(pem))
    (folder / f"{name}.key").write_bytes(key.private_bytes(pem, pkcs8, hidden))


@dataclass(frozen=True)
class Broker:
    """A broker's folder, with certificates, and the port of each of its listeners."""

    folder: Path
    ports: dict[str, int]

    def at(self, listener: str, host: str = "localhost") -> str:
        return f"{host}:{self.ports[listener]}"

    def file(self, name: str) -> str:
        return str(self.folder / name)

    def tls(self, **settings: Any) -> KafkaSettings:
        """TLS with the authority that signed the broker's certificate, unless another is given."""
        given = {"ssl_cafile": self.file("ca.pem"), "request_s": 5, **settings}
        return KafkaSettings(security_protocol="SSL", **given)

    def user(self, mechanism: str = "SCRAM-SHA-512", name: str = "alice", password: str = PASSWORD) -> KafkaSettings:
        return KafkaSettings(
            security_protocol="SASL_SSL",
            sasl_mechanism=mechanism,  # type: ignore[arg-type]
            sasl_username=name,
            sasl_password=password,
            ssl_cafile=self.file("ca.pem"),
            request_s=5,
        )


@pytest.fixture(scope="session")
def broker(shared: Shared) -> Iterator[Broker]:
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("KAFKA_HOME is not set: this needs Apache Kafka and a Java to run it")
    with shared.server("secure", lambda folder: start(folder, home), kill_process) as (ports, folder):
        yield Broker(folder, json.loads(ports))


def start(folder: Path, home: str) -> str:
    """Format and start a broker; its ports by listener, as JSON."""
    write_certificates(folder)
    ports = dict(zip((*LISTENERS, "CONTROLLER"), free_ports(len(LISTENERS) + 1), strict=True))
    (folder / "server.properties").write_text(properties(folder, ports))
    log4j = f"-Dlog4j2.configurationFile={home}/bin/log4j2.properties"
    java = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", f"{home}/libs/*", log4j]
    format_it = ["kafka.tools.StorageTool", "format", "-t", "dGlkZWNhc3QtdGVzdHMtMQ", "-c", "server.properties"]
    for mechanism in MECHANISMS[1:]:
        format_it += ["--add-scram", f"{mechanism}=[name=alice,password={PASSWORD}]"]
    subprocess.run([*java, *format_it], cwd=folder, check=True, capture_output=True)
    process = start_process(folder, [*java, "kafka.Kafka", "server.properties"])
    until(lambda: all(map(is_open, ports.values())), process)
    return json.dumps(ports)


def write_certificates(folder: Path) -> None:
    for name, signer, password in (
        ("ca", None, None),
        ("other", None, None),
        ("broker", "ca", None),
        ("client", "ca", KEY_PASSWORD),
        ("stranger", "other", None),
    ):
        certificate(folder, name, signer, password)
    with (folder / "broker.pem").open("a") as keystore:
        keystore.write((folder / "broker.key").read_text())


def properties(folder: Path, ports: dict[str, int]) -> str:
    listeners = ",".join(f"{name}://localhost:{ports[name]}" for name in LISTENERS)
    advertised = listeners.replace("ELSEWHERE://localhost", "ELSEWHERE://127.0.0.1")
    protocols = ",".join(f"{name}:{protocol}" for name, protocol in LISTENERS.items())
    text = PROPERTIES.format(
        folder=folder, advertised=advertised, controller=ports["CONTROLLER"], listeners=listeners, protocols=protocols
    )
    return text + "".join(SASL.format(name=name, password=PASSWORD) for name in ("sasl", "bare"))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("localhost", port)).close()
        return True
    return False


@pytest.fixture
def boss(broker: Broker) -> Iterator[EventLog]:
    """The broker by the listener that lets everybody do everything."""
    with contextlib.closing(connect(broker.at("PLAINTEXT"))) as log:
        yield log


def works(address: str, kafka: KafkaSettings, name: str) -> None:
    """Write, read, join a group, and commit records and offsets, alone and as one transaction."""
    with contextlib.closing(connect(address, kafka)) as log:
        assert log.create_topic(name, 1) == 1
        producer, consumer = log.producer(f"{name}-writer"), log.consumer(f"{name}-group", name)
        producer.begin()
        for value in (b"1", b"2"):
            producer.send(name, 0, b"k", value)
        producer.commit({}, consumer)
        assert values(log.read(name, 0, 0, log.bounds(name)[0].end)) == [b"1", b"2"]
        assert values(polled(consumer, 2)) == [b"1", b"2"]
        consumer.commit({0: Commit(1)})
        producer.begin()
        producer.send(name, 0, b"k", b"3")
        producer.commit({0: Commit(2, "as one")}, consumer)
        assert consumer.committed([0]) == {0: Commit(2, "as one")}


def values(batches: Iterable[Sequence[Record]]) -> list[bytes | None]:
    return [record.value for batch in batches for record in batch]


def polled(consumer: Consumer, count: int) -> list[Sequence[Record]]:
    """The batches with the first `count` records, from the beginning."""
    batches: list[Sequence[Record]] = []

    def poll() -> None:
        found = consumer.poll(0.5, 100)
        for partition in found.assigned:
            consumer.seek(partition, 0)
        batches.extend(found.records.values())

    until(lambda: sum(map(len, batches)) >= count, meanwhile=poll)
    return batches


@pytest.mark.usefixtures("kafka_client")
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_sasl_authentication(broker: Broker, fresh: Fresh, mechanism: str) -> None:
    works(broker.at("SASL"), broker.user(mechanism), fresh("orders"))


@pytest.mark.usefixtures("kafka_client")
def test_tls_with_a_client_certificate(broker: Broker, fresh: Fresh) -> None:
    works(broker.at("TLS"), broker.tls(), fresh("orders"))
    own = broker.tls(
        ssl_certfile=broker.file("client.pem"), ssl_keyfile=broker.file("client.key"), ssl_key_password=KEY_PASSWORD
    )
    works(broker.at("MUTUAL"), own, fresh("orders"))


REFUSED: dict[str, tuple[str, Callable[[Broker], KafkaSettings], type[LogError], str]] = {
    "wrong password, PLAIN": ("SASL", lambda b: b.user("PLAIN", password="x"), NotAuthorized, "wrong name or password"),
    "wrong password, SCRAM": ("SASL", lambda b: b.user(password="x"), NotAuthorized, "password for 'alice'.*SHA-512"),
    "nobody": ("SASL", lambda b: b.user(name="nobody"), NotAuthorized, "wrong name or password for 'nobody'"),
    "another mechanism": ("SCRAM", lambda b: b.user("PLAIN"), NotAuthorized, "does not offer PLAIN"),
    "no user": ("SASL", lambda b: b.tls(), NotAuthorized, "authenticates users, and SSL does not"),
    "no user, no TLS": (
        "BARE",
        lambda b: KafkaSettings(),
        NotAuthorized,
        "authenticates users, and PLAINTEXT does not",
    ),
    "a user too many": ("TLS", lambda b: b.user(), NotAuthorized, "does not authenticate users, and SASL_SSL does"),
    "unknown authority": (
        "TLS",
        lambda b: b.tls(ssl_cafile=b.file("other.pem")),
        NotAuthorized,
        "not accepted: unable",
    ),
    "the system's authorities": ("TLS", lambda b: b.tls(ssl_cafile=None), NotAuthorized, "certificate is not accepted"),
    "no certificate": ("MUTUAL", lambda b: b.tls(), NotAuthorized, "requires a client certificate"),
    "a stranger's certificate": (
        "MUTUAL",
        lambda b: b.tls(ssl_certfile=b.file("stranger.pem"), ssl_keyfile=b.file("stranger.key")),
        NotAuthorized,
        "got none that it accepts",
    ),
    "no TLS to TLS": (
        "TLS",
        lambda b: KafkaSettings(),
        LogUnavailable,
        "closes the connection; does it speak PLAINTEXT",
    ),
    "TLS to none": ("PLAINTEXT", lambda b: b.tls(), LogUnavailable, "does not speak TLS, which SSL requires"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_connection_says_why_at_once(broker: Broker, case: str) -> None:
    listener, settings, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message) as raised:
        connect(broker.at(listener), settings(broker))
    assert "\n" not in str(raised.value)
    assert PASSWORD not in str(raised.value)


def test_host_names_are_verified(broker: Broker) -> None:
    with pytest.raises(NotAuthorized, match=r"not accepted: .* not valid for '127\.0\.0\.1'"):
        connect(broker.at("TLS", "127.0.0.1"), broker.tls())


def test_one_bootstrap_server_of_several_is_enough(broker: Broker) -> None:
    connect(f"localhost:1,{broker.at('PLAINTEXT')},{broker.at('TLS')}", broker.tls()).close()
    gc.collect()


@pytest.mark.slow
def test_a_broker_that_advertises_another_host(broker: Broker) -> None:
    log = connect(broker.at("ELSEWHERE"), broker.tls(request_s=5))
    with contextlib.closing(log), pytest.raises(NotAuthorized, match=r"not valid for '127\.0\.0\.1'"):
        log.partitions("orders")
    gc.collect()


def test_a_port_that_never_responds_times_out(broker: Broker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for settings in (KafkaSettings(request_s=0.5), broker.tls(request_s=0.5)):
            with pytest.raises(LogUnavailable, match=r"does not answer .*([Tt]imed out|time-out)"):
                connect(f"127.0.0.1:{silent.getsockname()[1]}", settings)


@pytest.mark.usefixtures("kafka_client")
def test_missing_acls(broker: Broker, boss: EventLog, fresh: Fresh) -> None:
    hidden, seen = fresh("hidden"), fresh("seen")
    boss.create_topic(hidden, 1)
    boss.create_topic(seen, 1)
    write(boss, seen)
    grant(broker, "bob", (ResourceType.TOPIC, seen, "DESCRIBE"))
    with contextlib.closing(connect(broker.at("SASL"), broker.user("PLAIN", "bob"))) as log:
        denied: dict[str, Callable[[], object]] = {
            "topic .*Topic": lambda: log.partitions(hidden),
            "creating .*Topic|topic .*Topic": lambda: log.create_topic(fresh("new"), 1),
            "writing .*Authorization": lambda: write(log, seen),
            "reading.*Topic": lambda: list(log.read(seen, 0, 0, 1)),
            "settings can't be read.*DescribeConfigs": lambda: log.topic_config(seen),
            "offsets of group .*Group": lambda: log.committed(fresh("group"), seen),
            "writing .*TransactionalId": lambda: log.producer(fresh("writer")),
            "group .*Group": lambda: log.consumer(fresh("group"), seen).poll(5, 1),
        }
        until_allowed(log, seen)
        for message, call in denied.items():
            with pytest.raises(NotAuthorized, match=message):
                call()


@pytest.mark.usefixtures("kafka_client")
def test_the_acls_that_serving_needs(broker: Broker, boss: EventLog, fresh: Fresh) -> None:
    """Those that docs/operations.md tells of are enough for what a service does."""
    topic, group = fresh("orders"), fresh("group")
    state, output, instance = f"{group}-state", f"{topic}-forecasts", f"{group}-me"
    boss.create_topic(topic, 1)
    write(boss, topic)
    outputs = (output, f"{output}-scores", f"{output}-alerts")
    of_topics = [(topic, "READ"), (output, "READ"), (state, "CREATE"), (state, "READ"), (state, "WRITE")]
    of_topics += [(name, right) for name in outputs for right in ("CREATE", "WRITE")]
    rights = [(ResourceType.TOPIC, name, right) for name, right in of_topics]
    grant(
        broker,
        "carol",
        *rights,
        (ResourceType.GROUP, group, "READ"),
        (ResourceType.TRANSACTIONAL_ID, instance, "WRITE"),
    )
    with contextlib.closing(connect(broker.at("SASL"), broker.user("PLAIN", "carol"))) as log:
        until_allowed(log, topic)
        log.create_topic(state, 1, compacted=True)
        for name in outputs:
            log.create_topic(name, 1)
        consumer, passes = log.consumer(group, topic), log.producer(instance)
        assert values(polled(consumer, 1)) == [b"1"]
        for name in outputs:
            write(log, name)
        assert values(log.read(output, 0, 0, 1)) == [b"1"]
        consumer.commit({0: Commit(0)})
        passes.begin()
        passes.send(state, 0, b"k", b"2")
        passes.commit({0: Commit(1)}, consumer)
        assert values(log.read(state, 0, 0, log.bounds(state)[0].end)) == [b"2"]
        assert (consumer.committed([0]), log.bounds(topic)[0].end) == ({0: Commit(1)}, 1)


def grant(broker: Broker, user: str, *rights: tuple[ResourceType, str, str]) -> None:
    with KafkaAdminClient(bootstrap_servers=broker.at("PLAINTEXT")) as admin:
        for kind, name, right in rights:
            pattern, operation = ResourcePattern(kind, name), ACLOperation[right]
            admin.create_acls([ACL(f"User:{user}", "*", operation, ACLPermissionType.ALLOW, pattern)])


def write(log: EventLog, topic: str) -> None:
    with contextlib.closing(log.producer()) as producer:
        producer.send(topic, 0, b"k", b"1")
        producer.flush()


def until_allowed(log: EventLog, topic: str) -> None:
    def allowed() -> bool:
        with contextlib.suppress(NotAuthorized):
            log.partitions(topic)
            return True
        return False

    until(allowed)


def environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"TIDECAST_KAFKA_{name}", value)


def test_settings_from_environment_variables(
    broker: Broker, tidecast: Tidecast, fresh: Fresh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hours.csv").write_text("ts,value\n1704067200000,1\n1704070800000,2\n")
    environment(
        monkeypatch,
        SECURITY_PROTOCOL="SASL_SSL",
        SASL_MECHANISM="SCRAM-SHA-256",
        SASL_USERNAME="alice",
        SASL_PASSWORD=PASSWORD,
        SSL_CAFILE=broker.file("ca.pem"),
    )
    topic, where = fresh("power"), ("--bootstrap", broker.at("SASL"))
    assert tidecast("ingest", "hours.csv", "--topic", topic, *where).returncode == 0
    ended = tidecast("tail", topic, *where)
    assert (ended.returncode, len(ended.stdout.splitlines())) == (0, 2)
    environment(monkeypatch, SASL_PASSWORD="wrong-3K")
    ended = tidecast("tail", topic, *where)
    assert ended.returncode == 77
    assert re.fullmatch(
        r"tidecast: Kafka at .* wrong name or password for 'alice', or .* SCRAM-SHA-256 .*\)\n", ended.stderr
    )


def test_settings_from_a_file(broker: Broker, boss: EventLog, tidecast: Tidecast, fresh: Fresh, tmp_path: Path) -> None:
    topic = fresh("power")
    boss.create_topic(topic, 1)
    write(boss, topic)
    (tmp_path / "secret").write_text(f"{PASSWORD}\n")
    (tmp_path / "tidecast.toml").write_text(
        f"""
        bootstrap = "{broker.at("SASL")}"
        [kafka]
        security-protocol = "SASL_SSL"
        sasl-mechanism = "PLAIN"
        sasl-username = "alice"
        sasl-password-file = "secret"
        ssl-cafile = "{broker.file("ca.pem")}"
        request-s = 10
        """
    )
    ended = tidecast("tail", topic)
    assert (ended.returncode, len(ended.stdout.splitlines())) == (0, 1), ended.stderr
    (tmp_path / "secret").write_text("wrong-3K")
    ended = tidecast("tail", topic)
    assert ended.returncode == 77
    assert "wrong-3K" not in ended.stderr


class Lines(logging.Handler):
    """Everything that is logged, as text."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += f"{self.format(record)}\n"


@pytest.fixture
def debug_log() -> Iterator[Lines]:
    """What is logged at DEBUG, by the client too."""
    lines, loggers = Lines(), (logging.getLogger(), logging.getLogger("kafka"))
    levels = [logger.level for logger in loggers]
    loggers[0].addHandler(lines)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield lines
    loggers[0].removeHandler(lines)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.usefixtures("kafka_client")
@pytest.mark.parametrize(
    "mechanism", ["PLAIN", *(pytest.param(name, marks=pytest.mark.slow) for name in MECHANISMS[1:])]
)
def test_secrets_are_not_logged(broker: Broker, debug_log: Lines, fresh: Fresh, mechanism: str) -> None:
    works(broker.at("SASL"), broker.user(mechanism), fresh("orders"))
    own = {"ssl_certfile": broker.file("client.pem"), "ssl_keyfile": broker.file("client.key")}
    settings = broker.tls(**own, ssl_key_password=KEY_PASSWORD)
    connect(broker.at("MUTUAL"), settings).close()
    with pytest.raises(NotAuthorized) as raised:
        connect(broker.at("SASL"), broker.user(mechanism, password=f"{PASSWORD}."))
    assert "Starting KafkaAdminClient" in debug_log.text
    assert "SaslAuthenticateRequest" in debug_log.text
    shown = f"{debug_log.text}{raised.value}{broker.user(mechanism)}{settings}"
    sent = (PASSWORD.encode(), f"\0alice\0{PASSWORD}".encode(), f"alice\0alice\0{PASSWORD}".encode())
    for secret in (PASSWORD, KEY_PASSWORD, *(base64.b64encode(form).decode() for form in sent)):
        assert secret not in shown
    for part_of_a_proof in ("n,,n=alice", "c=biws", ",p=", ",s=", ",i=4096"):
        assert part_of_a_proof not in shown
