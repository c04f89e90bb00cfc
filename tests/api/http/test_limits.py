"""What a request may cost: the worst body in processor time, and addresses in memory that is never freed."""

import random
import string
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection

import psutil
import pytest

from api.http.decoding import read
from api.http.limits import MAX_BODY_BYTES, SHOWN_CHARACTERS
from api.items.schemas import ItemChange
from api.reservations.metadata import MAX_METADATA_BYTES
from api.reservations.schemas import NewReservation
from domain.runtime.errors import Invalid
from domain.runtime.settings import Settings
from tests.support.api_process import Served, serving

#: The longest time for which one body may keep the event loop busy, in seconds of processor time.
BUSY_SECONDS = 0.05


def filled(before: str, unit: str, after: str, size: int = MAX_BODY_BYTES) -> bytes:
    """Repeat a unit between two texts, up to a size."""
    written = len((before + after).encode())
    return (before + unit * ((size - written) // len(unit.encode())) + after).encode()


WITH = '{"item_id":1,"quantity":1,'
METADATA = WITH + '"metadata":{"a":['

WORST = {
    "[[[[": filled("", "[", ""),
    "nested metadata": filled(WITH + '"metadata":', '{"a":', "1"),
    "nested unknown member": filled(WITH + '"x":', "[", ""),
    "large numbers": filled(METADATA, "1.7976931348623157e308,", "1]}}"),
    "long numbers": filled(METADATA, "9" * 4_000 + ",", "1]}}"),
    "flat lists": filled(METADATA, "[],", "1]}}"),
    "lists": filled(METADATA, "[[[[[[[[[[[[1]]]]]]]]]]]],", "1]}}"),
    "objects": filled(METADATA, "{},", "1]}}"),
    "NUL among texts": filled(METADATA, '"",', '"\\u0000"]}}'),
    "escapes": filled(WITH + '"note":"', "\\n", '"}'),
    "surrogates": filled(WITH + '"note":"', "\\ud83d\\ude00", '"}'),
    "long name": filled('{"', "x", '":1}'),
    "name like a message": filled('{"', " - at `$", '":1}'),
    "name like a path": filled('{"guest":{"', "[]", '":1}}'),
    "repeated members": filled("{", '"guest":{"id":"a"},', '"quantity":1,"item_id":1}'),
    "white space": filled("{", " ", "}"),
    **{
        f"metadata of the largest size: {unit}": filled(METADATA, unit, "1]}}", MAX_METADATA_BYTES)
        for unit in ("[],", "{},", "1,", '"\\u0000",', "[[[[[[[[[[[[1]]]]]]]]]]]],", "1e308,")
    },
}


@pytest.mark.timed
@pytest.mark.parametrize("body", WORST.values(), ids=WORST)
@pytest.mark.parametrize("model", [NewReservation, ItemChange])
def test_no_body_keeps_the_event_loop_busy_for_long(
    model: type[NewReservation] | type[ItemChange], body: bytes
) -> None:
    assert min(seconds(lambda: read(body, model)) for _ in range(3)) < BUSY_SECONDS


def seconds(act: Callable[[], object]) -> float:
    began = time.thread_time()
    with suppress(Invalid):
        act()
    return time.thread_time() - began


def test_a_name_that_is_very_long_is_not_repeated_in_full() -> None:
    with pytest.raises(Invalid) as refused:
        read(WORST["long name"], NewReservation)

    assert refused.value.field == "x" * SHOWN_CHARACTERS


def words(length: int, among: random.Random) -> str:
    return "".join(among.choices(string.ascii_lowercase, k=length))


@pytest.mark.slow
def test_addresses_are_not_kept_in_memory(settings: Settings) -> None:
    """The framework remembers the last thousand of each, however long they are."""
    among = random.Random(7)
    with serving() as served:
        for _ in range(1_100):
            get(served, f"/items/{words(8, among)}")
        before = resident(served)

        for _ in range(1_100):
            get(served, "/items?" + "&".join(f"{words(3, among)}=1" for _ in range(680)))
            get(served, f"/reservations?guest_id={words(4_000, among)}")
            get(served, f"/items/{words(1_000, among)}")
        for _ in range(500):
            get(served, f"/items/{words(50_000, among)}")

        assert resident(served) - before < 40_000_000


def get(served: Served, address: str) -> None:
    """Send a request by a client that does not look at the address, which would take longer than the answer."""
    connection = HTTPConnection("127.0.0.1", served.client.base_url.port)
    connection.request("GET", address)
    connection.getresponse().read()
    connection.close()


def resident(served: Served) -> int:
    root = psutil.Process(served.process.pid)
    return sum(one.memory_info().rss for one in (root, *root.children(recursive=True)))
