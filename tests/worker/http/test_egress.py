"""Webhooks go to public addresses and into the private networks that the settings name, and nowhere else."""

import socket
from collections.abc import Iterator
from ipaddress import ip_network
from threading import Event

import pytest

from domain.outbox import Delivered, Outcome, Route, Unreachable
from domain.runtime.errors import ConfigurationError
from tests.support.builders import some_settings
from tests.support.http_server import Server, a_server, saying
from tests.worker.sinks.test_webhook import a_row
from worker.http import egress
from worker.http.egress import may_be_called
from worker.ordering.pace import Pace
from worker.sinks.webhook import Webhook


@pytest.mark.parametrize(
    "address",
    [
        "93.184.215.14",
        "2606:2800:21f:cb07:6820:80da:af6b:8b2c",
        "::ffff:93.184.215.14",
        "64:ff9b::5db8:d70e",
        "2002:5db8:d70e::1",
        "2606:2800::5efe:93.184.215.14",
        "192.0.1.1",
        "2001:200::1",
        "3ffe::1",
    ],
)
def test_a_public_address_may_be_called(address: str) -> None:
    assert may_be_called(address, [])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",  # where machines in a cloud get their credentials
        "100.64.0.1",
        "224.0.1.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "fec0::1",
        "::7f00:1",
        "::a01:203",
        "168.63.129.16",
        "192.0.0.192",
        "192.0.0.9",
        "192.88.99.1",
        "198.18.0.1",
        "240.0.0.1",
        "::ffff:168.63.129.16",
        "::ffff:0:127.0.0.1",
        "::ffff:0:10.0.0.1",
        "2606:2800::5efe:10.0.0.1",
        "2606:2800::200:5efe:192.168.0.1",
        "2002:5db8:d70e::5efe:127.0.0.1",
        "fd00::5efe:93.184.215.14",
        "2002:a83f:8110::",
        "2001::1",
        "2001:0:5db8:d70e::1",
        "2001:20::1",
        "2001:db8::1",
        "3fff::1",
        "3fff:fff::1",
        "5f00::1",
        "100::1",
        "100:0:0:1::1",
        "4000::1",
    ],
)
def test_a_private_address_may_not_be_called(address: str) -> None:
    assert not may_be_called(address, [])


def test_a_private_network_may_be_called_if_it_is_allowed_and_no_other() -> None:
    allowed = [ip_network("10.1.0.0/16"), ip_network("::1/128")]

    assert may_be_called("10.1.255.1", allowed) and may_be_called("::1", allowed)
    assert may_be_called("::ffff:10.1.0.1", allowed)
    assert not may_be_called("10.2.0.1", allowed)


def test_a_tunnel_needs_both_of_its_ends_to_be_allowed() -> None:
    inside, outside = ip_network("10.0.0.0/8"), ip_network("fd00::/8")

    assert may_be_called("fd00::5efe:10.0.0.1", [inside, outside])
    assert not may_be_called("fd00::5efe:10.0.0.1", [inside])
    assert not may_be_called("fd00::5efe:10.0.0.1", [outside])


@pytest.fixture
def server() -> Iterator[Server]:
    with a_server() as server:
        yield server


def posted(url: str, *, allowed: str = "") -> Outcome:
    settings = some_settings(webhook_private_networks=allowed, delivery_timeout_seconds=2)
    webhook = Webhook(Route(name="partner", url=url), settings, Pace(Event()))
    (outcome,) = webhook.deliver([a_row()])
    webhook.close()
    return outcome


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_this_machine_is_not_called_however_its_address_is_written(server: Server, host: str) -> None:
    outcome = posted(f"http://{host}:{server.server_port}/hook")

    assert isinstance(outcome, Unreachable)
    assert "private address" in outcome.error and "WEBHOOK_PRIVATE_NETWORKS" in outcome.error
    assert server.requests == []


def test_this_machine_is_called_if_the_settings_allow_it(server: Server) -> None:
    assert posted(f"http://localhost:{server.server_port}/hook", allowed="127.0.0.0/8") == Delivered()


def test_a_name_that_resolves_to_another_address_the_next_time_can_not_lead_there(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resolver of names, which is not our code, is replaced: its first answer is public, its second one private."""
    answers = iter(["93.184.215.14", "127.0.0.1"])
    asked: list[str] = []

    def resolving(host: str, port: int, *_: object, **__: object) -> list[object]:
        asked.append(host)
        address = host if host[0].isdigit() else next(answers)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolving)

    found = egress.resolve("rebinding.example", server.server_port, [])

    assert list(found) == ["93.184.215.14"]
    assert asked == ["rebinding.example"]


def test_a_redirect_into_a_private_network_is_not_followed(server: Server) -> None:
    with a_server() as inside:
        server.answer = saying(307, Location=inside.url)
        outcome = posted(server.url, allowed="127.0.0.0/8")

        assert not isinstance(outcome, Delivered)
        assert inside.requests == []


def test_a_name_that_does_not_exist_is_an_outage() -> None:
    outcome = posted("http://nowhere.invalid/hook")

    assert isinstance(outcome, Unreachable) and "can't be resolved" in outcome.error


def test_the_worker_does_not_start_with_a_host_that_can_not_exist() -> None:
    with pytest.raises(ConfigurationError, match=r"^HOLDFAST_ROUTES: destination 'partner': its URL can't be used: "):
        posted("http://xn--\u00fc.example/hook")


def test_a_name_that_is_too_long_is_an_outage() -> None:
    assert isinstance(posted(f"http://{'a' * 70}.example/hook"), Unreachable)
