"""How the tests of this folder are marked."""

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark every test as slow, because it runs real servers. Those of RabbitMQ run in one process and share a node."""
    item.add_marker("slow")
    if isinstance(item, pytest.Function) and item.callspec.params.get("name") == "amqp":
        item.add_marker(pytest.mark.xdist_group("rabbitmq"))
