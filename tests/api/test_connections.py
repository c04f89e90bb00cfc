"""Connections that do a server no good: those on which no request comes, and those of an address that has too many."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_network
from socket import AF_INET, AF_INET6

import pytest

from api import connections as module
from api.auth.limits.addresses import Addresses
from api.connections import Connections

#: The connections that there may be, and those that one address may have when half of them are open.
MOST, SHARE = 40, 10

ONE, OTHER, GATEWAY = "127.0.0.1", "127.0.0.2", "127.0.0.3"

#: Open a connection from an address. Return its end at the client.
Open = Callable[[str], socket.socket]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def listening(stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_server((ONE, 0), backlog=100))


@pytest.fixture
def connect(stack: ExitStack, listening: socket.socket) -> Open:
    return connecting_to(listening, stack)


def connecting_to(listening: socket.socket, stack: ExitStack) -> Open:
    def connect(address: str) -> socket.socket:
        client = socket.create_connection(listening.getsockname()[:2], source_address=(address, 0))
        server, _ = listening.accept()
        stack.enter_context(server)
        return stack.enter_context(client)

    return connect


def connections_of(listening: socket.socket, *, host: str = ONE, needs_request: bool = False) -> Connections:
    addresses = Addresses([ip_network(f"{GATEWAY}/32")])
    return Connections(host, listening.getsockname()[1], MOST, addresses, needs_request=needs_request)


def is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return bool(client.recv(1))
    except BlockingIOError:
        return True


def test_an_address_keeps_its_share_when_half_of_all_connections_are_open(
    listening: socket.socket, connect: Open
) -> None:
    connections = connections_of(listening)
    first = [connect(ONE) for _ in range(SHARE)]
    modest = [connect(OTHER) for _ in range(SHARE)]
    connections.look()
    further = [connect(ONE) for _ in range(SHARE)]

    connections.look()

    assert all(map(is_open, [*first, *modest]))
    assert not any(map(is_open, further))


def test_an_address_that_was_refused_more_may_not_have_them_when_others_have_gone(
    listening: socket.socket, connect: Open
) -> None:
    connections = connections_of(listening)
    clients = [connect(ONE) for _ in range(MOST // 2 + 1)]
    connections.look()
    for client in clients:
        client.close()
    further = [connect(ONE) for _ in range(SHARE)]

    connections.look()

    assert not any(map(is_open, further))


def test_an_address_may_have_more_while_few_connections_are_open(listening: socket.socket, connect: Open) -> None:
    clients = [connect(ONE) for _ in range(MOST // 2)]

    connections_of(listening).look()

    assert all(map(is_open, clients))


def test_a_gateway_that_is_trusted_may_have_all_connections(listening: socket.socket, connect: Open) -> None:
    clients = [connect(GATEWAY) for _ in range(MOST)]

    connections_of(listening).look()

    assert all(map(is_open, clients))


def test_a_connection_without_a_request_is_ended(
    listening: socket.socket, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = connections_of(listening, needs_request=True)
    silent, used = connect(ONE), connect(ONE)
    connections.look()
    connections.use(used.getsockname())
    monkeypatch.setattr(module, "FIRST_REQUEST_SECONDS", 0.0)
    new = connect(ONE)

    connections.look()

    assert [is_open(client) for client in (silent, used, new)] == [False, True, True]


def test_a_server_whose_library_wants_requests_itself_keeps_silent_connections(
    listening: socket.socket, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_REQUEST_SECONDS", 0.0)
    connections = connections_of(listening)
    client = connect(ONE)

    for _ in range(2):
        connections.look()

    assert is_open(client)


@pytest.mark.parametrize(
    ("bound", "host"),
    [("::1", "::1"), ("::", "::"), ("::", "0.0.0.0"), ("::ffff:127.0.0.1", ONE), (ONE, "::ffff:127.0.0.1")],
)
def test_connections_are_found_whatever_address_is_listened_at(bound: str, host: str, stack: ExitStack) -> None:
    """Whoever listens at an address of IPv4 may have a socket of IPv6 for it, as the library of gRPC has."""
    family = AF_INET6 if ":" in bound else AF_INET
    listening = stack.enter_context(socket.create_server((bound, 0), family=family, dualstack_ipv6=family != AF_INET))
    connect = connecting_to(listening, stack)
    address = "::1" if bound in ("::1", "::") else ("::ffff:" + ONE if family != AF_INET else ONE)
    clients = [connect(address) for _ in range(MOST)]

    connections_of(listening, host=host).look()

    assert sum(map(is_open, clients)) == SHARE


def test_a_connection_of_this_process_to_a_server_is_never_ended(
    listening: socket.socket, connect: Open, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have the port that is listened at, from another address."""
    monkeypatch.setattr(module, "FIRST_REQUEST_SECONDS", -1.0)
    server = stack.enter_context(socket.create_server((OTHER, 0)))
    port = listening.getsockname()[1]
    own = stack.enter_context(socket.socket())
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection that has ended may still have the port
    own.bind((OTHER, port))
    own.connect(server.getsockname())

    connections_of(listening, needs_request=True).look()

    assert is_open(own)


