"""The server: its services, and how much of everything their clients may have."""

from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest

from api.auth.gate import Gate
from api.connections import Connections
from api.grpc import health, reflection
from api.grpc.calls import Access, streaming, unary
from api.grpc.groups import Group
from api.grpc.health import Health
from api.grpc.methods import Methods
from api.grpc.proto import reservation_pb2 as proto
from api.grpc.query import STREAMS, Query
from api.grpc.reflection import reflecting
from api.grpc.reservations import Reservations
from api.grpc.time_limits import TimeLimit
from api.grpc.transactions import Transactions
from api.ports import allow_connections
from domain.outbox import Routes
from domain.outbox.operations.routes_check import RoutesCheck
from domain.runtime.settings import Settings

SERVICE = proto.DESCRIPTOR.services_by_name["ReservationService"].full_name

#: The calls that are answered at a time, each by a thread, which mostly waits. One client has most of them at most, so
#: that there is a place for others; for whatever their calls need next, clients take turns.
MOST_CALLS, MOST_CALLS_OF_CLIENT = 1_024, 768

#: The streams of one client, of all that there may be.
MOST_STREAMS_OF_CLIENT = STREAMS // 2

#: The calls of the other services. Some of them stay open.
MOST_CHECKS, MOST_WATCHES, MOST_REFLECTIONS = 8, 16, 8

#: A message that has not come within this time after its call never comes. Health is asked for by neighbours, who have
#: few places.
MESSAGE_SECONDS, HEALTH_MESSAGE_SECONDS = 5.0, 1.0

#: The same for the further messages of a call for reflection.
REFLECTION_SECONDS = 20.0

#: The largest message, as the largest body over HTTP, and the largest metadata of a call.
MAX_MESSAGE_BYTES, MAX_METADATA_BYTES = 65_536, 16_384

#: The calls that one connection may have at a time. Its client's library keeps others waiting.
MOST_CALLS_OF_CONNECTION = 512

#: The calls that wait until the server has found their methods. Beyond the first number, some of them are cancelled,
#: whoever has sent them, and beyond the second one all.
MOST_NEW_CALLS, FAR_TOO_MANY_NEW_CALLS = 10_000, 20_000

#: The connections that a server may have.
MOST_CONNECTIONS = 8_000

#: A connection whose client has not begun to speak gRPC within this time, in milliseconds, is closed.
HANDSHAKE_MILLISECONDS = 5_000

#: A connection whose client does not answer for this time, in milliseconds, is closed. So is one without calls: its
#: client's library is asked not to use it any more, and opens another one for its next call.
PING_MILLISECONDS, PING_TIMEOUT_MILLISECONDS, IDLE_MILLISECONDS = 20_000, 10_000, 30_000

OPTIONS = (
    # Two servers would share the port, and clients would be sent to either.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MOST_CALLS_OF_CONNECTION),
    ("grpc.server.max_pending_requests", MOST_NEW_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", FAR_TOO_MANY_NEW_CALLS),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MILLISECONDS),
    ("grpc.keepalive_time_ms", PING_MILLISECONDS),
    ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MILLISECONDS),
    ("grpc.max_connection_idle_ms", IDLE_MILLISECONDS),
)

#: Calls in flight get this time to end when the server stops. Streams that have not ended by then are cancelled.
GRACE_SECONDS = 5.0


class Server:
    """The services, at a port."""

    def __init__(self, settings: Settings, routes: Routes, check: RoutesCheck | None = None) -> None:
        """With a check, nothing is recorded before it has succeeded."""
        self._settings = settings
        self._gate = Gate.of(settings)
        self._transactions = Transactions(settings, routes, check)
        self._health = Health(self._transactions.health_of_database, SERVICE)
        self._receiving = TimeLimit(MESSAGE_SECONDS)
        self._calls = Group("calls", most=MOST_CALLS, share=MOST_CALLS_OF_CLIENT, receiving=self._receiving)
        self._query = Query(settings, self._calls.is_used)
        self._probing = TimeLimit(HEALTH_MESSAGE_SECONDS)
        self._reflecting = TimeLimit(REFLECTION_SECONDS)
        methods = Methods(self._gate)
        self._add_reservations(methods, Reservations(self._transactions, routes, settings))
        self._add_health(methods)
        self._add_reflection(methods)
        self._methods = methods

    def _add_reservations(self, methods: Methods, one: Reservations) -> None:
        group = self._calls
        access = self._access
        handlers = {
            "reserve": unary("reserve", proto.ReserveRequest, one.reserve, group, access("reservations.make")),
            "confirm": unary("confirm", proto.ConfirmRequest, one.confirm, group, access("reservations.confirm")),
            "update": unary("update", proto.UpdateRequest, one.update, group, access("reservations.change")),
            "cancel": unary("cancel", proto.CancelRequest, one.cancel, group, access("reservations.cancel")),
            "get": unary("get", proto.GetRequest, one.get, group, access("reservations.read")),
        }
        methods.add(SERVICE, group, handlers)
        streams = Group(
            "streams", most=STREAMS, share=MOST_STREAMS_OF_CLIENT, receiving=self._receiving, makes_room=True
        )
        methods.add(
            SERVICE,
            streams,
            {"Query": streaming("Query", proto.QueryRequest, self._query.stream, streams, access("reservations.list"))},
        )

    def _access(self, operation: str) -> Access:
        return Access(self._gate, operation)

    def _add_health(self, methods: Methods) -> None:
        checks = Group("checks", most=MOST_CHECKS, share=MOST_CHECKS, receiving=self._probing)
        methods.add(
            health.SERVICE,
            checks,
            {"Check": unary("Check", HealthCheckRequest, self._health.check, checks, self._access("health.read"))},
        )
        watches = Group("watches", most=MOST_WATCHES, share=MOST_WATCHES, receiving=self._probing)
        methods.add(
            health.SERVICE,
            watches,
            {"Watch": streaming("Watch", HealthCheckRequest, self._health.watch, watches, self._access("health.read"))},
        )

    def _add_reflection(self, methods: Methods) -> None:
        services = [SERVICE, health.SERVICE, reflection.SERVICE]
        group = Group("reflection", most=MOST_REFLECTIONS, share=MOST_REFLECTIONS, receiving=self._reflecting)
        methods.add(reflection.SERVICE, group, {"ServerReflectionInfo": reflecting(services, group)})

    def start(self) -> None:
        """Begin to answer calls."""
        self._transactions.start()
        self._gate.start()
        for part in (self._receiving, self._probing, self._reflecting, self._query, self._health):
            part.start()
        # Each group of methods has threads of its own, and nothing else needs any.
        most = allow_connections(MOST_CONNECTIONS)
        options = (*OPTIONS, ("grpc.max_allowed_incoming_connections", most))
        self._grpc = grpc.server(ThreadPoolExecutor(1), handlers=[self._methods], options=options)
        self._grpc.add_insecure_port(_address(self._settings))
        self._grpc.start()
        # The library itself ends those whose clients send nothing.
        self._connections = Connections(
            self._settings.host, self._settings.grpc_port, most, self._gate.addresses, needs_request=False
        )
        self._connections.start()

    def stop(self) -> None:
        """Refuse further calls, answer those in flight, and disconnect."""
        self._health.close()
        self._connections.stop()
        self._grpc.stop(GRACE_SECONDS).wait()
        self._gate.stop()
        for part in (self._receiving, self._probing, self._reflecting, self._query, self._transactions):
            part.close()


def _address(settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.grpc_port}"
