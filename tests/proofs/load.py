"""Load: clients that reserve over real connections, with a key each, and repeat each request until it is answered."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from tests.support.waiting import PATIENCE_SECONDS, wait_until

#: A server that has sent nothing for this long has lost the request.
TIMEOUT_SECONDS = 20.0

#: A client that got no response repeats its request after this time.
REPEAT_SECONDS = 0.05

#: The status of a request that nothing was decided about, so the same request is to be sent again.
BUSY = 503

#: The statuses of a request that was done, and of one that was refused for a reason: sold out, or not PENDING any more.
EXPECTED = (200, 201, 409)

T = TypeVar("T")


@dataclass(frozen=True)
class Response:
    """What an API answered."""

    status: int
    text: str
    replayed: bool

    @property
    def body(self) -> Mapping[str, Any]:
        body: Mapping[str, Any] = json.loads(self.text)
        return body


class Client:
    """One connection to an API, kept open for as long as possible."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def post(
        self, path: str, body: Mapping[str, object] | None = None, *, key: str | None = None, **headers: str
    ) -> Response:
        """Send a request once. Raises OSError or HTTPException if there is no response."""
        return self._send("POST", path, body, key, headers)

    def post_until_decided(
        self, path: str, body: Mapping[str, object] | None = None, *, key: str, **headers: str
    ) -> Response:
        """Send a request again while the answer is 503, which a busy machine gives now and then."""
        response = self.post(path, body, key=key, **headers)
        while response.status == BUSY:
            time.sleep(REPEAT_SECONDS)
            response = self.post(path, body, key=key, **headers)
        return response

    def put(self, path: str, body: Mapping[str, object]) -> Response:
        """Send a request once. Raises OSError or HTTPException if there is no response."""
        return self._send("PUT", path, body, None, {})

    def _send(
        self, method: str, path: str, body: Mapping[str, object] | None, key: str | None, headers: Mapping[str, str]
    ) -> Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent |= {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        try:
            self._connection.request(method, path, json.dumps(body or {}), sent)
            response = self._connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        return Response(response.status, text, response.headers.get("Idempotency-Replayed") == "true")

    def close(self) -> None:
        self._connection.close()


def at_once(callers: int, call: Callable[[int], T]) -> list[T]:
    """Call from this many threads at the same moment. Return what each call returned."""
    start = threading.Barrier(callers)

    def run(number: int) -> T:
        start.wait(PATIENCE_SECONDS)
        return call(number)

    with ThreadPoolExecutor(callers) as threads:
        return list(threads.map(run, range(callers)))


@dataclass
class Load:
    """Each client reserves again and again while the block runs, and cancels some of its reservations.

    A client that gets 503, or no response at all, repeats its request with the same key, as the contract says.
    `answered` are the reservations that were answered, by key, and `unexpected` the responses that no client should
    get.
    """

    ports: Sequence[int]
    item_ids: Sequence[int]
    seed: int
    clients: int = 6
    #: How long a client rests between two reservations, so that requests come steadily and do not flood the API.
    rest_seconds: float = 0.1
    #: The share of the reservations that are cancelled.
    cancelling: float = 0.3
    #: The beginning of all keys.
    name: str = "client"
    answered: dict[str, UUID] = field(default_factory=dict)
    _wanted: dict[str, Mapping[str, object]] = field(default_factory=dict)
    unexpected: list[Response] = field(default_factory=list)
    #: How many requests got no response or 503, and the longest time until a request was answered.
    unanswered: int = 0
    slowest_seconds: float = 0.0

    def __enter__(self) -> "Load":
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[number]) for number in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def wait(self, *, seconds: float = 0.0, answers: int = 0) -> None:
        """Wait until this much time has passed and this many more reservations were answered."""
        until, enough = time.monotonic() + seconds, len(self.answered) + answers
        wait_until(
            f"{answers} more reservations are answered",
            lambda: time.monotonic() >= until and len(self.answered) >= enough,
            within=seconds + PATIENCE_SECONDS,
        )

    def repeat(self, key: str) -> UUID | None:
        """Repeat a request that was answered. Return the id in the response, if it is marked as replayed."""
        with Client(self.ports[0]) as client:
            response = client.post("/reservations", self._wanted[key], key=key)
        return UUID(response.body["id"]) if (response.status, response.replayed) == (201, True) else None

    def _run(self, number: int) -> None:
        dice = Random(self.seed * 1_000 + number)
        clients = [Client(port) for port in self.ports]
        turn = 0
        while not self._stopping.is_set():
            key, turn = f"{self.name}-{number}-{turn}", turn + 1
            self._reserve(clients, key, dice)
            self._stopping.wait(self.rest_seconds * dice.uniform(0.5, 1.5))
        for client in clients:
            client.close()

    def _reserve(self, clients: Sequence[Client], key: str, dice: Random) -> None:
        wanted = {"item_id": dice.choice(self.item_ids), "quantity": dice.randint(1, 3)}
        self._wanted[key] = wanted
        made = self._until_answered(clients, "/reservations", wanted, key, dice)
        if made.status != 201:
            return
        self.answered[key] = UUID(made.body["id"])
        if dice.random() < self.cancelling:
            self._until_answered(clients, f"/reservations/{made.body['id']}/cancel", {}, key, dice)

    def _until_answered(
        self, clients: Sequence[Client], path: str, body: Mapping[str, object], key: str, dice: Random
    ) -> Response:
        began = time.monotonic()
        while time.monotonic() < began + PATIENCE_SECONDS:
            response = self._post(dice.choice(clients), path, body, key)
            if response is not None and response.status != BUSY:
                self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
                if response.status not in EXPECTED:
                    self.unexpected.append(response)
                return response
            self.unanswered += 1
            time.sleep(REPEAT_SECONDS)
        raise AssertionError(f"{path} was not answered for {PATIENCE_SECONDS} s.")

    @staticmethod
    def _post(client: Client, path: str, body: Mapping[str, object], key: str) -> Response | None:
        try:
            return client.post(path, body, key=key)
        except (OSError, http.client.HTTPException):
            return None