def test_many_connections_take_little_of_a_processor(listening: socket.socket) -> None:
    connections = connections_of(listening)

    few, many = connections._rest_after(0.001), connections._rest_after(0.1)

    assert few == module.LOOK_SECONDS
    assert many == pytest.approx(2.9)


def test_what_is_known_of_a_connection_is_forgotten_with_it(listening: socket.socket) -> None:
    connections = connections_of(listening)
    with socket.create_connection(listening.getsockname()) as client, listening.accept()[0]:
        connections.use(client.getsockname())
        connections.look()
        assert len(connections._seen) == len(connections._used) == 1

    connections.look()

    assert not connections._seen and not connections._used


def test_only_connections_at_the_port_are_ended(
    listening: socket.socket, connect: Open, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_REQUEST_SECONDS", -1.0)
    elsewhere = stack.enter_context(socket.create_server((ONE, 0)))
    others = [stack.enter_context(socket.create_connection(elsewhere.getsockname())) for _ in range(MOST)]
    pair = [stack.enter_context(one) for one in socket.socketpair()]
    client = connect(ONE)
    before = os.listdir(module.FILES)

    connections_of(listening, needs_request=True).look()

    assert os.listdir(module.FILES) == before
    assert all(map(is_open, [*others, *pair]))
    assert not is_open(client)
    assert connect(ONE), "the port is still listened at"


def test_each_connection_of_one_port_to_several_addresses_counts(stack: ExitStack) -> None:
    listening = stack.enter_context(socket.create_server(("0.0.0.0", 0), backlog=10))
    port, own = listening.getsockname()[1], 0
    for to in (ONE, OTHER, GATEWAY):
        client = stack.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind(("127.0.0.9", own))
        client.connect((to, port))
        own = client.getsockname()[1]
        stack.enter_context(listening.accept()[0])
    connections = Connections("0.0.0.0", port, MOST, Addresses([]), needs_request=False)

    connections.look()

    assert len(connections._seen) == 3


def test_a_gateway_that_is_trusted_may_connect_before_it_has_a_request(
    listening: socket.socket, connect: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = connections_of(listening, needs_request=True)
    ahead, silent = connect(GATEWAY), connect(ONE)
    connections.look()
    monkeypatch.setattr(module, "FIRST_REQUEST_SECONDS", 0.0)

    connections.look()

    assert is_open(ahead) and not is_open(silent)


def test_what_came_while_the_process_was_frozen_is_not_taken_for_silence(
    listening: socket.socket, connect: Open
) -> None:
    connections = connections_of(listening, needs_request=True)
    client = connect(ONE)
    connections.look()
    connections._seen = {one: seen - 60 for one, seen in connections._seen.items()}
    connections._looked_at -= 60

    connections.look()

    assert is_open(client)
