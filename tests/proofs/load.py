"""Those who reserve: over real connections, with a key each, again and again until they are answered."""

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

from tests.proofs.waiting import PATIENCE_SECONDS, wait_until

#: A server that is silent for so long has lost the request.
TIMEOUT_SECONDS = 20.0

#: Who gets no answer asks again after this long.
ASK_AGAIN_SECONDS = 0.05

#: Done, done, and a no that has a reason: sold out, or not PENDING any more.
EXPECTED = (200, 201, 409)

T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """What an API said."""

    status: int
    text: str
    replayed: bool

    @property
    def body(self) -> Mapping[str, Any]:
        body: Mapping[str, Any] = json.loads(self.text)
        return body


class Door:
    """One connection to an API, kept open as long as it can be."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> "Door":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def post(
        self, path: str, body: Mapping[str, object] | None = None, *, key: str | None = None, **headers: str
    ) -> Answer:
        """Send a request once. Raises OSError or HTTPException if there is no answer."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent |= {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        return self._ask("POST", path, json.dumps(body or {}), sent)

    def get(self, path: str) -> Answer:
        return self._ask("GET", path, None, {})

    def _ask(self, method: str, path: str, body: str | None, headers: Mapping[str, str]) -> Answer:
        try:
            self._connection.request(method, path, body, dict(headers))
            response = self._connection.getresponse()
            written = response.read().decode()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        return Answer(response.status, written, response.headers.get("Idempotency-Replayed") == "true")

    def close(self) -> None:
        self._connection.close()


def at_once(callers: int, call: Callable[[int], T]) -> list[T]:
    """Call from so many threads at the same moment. Return what each call returned."""
    start = threading.Barrier(callers)

    def run(number: int) -> T:
        start.wait(PATIENCE_SECONDS)
        return call(number)

    with ThreadPoolExecutor(callers) as threads:
        return list(threads.map(run, range(callers)))


@dataclass
class Customers:
    """Load: each customer reserves, and some cancel afterwards, until they are told to stop.

    Who gets 503, or no answer at all, asks again with the same key, as the contract
    says. What was answered is remembered, and so is any answer that should not be.
    """

    ports: Sequence[int]
    item_ids: Sequence[int]
    seed: int
    customers: int = 6
    #: How long each rests between two reservations, so that there is a load and no flood.
    rest_seconds: float = 0.1
    cancelling: float = 0.3
    #: Begins their keys.
    name: str = "customer"
    answered: dict[str, UUID] = field(default_factory=dict)
    _wanted: dict[str, Mapping[str, object]] = field(default_factory=dict)
    unexpected: list[Answer] = field(default_factory=list)
    #: Requests that got no answer or 503, and the longest that one took to be answered, in seconds.
    unanswered: int = 0
    slowest: float = 0.0

    def __enter__(self) -> "Customers":
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[number]) for number in range(self.customers)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def go_on(self, *, seconds: float = 0.0, answers: int = 0) -> None:
        """Wait until so much time has passed and so many more requests have been answered."""
        until, enough = time.monotonic() + seconds, len(self.answered) + answers
        wait_until(
            f"{answers} more reservations are answered",
            lambda: time.monotonic() >= until and len(self.answered) >= enough,
            within=seconds + PATIENCE_SECONDS,
        )

    def ask_again(self, key: str) -> UUID | None:
        """Repeat a request that was answered. Return the id in the answer, if it says that it was given before."""
        door = Door(self.ports[0])
        answer = door.post("/reservations", self._wanted[key], key=key)
        door.close()
        return UUID(answer.body["id"]) if (answer.status, answer.replayed) == (201, True) else None

    def _run(self, number: int) -> None:
        dice = Random(self.seed * 1_000 + number)
        doors = [Door(port) for port in self.ports]
        turn = 0
        while not self._stopping.is_set():
            key, turn = f"{self.name}-{number}-{turn}", turn + 1
            self._reserve(doors, key, dice)
            self._stopping.wait(self.rest_seconds * dice.uniform(0.5, 1.5))
        for door in doors:
            door.close()

    def _reserve(self, doors: Sequence[Door], key: str, dice: Random) -> None:
        wanted = {"item_id": dice.choice(self.item_ids), "quantity": dice.randint(1, 3)}
        self._wanted[key] = wanted
        made = self._until_answered(doors, "/reservations", wanted, key, dice)
        if made.status != 201:
            return
        self.answered[key] = UUID(made.body["id"])
        if dice.random() < self.cancelling:
            self._until_answered(doors, f"/reservations/{made.body['id']}/cancel", {}, key, dice)

    def _until_answered(
        self, doors: Sequence[Door], path: str, body: Mapping[str, object], key: str, dice: Random
    ) -> Answer:
        began = time.monotonic()
        while time.monotonic() < began + PATIENCE_SECONDS:
            answer = self._ask(dice.choice(doors), path, body, key)
            if answer is not None and answer.status != 503:
                self.slowest = max(self.slowest, time.monotonic() - began)
                if answer.status not in EXPECTED:
                    self.unexpected.append(answer)
                return answer
            self.unanswered += 1
            time.sleep(ASK_AGAIN_SECONDS)
        raise AssertionError(f"{path} was not answered for {PATIENCE_SECONDS} s.")

    @staticmethod
    def _ask(door: Door, path: str, body: Mapping[str, object], key: str) -> Answer | None:
        try:
            return door.post(path, body, key=key)
        except (OSError, http.client.HTTPException):
            return None
