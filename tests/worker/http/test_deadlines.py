"""A host with several addresses is called at one that answers, within the time of one call."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from ipaddress import ip_network

import pytest

from domain.outbox import Delivered, Outcome, Unreachable
from domain.runtime.settings import Network
from tests.support.http_server import Server, a_server, saying, trickling
from worker.http.client import Http

#: Longer than a connection to this machine takes, even when others are busy.
TIMEOUT_SECONDS = 3.0

#: Addresses of this machine at which nobody listens, unless a test does.
SECOND, THIRD = "127.0.0.2", "127.0.0.3"


@pytest.fixture
def swallowing(server: Server) -> Iterator[None]:
    """Listen at the server's port of two further addresses, and have them swallow all packets of new connections."""
    with ExitStack() as stack:
        for address in (SECOND, THIRD):
            listener = stack.enter_context(socket.create_server((address, server.server_port), backlog=0))
            # Nobody accepts it, so it fills the queue of the listener. Linux drops what arrives then.
            stack.enter_context(socket.create_connection(listener.getsockname()))
            with pytest.raises(TimeoutError):
                socket.create_connection(listener.getsockname(), timeout=0.1)
        yield


def resolve_to(environment: pytest.MonkeyPatch, addresses: Sequence[str]) -> None:
    """Give partner.example these addresses. The resolver of names, which is not our code, is replaced."""

    def resolving(host: str, port: int, *_: object, **__: object) -> list[object]:
        found = addresses if host == "partner.example" else [host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    environment.setattr(socket, "getaddrinfo", resolving)


def client(
    server: Server, *, timeout_seconds: float = TIMEOUT_SECONDS, allowed: Sequence[Network] | None = None
) -> closing[Http]:
    url = f"http://partner.example:{server.server_port}/hook"
    return closing(Http(url, timeout_seconds=timeout_seconds, connections=1, allowed=allowed))


def posted(
    server: Server,
    environment: pytest.MonkeyPatch,
    addresses: Sequence[str],
    *,
    allowed: Sequence[Network] | None = None,
) -> Outcome:
    """Post once to a host with these addresses."""
    resolve_to(environment, addresses)
    with client(server, allowed=allowed) as http:
        return http.post("{}", {})


@pytest.mark.timed
@pytest.mark.usefixtures("swallowing")
@pytest.mark.parametrize("allowed", [None, [ip_network("127.0.0.0/8")]], ids=["any address", "allowed networks"])
def test_addresses_that_swallow_packets_leave_time_to_one_that_answers(
    server: Server, monkeypatch: pytest.MonkeyPatch, allowed: Sequence[Network] | None
) -> None:
    assert posted(server, monkeypatch, [SECOND, THIRD, "127.0.0.1"], allowed=allowed) == Delivered()


@pytest.mark.timed
@pytest.mark.usefixtures("swallowing")
def test_addresses_that_all_swallow_packets_take_the_time_of_one_call(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()

    outcome = posted(server, monkeypatch, [SECOND, THIRD])

    assert isinstance(outcome, Unreachable) and "Timeout" in outcome.error
    assert TIMEOUT_SECONDS * 0.9 < time.monotonic() - began < TIMEOUT_SECONDS * 1.5


def test_an_address_that_refuses_connections_leaves_all_the_time_to_the_next_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = saying(200)

    assert posted(server, monkeypatch, [SECOND, "127.0.0.1"]) == Delivered()


@pytest.mark.timed
def test_a_connected_address_that_does_not_answer_gets_all_the_time_and_the_request_goes_nowhere_else(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = trickling(b"", b"", every_seconds=0.05)
    began = time.monotonic()

    outcome = posted(server, monkeypatch, ["127.0.0.1", SECOND])

    assert isinstance(outcome, Unreachable) and "ReadTimeout" in outcome.error
    assert TIMEOUT_SECONDS * 0.9 < time.monotonic() - began < TIMEOUT_SECONDS * 1.5
    assert len(server.requests) == 1


@pytest.mark.timed
@pytest.mark.usefixtures("swallowing")
def test_an_address_that_swallows_packets_takes_time_of_the_first_connection_only(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, [SECOND, "127.0.0.1"])
    server.answer = saying(200, Connection="close")
    with client(server, timeout_seconds=10) as http:
        assert http.post("{}", {}) == Delivered()
        began = time.monotonic()

        outcomes = [http.post("{}", {}) for _ in range(2)]

    assert outcomes == [Delivered()] * 2
    assert len(server.connections) == 3
    assert time.monotonic() - began < 4, "half of the time-out, twice, is 10 s"


def test_a_remembered_address_that_fails_leaves_its_time_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, [SECOND, "127.0.0.1"])
    with ExitStack() as stack:
        with a_server() as before:
            before.answer = saying(200, Connection="close")
            http = stack.enter_context(client(before))
            assert http.post("{}", {}) == Delivered()
        after = stack.enter_context(a_server(SECOND, before.server_port))

        outcome = http.post("{}", {})

    assert outcome == Delivered()
    assert len(after.requests) == 1


def test_a_remembered_address_that_the_host_no_longer_has_is_not_called(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer = saying(200, Connection="close")
    with client(server) as http:
        resolve_to(monkeypatch, [SECOND, "127.0.0.1"])
        assert http.post("{}", {}) == Delivered()
        resolve_to(monkeypatch, [SECOND, THIRD])

        outcome = http.post("{}", {})

    assert isinstance(outcome, Unreachable)
    assert len(server.requests) == 1


def test_while_no_address_fails_the_order_of_the_resolver_counts(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_server(SECOND, server.server_port) as second, client(server) as http:
        server.answer = second.answer = saying(200, Connection="close")
        for addresses in (["127.0.0.1", SECOND], [SECOND, "127.0.0.1"]):
            resolve_to(monkeypatch, addresses)
            assert http.post("{}", {}) == Delivered()

    assert (len(server.requests), len(second.requests)) == (1, 1)
