"""Delivery guarantees when services and a broker are killed, checked with the oracle of tests/faults.

All faults are in `make faults`; these few run with the other tests.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

import pytest
from cluster import Cluster
from faults import BOTH, final_verdict
from scenarios.killed import kill_at_each_step
from world import World

from deploy.settings.serve import Guarantee
from pipeline.log.settings import ClientName

RECORDS = 6_000


def assert_delivered(world: World) -> None:
    verdict, is_right = final_verdict(world)
    assert is_right, f"{world.guarantee}: {verdict}"


@pytest.mark.slow
@pytest.mark.parametrize("client", get_args(ClientName))
def test_kill_at_each_step(
    kafka_bootstrap: str,
    model_file: Path,
    tmp_path: Path,
    fresh: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    client: ClientName,
) -> None:
    """Exactly once, each output is there once; at least once, some of a killed batch are repeated, identically."""
    monkeypatch.setenv("TIDECAST_KAFKA_CLIENT", client)

    def killed(guarantee: Guarantee) -> None:
        folder = tmp_path / guarantee
        folder.mkdir()
        with World(fresh("steps"), guarantee, kafka_bootstrap, model_file, folder) as world:
            kill_at_each_step(world, RECORDS)
            assert_delivered(world)

    with ThreadPoolExecutor() as pool:
        list(pool.map(killed, BOTH))


@pytest.mark.slow
@pytest.mark.filterwarnings(  # kafka-python leaves a socket that could not connect to the collector
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_killed_broker(model_file: Path, tmp_path: Path, fresh: Callable[[str], str]) -> None:
    """One of three, which leads a third of the partitions and coordinates a group, is killed: all continue."""
    if not (home := os.environ.get("KAFKA_HOME")):
        pytest.skip("KAFKA_HOME is not set: this needs Apache Kafka, its bin/kafka and a Java to run it")
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster(tmp_path / "kafka", Path(home), None))
        worlds = [
            stack.enter_context(World(fresh("leader"), guarantee, cluster.bootstrap, model_file, tmp_path))
            for guarantee in BOTH
        ]
        with ExitStack() as load:
            for world in worlds:
                world.serve(world.guarantee)
                load.enter_context(world.sending(rate=300, at_least=RECORDS))
            for world in worlds:
                world.until_commit()
            cluster.kill(cluster.group_coordinator(worlds[1].group))
            for world in worlds:
                world.until_all_commit()
        for world in worlds:
            assert_delivered(world)
