"""Limits: how many requests a principal, an address and an operation may send, with Redis and without."""

import json
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from api.auth.limits.limits import CHECKS
from api.auth.limits.rates import Rates
from api.grpc.proto import reservation_pb2 as proto
from deploy.embedded import RedisServer
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import Settings
from tests.api.auth.identity import AUDIENCE, ISSUER, IdentityProvider, SigningKey
from tests.api.grpc.requests import refused
from tests.support.api_process import Served, serving
from tests.support.grpc_process import serving_grpc
from tests.support.waiting import wait_until

#: With windows of a day, no test sees one end.
QUOTA = 40

#: A process shares what it has counted in blocks of this size.
BLOCK = QUOTA // 20

#: What no request may wait for a Redis that does not answer, with room for a busy machine. Redis is given 0.1 s.
SOON_SECONDS = 0.09

Start = Callable[..., Served]


@pytest.fixture
def start(settings: Settings, provider: IdentityProvider) -> Iterator[Start]:
    """Start APIs that want tokens, with these limits."""
    with ExitStack() as stack:

        def started(**environment: str) -> Served:
            identity = {"AUTH_JWKS_URL": provider.url, "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE}
            return stack.enter_context(serving(AUTH="token", **identity, **environment))

        yield started


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that a test may stop."""
    server = RedisServer(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def send(key: SigningKey) -> Callable[..., httpx.Response]:
    """Send a request of a principal that is known as `name`."""
    tokens: dict[str, str] = {}

    def sent(served: Served, name: str = "ann", path: str = "/items", **headers: str) -> httpx.Response:
        token = tokens.setdefault(name, key.token("staff", sub=name))
        return served.client.get(path, headers={"Authorization": f"Bearer {token}"} | headers)

    return sent


def get(served: Served, token: str) -> httpx.Response:
    return served.client.get("/items", headers={"Authorization": f"Bearer {token}"})


def statuses(answers: list[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


def test_a_principal_that_has_used_its_limit_up_is_refused_and_others_are_not(start: Start, send: Any) -> None:
    served = start(RATE_LIMIT=f"{QUOTA}/day")

    answers = [send(served) for _ in range(QUOTA + 5)]

    assert statuses(answers) == {200: QUOTA, 429: 5}
    assert send(served, "bob").status_code == 200


def test_a_refusal_is_a_problem_that_says_which_limit_and_when_to_come_again(start: Start, send: Any) -> None:
    served = start(RATE_LIMIT="1/day")
    send(served)

    answer = send(served)

    problem = answer.json()
    assert (answer.headers["Content-Type"], problem["type"]) == (
        "application/problem+json",
        "/problems/too-many-requests",
    )
    assert (problem["limit"], problem["quota"], problem["seconds"]) == ("principal", 1, 86_400)
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert int(answer.headers["Retry-After"]) == problem["retry_after"] > 0
    assert answer.headers["RateLimit-Policy"] == '"principal";q=1;w=86400'
    assert answer.headers["RateLimit"] == f'"principal";r=0;t={problem["retry_after"]}'


def test_who_waits_as_long_as_it_is_told_is_served_again(start: Start, send: Any) -> None:
    served = start(RATE_LIMIT="2/2 seconds")
    answers = [send(served) for _ in range(20)]
    seconds = int(next(one.headers["Retry-After"] for one in answers if one.status_code == 429))
    until = time.monotonic() + seconds

    wait_until("it is served", lambda: time.monotonic() >= until and send(served).status_code == 200)


def test_processes_share_what_they_have_counted(start: Start, send: Any) -> None:
    first, second = start(RATE_LIMIT=f"{QUOTA}/day"), start(RATE_LIMIT=f"{QUOTA}/day")
    for _ in range(QUOTA):
        send(first, "carol")

    served = 0
    while send(second, "carol").status_code == 200:
        served += 1
        # Blocks are shared by a thread beside the requests.
        time.sleep(0.05)

    assert served <= 2 * BLOCK


@pytest.mark.parametrize("fault", ["killed", "hung"])
def test_without_redis_requests_are_served_and_limits_hold_for_each_process(
    start: Start, send: Any, own_redis: RedisServer, fault: str
) -> None:
    served = start(RATE_LIMIT=f"{QUOTA}/day", REDIS_URL=own_redis.url)
    assert send(served, "dora").status_code == 200
    process = own_redis._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
    try:
        answers = [send(served, "dora") for _ in range(QUOTA + 5)]
    finally:
        if fault == "hung":
            os.kill(process.pid, signal.SIGCONT)

    assert statuses(answers) == {200: QUOTA - 1, 429: 6}
    took = sorted(answer.elapsed.total_seconds() for answer in answers)
    assert took[len(took) // 2] < SOON_SECONDS
    assert send(served, "erik").status_code == 200


def test_counts_are_shared_again_when_redis_is_back(start: Start, send: Any, own_redis: RedisServer) -> None:
    first, second = (start(RATE_LIMIT=f"{QUOTA}/day", REDIS_URL=own_redis.url) for _ in range(2))
    own_redis.stop()
    for _ in range(QUOTA // 2):
        send(first, "fred")
    own_redis.start()

    # One process counts up to the quota; what it has counted while Redis was down is shared with the rest.
    wait_until("the first one is refused", lambda: send(first, "fred").status_code == 429)

    wait_until("the second one is refused soon", lambda: send(second, "fred").status_code == 429)


def test_wrong_credentials_are_limited_and_good_ones_from_the_same_address_are_not(start: Start, send: Any) -> None:
    served = start(RATE_LIMIT_FAILED_AUTH="10/day")
    wrong = {"Authorization": "Bearer hf_nobody_nothing"}

    answers = [served.client.get("/items", headers=wrong) for _ in range(8)]
    answers += [served.client.get("/items") for _ in range(5)]

    assert statuses(answers) == {401: 10, 429: 3}
    assert send(served).status_code == 200
    assert served.client.get("/health/live").status_code == 200
    assert served.client.get("/problems/too-many-requests").status_code == 200


def test_an_address_is_limited_before_its_credentials_are_looked_at(start: Start) -> None:
    served = start(RATE_LIMIT_ADDRESS="5/day", RATE_LIMIT_FAILED_AUTH="0", TRUSTED_PROXIES="127.0.0.0/8")

    def get(address: str) -> int:
        return served.client.get("/items", headers={"X-Forwarded-For": address}).status_code

    assert [get("203.0.113.9") for _ in range(7)] == [401] * 5 + [429] * 2
    assert get("203.0.113.10") == 401


def test_nobody_gets_another_address_by_what_it_writes_before_the_proxys_own_word(start: Start) -> None:
    served = start(RATE_LIMIT_ADDRESS="2/day", RATE_LIMIT_FAILED_AUTH="0", TRUSTED_PROXIES="127.0.0.0/8, 10.0.0.0/8")
    written = ["198.51.100.1, 203.0.113.20", "198.51.100.2,203.0.113.20:4711, 10.1.2.3", "nonsense,203.0.113.20"]

    got = [served.client.get("/items", headers={"X-Forwarded-For": one}).status_code for one in written]

    assert got == [401, 401, 429]


def test_without_trusted_proxies_the_header_of_a_proxy_is_not_believed(start: Start) -> None:
    served = start(RATE_LIMIT_FAILED_AUTH="2/day")

    got = [served.client.get("/items", headers={"X-Forwarded-For": f"203.0.113.{n}"}).status_code for n in range(5)]

    assert got == [401, 401, 429, 429, 429]
    assert served.logged().count("rate_limits.proxy_not_trusted") == 1


def test_all_addresses_of_one_network_of_ipv6_are_one_sender(start: Start) -> None:
    served = start(RATE_LIMIT_ADDRESS="2/day", RATE_LIMIT_FAILED_AUTH="0", TRUSTED_PROXIES="127.0.0.0/8")
    written = ["2001:db8:1:2::1", "[2001:db8:1:2::2]:99", "2001:db8:1:2:3::3", "2001:db8:1:3::1"]

    got = [served.client.get("/items", headers={"X-Forwarded-For": one}).status_code for one in written]

    assert got == [401, 401, 429, 401]


def test_at_an_address_that_has_failed_too_often_new_credentials_are_checked_and_not_as_often_as_they_come(
    start: Start, send: Any, key: SigningKey
) -> None:
    served = start(RATE_LIMIT_FAILED_AUTH="3/day")
    for _ in range(5):
        served.client.get("/items")

    assert send(served, "somebody-new").status_code == 200

    wrong = [key.token("staff", sub=f"w{n}")[:-8] + "AAAAAAAA" for n in range(3 * CHECKS.quota)]
    with ThreadPoolExecutor(64) as threads:
        answers = list(threads.map(lambda token: get(served, token), wrong))
    assert statuses(answers) == {429: len(wrong)}
    assert send(served, "somebody-new").status_code == 200


def test_a_token_that_has_expired_is_answered_as_such_whatever_others_at_its_address_send(
    start: Start, key: SigningKey
) -> None:
    """Clients renew their tokens when they get 401, and at no other time."""
    served = start(RATE_LIMIT_FAILED_AUTH="3/day")
    for _ in range(5):
        served.client.get("/items")
    past = int(time.time()) - 3_600
    expired = {name: key.token("staff", sub=name, exp=past) for name in ("ann", "bob")}

    assert [get(served, expired["ann"]).status_code for _ in range(5)] == [401, 401, 401, 429, 429]
    assert "expired" in get(served, expired["bob"]).json()["detail"]


def test_who_names_itself_in_a_way_that_can_not_be_used_is_limited_too(start: Start, key: SigningKey) -> None:
    served = start(RATE_LIMIT_FAILED_AUTH="4/day")
    guest = {"Authorization": f"Bearer {key.token('guest')}"}

    twice = [served.client.get("/items", headers=[*guest.items(), *guest.items()]) for _ in range(2)]
    acting = [served.client.get("/items", headers=guest | {"X-Client-Id": "other"}) for _ in range(2)]

    assert statuses(twice + acting) == {400: 2, 403: 2}
    assert served.client.get("/items", headers=guest | {"X-Client-Id": "other"}).status_code == 429
    assert served.client.get("/items", headers=guest).status_code == 200


@pytest.mark.parametrize("path", ["/items/", "/items//"])
def test_a_slash_at_the_end_leads_around_no_limit(start: Start, send: Any, path: str) -> None:
    served = start(RATE_LIMITS="items.list=2/day")
    assert [send(served).status_code for _ in range(3)] == [200, 200, 429]

    assert send(served, path=path).status_code in (404, 429)


def test_an_operation_has_a_limit_for_each_principal(start: Start, send: Any) -> None:
    served = start(RATE_LIMITS="items.list=2/day, reservations.read=1/day")

    assert [send(served).status_code for _ in range(3)] == [200, 200, 429]
    assert send(served).json()["limit"] == "items.list"
    assert send(served, "bob").status_code == 200
    assert send(served, path="/reservations").status_code == 200
    assert [send(served, path=f"/reservations/{n}").status_code for n in ("x", "y")] == [400, 429]


def test_who_acts_for_many_clients_has_one_limit(start: Start, send: Any) -> None:
    served = start(RATE_LIMIT="3/day")

    got = [send(served, **{"X-Client-Id": f"client-{n}"}).status_code for n in range(4)]

    assert got == [200, 200, 200, 429]


def test_a_request_that_is_too_many_is_answered_before_its_body_has_come(start: Start, send: Any, key: Any) -> None:
    served = start(RATE_LIMIT="1/day")
    token = key.token("staff", sub="ann")
    send(served)
    head = f"POST /reservations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 9999\r\n\r\n"

    with socket.create_connection(("127.0.0.1", served.port), timeout=4) as connection:
        connection.sendall(head.encode())
        answer = connection.recv(4_096)

    assert answer.startswith(b"HTTP/1.1 429")
    assert b"connection: close" in answer


def test_a_client_that_does_not_look_at_its_refusals_gets_them_late(start: Start, send: Any) -> None:
    served = start(RATE_LIMIT="1/day")
    for _ in range(25):
        answer = send(served)

    assert answer.status_code == 429
    assert answer.elapsed.total_seconds() > 0.2


def test_without_credentials_nobody_is_limited_on_this_machine(settings: Settings) -> None:
    with serving(AUTH="none", RATE_LIMIT="1/day", RATE_LIMIT_ADDRESS="1/day") as served:
        assert [served.client.get("/items").status_code for _ in range(3)] == [200, 200, 200]


def test_a_request_that_one_limit_refuses_uses_nothing_of_another(
    start: Start, send: Callable[..., httpx.Response]
) -> None:
    served = start(RATE_LIMIT="3/day", RATE_LIMITS="items.list=1/day")

    lists = [send(served, "una").status_code for _ in range(4)]
    others = [send(served, "una", "/reservations").status_code for _ in range(3)]

    assert (lists, others) == ([200, 429, 429, 429], [200, 200, 429])


def test_an_operation_that_has_a_limit_twice_is_refused_at_the_start(settings: Settings) -> None:
    given = settings.model_copy(update={"rate_limits": "items.list=1/second, items.list=60/minute"})

    with pytest.raises(ConfigurationError, match=r"items\.list is there twice.*items\.list=20/second;500/hour"):
        Rates.of(given)


def test_calls_over_grpc_that_need_no_credentials_count_for_their_address(settings: Settings) -> None:
    elsewhere = [("x-forwarded-for", "203.0.113.77")]
    limited = {"RATE_LIMIT_ADDRESS": "2/day", "TRUSTED_PROXIES": "127.0.0.0/8"}

    with serving_grpc(**limited) as served, grpc.insecure_channel(served.address) as channel:
        check = HealthStub(channel).Check
        healthy = [check(HealthCheckRequest(), metadata=elsewhere).status for _ in range(2)]
        third = refused(check, HealthCheckRequest(), metadata=elsewhere)

    assert healthy == [HealthCheckResponse.SERVING] * 2
    assert third.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_calls_over_grpc_are_limited_too(settings: Settings, provider: IdentityProvider, key: SigningKey) -> None:
    identity = {"AUTH_JWKS_URL": provider.url, "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE}
    environment = {"AUTH": "token", "RATE_LIMIT": "2/day", "RATE_LIMIT_FAILED_AUTH": "1/day"}
    request = proto.GetRequest(id="00000000-0000-0000-0000-000000000000")

    with serving_grpc(**identity, **environment) as served, served.calling() as stub:
        metadata = [("authorization", f"Bearer {key.token('staff', sub='gina')}")]
        got = [refused(stub.get, request, metadata=metadata) for _ in range(3)]
        # Nobody here trusts who has written that it comes from elsewhere.
        elsewhere = [("x-forwarded-for", "203.0.113.9")]
        without = [refused(stub.get, request, metadata=given) for given in ([], elsewhere)]

    assert [one.code for one in got] == [grpc.StatusCode.NOT_FOUND] * 2 + [grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert [one.code for one in without] == [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert "principal" in got[2].text


def test_credentials_of_other_characters_are_refused_and_are_no_fault_of_holdfast(
    settings: Settings, provider: IdentityProvider
) -> None:
    identity = {"AUTH_JWKS_URL": provider.url, "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE}
    head = "GET /items HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer €.€.€\r\nConnection: close\r\n\r\n"

    with serving(AUTH="token", **identity) as served:
        with socket.create_connection(("127.0.0.1", served.port), timeout=4) as connection:
            connection.sendall(head.encode())
            answer = connection.recv(4_096)
        assert answer.startswith(b"HTTP/1.1 401")
        assert served.faults() == []


def test_many_at_once_get_exactly_what_the_limit_allows(start: Start, send: Any) -> None:
    served = start(RATE_LIMIT=f"{QUOTA}/day")

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: send(served, "hal"), range(2 * QUOTA)))

    assert statuses(answers)[200] == QUOTA
    assert json.loads(answers[-1].text)
