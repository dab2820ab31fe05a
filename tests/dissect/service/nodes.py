"""A Ray cluster of several nodes on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

MEMORY = 80 << 20


@contextmanager
def cluster(cpus: int = 2) -> Iterator[Any]:
    """A head without CPUs and one node with some; skips the test where Ray is not installed."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_DISABLE_IMPORT_WARNING"] = "1"
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": MEMORY, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=head)
    try:
        add_node(found, cpus)
        yield found
    finally:
        found.shutdown()


def add_node(to: Any, cpus: int = 2) -> Any:
    """Another node, once it is there."""
    node = to.add_node(num_cpus=cpus, object_store_memory=MEMORY)
    to.wait_for_nodes()
    return node
