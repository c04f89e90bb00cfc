"""A host with several addresses is called at one that answers, within the time of one call."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from ipaddress import ip_network

import pytest

from domain.outbox import Delivered, Outcome, Unreachable
from domain.runtime.settings import Network
from tests.support.http_server import Server, saying, trickling
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


def posted(
    server: Server,
    environment: pytest.MonkeyPatch,
    addresses: Sequence[str],
    *,
    allowed: Sequence[Network] | None = None,
) -> Outcome:
    """Post to a host with these addresses. The resolver of names, which is not our code, is replaced."""

    def resolving(host: str, port: int, *_: object, **__: object) -> list[object]:
        found = addresses if host == "partner.example" else [host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    environment.setattr(socket, "getaddrinfo", resolving)
    http = Http(
        f"http://partner.example:{server.server_port}/hook",
        timeout_seconds=TIMEOUT_SECONDS,
        connections=1,
        allowed=allowed,
    )
    outcome = http.post("{}", {})
    http.close()
    return outcome


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
