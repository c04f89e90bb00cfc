"""Lists of reservations: every filter and every pair of filters, and one's own, among ten million reservations."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import combinations, product
from pathlib import Path

import httpx

from benchmarks.environment import Environment
from benchmarks.measure import Measure, median
from benchmarks.reservations.guarded import Senders
from domain.reservations.lifecycle import Status
from domain.reservations.table import reservations

RESERVATIONS = 10_000_000

#: The baseline is a database that holds so many.
FEW = 10_000

PORTS = {"many": 8106, "few": 8107}

#: Requests with the same values. An odd number, so that the median is one of them.
REQUESTS = 15

BUDGET_MILLISECONDS = 10.0

#: A frequent value of each filter, a rare one, and one that no reservation has. Nine tenths of all reservations are of
#: one item, and as many from one source. The second item has no guest and no source in common with the first one.
VALUES: Mapping[str, Sequence[str]] = {
    "status": (Status.CONFIRMED, Status.PENDING, Status.EXPIRED, Status.REJECTED, Status.NO_SHOW),
    "item_id": ("1", "2", "777", "999999"),
    "sku": ("sku-1", "sku-777", "unknown"),
    "guest_id": ("walk-in", "agency", "guest-7", "nobody"),
    "source": ("api", "csv", "rare", "nowhere"),
}

#: An hour in the middle of the week in which the reservations were made.
PERIOD = {"from": "2026-11-04T12:00:00Z", "to": "2026-11-04T13:00:00Z"}

#: Senders who see what is their own: of most reservations, of many, of few, and of none.
OWNERS: Mapping[str, Sequence[str]] = {
    "guest": ("walk-in", "agency", "guest-7", "nobody"),
    "business": ("lisbon", "venue-9", "nowhere"),
    "provider": ("rita", "provider-9", "nobody"),
}

#: By what these senders narrow their lists.
OWN_FILTERS: Mapping[str, Sequence[Sequence[str]]] = {
    "with or without a status": ((), ("status",)),
    "by an item, a source or both": (("item_id",), ("source",), ("item_id", "source")),
    "by a status, and an item or a source": (("status", "item_id"), ("status", "source")),
}

#: The parameters of a list, and the token of its sender, if nobody else may see all.
_Query = tuple[Mapping[str, str], str | None]

#: Both name the item.
SAME = {"item_id", "sku"}


def listing(environment: Environment, number: int = RESERVATIONS) -> Iterator[Measure]:
    """Lists by every filter and pair of filters, among ten million reservations."""
    environments = {"many": environment, "few": environment.with_database("listing")}
    for name, one in environments.items():
        _fill(one, number if name == "many" else FEW)
    with ExitStack() as serving:
        for name, one in environments.items():
            serving.enter_context(one.serving("api.main:load_app", PORTS[name]))
        for count in (0, 1, 2):
            for names in combinations(VALUES, count):
                if not set(names) >= SAME:
                    by = " and ".join(names) if names else "no filter"
                    yield _measure(f"by {by}", _slowest(_queries(names)), number)
    yield from _own(environments, number)


def _own(environments: Mapping[str, Environment], number: int) -> Iterator[Measure]:
    """Measure the lists of senders who see what is their own, with tokens."""
    senders = Senders(Path(environments["many"].variables["HOLDFAST_HOME"]))
    with ExitStack() as serving:
        for name, one in environments.items():
            serving.enter_context(one.serving("api.main:load_app", PORTS[name], **senders.settings))
        for role, names in OWNERS.items():
            tokens = [senders.token(name, role, venues=[name], provider_id=name) for name in names]
            for which, filters in OWN_FILTERS.items():
                narrowed = [query for names in filters for query in _values(names)]
                yield _measure(f"of a {role}'s own, {which}", _slowest([*product(narrowed, tokens)]), number)


def _measure(which: str, took: Mapping[str, float], number: int) -> Measure:
    return Measure(
        what=f"list {which}, p50 of the slowest values, among {number / 1e6:g} million reservations",
        measured=f"{took['many']:.1f} ms",
        baseline=f"among {FEW:,}: {took['few']:.1f} ms",
        budget=f"≤ {BUDGET_MILLISECONDS:g} ms",
        met=took["many"] <= BUDGET_MILLISECONDS,
        numbers={"measured": took["many"], "baseline": took["few"], "budget": BUDGET_MILLISECONDS},
    )


def _queries(names: Sequence[str]) -> Sequence[_Query]:
    """Return the lists by these filters, with each of their values, of all times and of the period."""
    return [({**one, **period}, None) for one in _values(names) for period in ({}, PERIOD)]


def _values(names: Sequence[str]) -> Sequence[Mapping[str, str]]:
    return [dict(zip(names, one, strict=True)) for one in product(*(VALUES[name] for name in names))]


def _slowest(queries: Sequence[_Query]) -> Mapping[str, float]:
    """Return the median times, in milliseconds, of the lists that take longest in either database."""
    # In turns: the other load of the machine changes slowly, and affects all alike.
    rounds = [{name: _times(port, queries) for name, port in PORTS.items()} for _ in range(REQUESTS)]
    return {
        name: max(median(of_query) for of_query in zip(*(times[name] for times in rounds), strict=True))
        for name in PORTS
    }


def _times(port: int, queries: Sequence[_Query]) -> Sequence[float]:
    """Return how long each list takes, in milliseconds."""
    took = []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for query, token in queries:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            begun = time.perf_counter()
            client.get("/reservations", params=query, headers=headers).raise_for_status()
            took.append((time.perf_counter() - begun) * 1_000)
    return took


def _fill(environment: Environment, number: int) -> None:
    """Write the reservations of a week. The newest hundredth are holds, which stay until the end."""
    environment.clear()
    indexes = [str(index.name) for index in reservations.indexes]
    with environment.connect() as connection:
        # What is written here is consistent, and checking millions of references takes minutes.
        connection.execute("SET session_replication_role = replica")
        built = connection.execute("SELECT indexdef FROM pg_indexes WHERE indexname = ANY(%s)", [indexes]).fetchall()
        connection.execute(f"DROP INDEX {', '.join(indexes)}")
        connection.execute(FILL, {"number": number})
        for (index,) in built:
            connection.execute(str(index))
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


#: Ids are of version 7, as the product makes them, and as old as their rows.
FILL = """
    INSERT INTO reservations (id, item_id, quantity, status, expires_at, guest_id, source, venue, provider, created_at)
    SELECT (lpad(to_hex(trunc(extract(epoch FROM made) * 1000)::bigint), 12, '0')
            || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid,
           CASE WHEN n %% 10 < 9 THEN 1 WHEN n %% 20 = 9 THEN 2 ELSE 3 + n / 20 %% 997 END, 1,
           CASE WHEN n > %(number)s * 0.99 THEN 'PENDING' WHEN n %% 1000 = 7 THEN 'REJECTED'
                ELSE (ARRAY['CONFIRMED', 'CANCELLED', 'EXPIRED', 'COMPLETED'])[1 + n %% 4] END,
           now() + interval '1 day',
           CASE WHEN n %% 20 = 9 THEN 'agency' WHEN n %% 5 = 0 THEN NULL WHEN n %% 7 = 0 THEN 'guest-' || n %% 10000
                ELSE 'walk-in' END,
           CASE WHEN n %% 20 = 9 THEN 'csv' WHEN n %% 1000 < 3 THEN 'rare' ELSE 'api' END,
           CASE WHEN n %% 10 < 9 THEN 'lisbon' ELSE 'venue-' || n %% 1000 END,
           CASE WHEN n %% 10 < 3 THEN 'rita' ELSE 'provider-' || n %% 1000 END,
           made
    FROM (SELECT n, timestamptz '2026-11-01T00:00:00Z' + interval '7 days' * (n / %(number)s::float) AS made
          FROM generate_series(1, %(number)s) AS n) AS n
"""
