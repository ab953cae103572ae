"""What tests of whole services share: a small model, and killed members that do not linger."""

from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import MemberToRemove
from sharing import Shared
from world import tiny_model


@pytest.fixture(scope="session")
def model_file(shared: Shared) -> Path:
    """An untrained model of one-minute steps: 12 back, 4 ahead."""
    return shared.made("tiny", lambda folder: tiny_model(folder / "tiny.onnx")) / "tiny.onnx"


@pytest.fixture(scope="session")
def evict() -> Callable[[str, str], None]:
    """evict(address, group) takes killed members out of a Kafka group, instead of waiting for their sessions' end."""

    def evict(address: str, group: str) -> None:
        if address.startswith("sqlite:"):
            return
        with KafkaAdminClient(bootstrap_servers=address) as admin:
            members = admin.describe_groups([group])[group]["members"]
            admin.remove_group_members(group, [MemberToRemove(member_id=consumer["member_id"]) for consumer in members])

    return evict
