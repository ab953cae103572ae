"""Fixtures for tests of whole services: a small model, and a way to remove killed members from their group."""

from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import MemberToRemove
from sharing import Shared
from untrained import tiny_model


@pytest.fixture(scope="session")
def model_file(shared: Shared) -> Path:
    """An untrained model of one-minute steps: 12 back, 4 ahead."""
    return shared.made("tiny", lambda folder: tiny_model(folder / "tiny.onnx")) / "tiny.onnx"


@pytest.fixture(scope="session")
def evict() -> Callable[[str, str], None]:
    """evict(address, group) takes killed members out of a Kafka group, instead of waiting for the session timeout."""

    def evict(address: str, group: str) -> None:
        if address.startswith("sqlite:"):
            return
        with KafkaAdminClient(bootstrap_servers=address) as admin:
            members = admin.describe_groups([group])[group]["members"]
            admin.remove_group_members(group, [MemberToRemove(member_id=consumer["member_id"]) for consumer in members])

    return evict
