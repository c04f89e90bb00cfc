"""Tokens: who may enter with which, and why not."""

import time

import httpx
import pytest

from tests.api.auth.identity import IdentityProvider, SigningKey, bad_tokens, unchecked


def got(api: httpx.Client, token: str, path: str = "/items") -> httpx.Response:
    return api.get(path, headers={"Authorization": f"Bearer {token}"})


def test_a_token_of_the_identity_provider_lets_in(api: httpx.Client, key: SigningKey) -> None:
    assert got(api, key.token("staff")).status_code == 200


def test_without_a_token_nothing_but_health_and_the_reference_is_shown(api: httpx.Client) -> None:
    statuses = {
        path: api.get(path).status_code for path in ("/items", "/metrics", "/health/live", "/schema", "/problems")
    }

    assert statuses == {"/items": 401, "/metrics": 401, "/health/live": 200, "/schema": 200, "/problems": 200}


@pytest.mark.parametrize(("method", "path"), [("OPTIONS", "/reservations"), ("GET", "/health/live")])
def test_where_no_token_is_needed_none_is_looked_at(
    api: httpx.Client, provider: IdentityProvider, key: SigningKey, method: str, path: str
) -> None:
    """Checking it would take long, and may make the keys be read again."""
    asked = provider.asked
    stranger = {"Authorization": f"Bearer {key.token('staff', headers={'kid': 'another'})}"}

    statuses = {api.request(method, path, headers=stranger).status_code for _ in range(50)}

    assert statuses <= {200, 204}
    assert provider.asked == asked


def test_the_problem_and_its_header_say_what_is_wrong_with_a_token(api: httpx.Client, key: SigningKey) -> None:
    refused = got(api, key.token("staff", exp=int(time.time()) - 3_600))

    assert refused.json()["reason"] == "the token has expired"
    assert refused.headers["WWW-Authenticate"].startswith("Bearer ")


KINDS = sorted(bad_tokens(SigningKey.new()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_token_is_answered_401_and_nothing_else(api: httpx.Client, key: SigningKey, kind: str) -> None:
    refused = got(api, bad_tokens(key)[kind])

    assert refused.status_code == 401, refused.text
    assert refused.json()["type"] == "/problems/not-authenticated"


def test_clocks_may_differ_by_30_seconds(api: httpx.Client, key: SigningKey) -> None:
    now = int(time.time())

    assert got(api, key.token("staff", exp=now - 30)).status_code == 200
    assert got(api, key.token("staff", nbf=now + 30)).status_code == 200


@pytest.mark.parametrize(
    "given",
    [["Bearer a", "Bearer b"], ["Basic YTpi"], ["Bearer"], ["Bearer \xe9"], ["Bearer " + "a" * 14_000]],
)
def test_a_header_that_has_no_one_token_is_refused(api: httpx.Client, given: list[str]) -> None:
    refused = api.get("/items", headers=[(b"Authorization", one.encode("latin-1")) for one in given])

    assert refused.status_code in {400, 401}


def test_an_unknown_role_gives_no_rights(api: httpx.Client, key: SigningKey) -> None:
    refused = got(api, key.token("emperor"))

    assert (refused.status_code, refused.json()["operation"]) == (403, "items.list")


def test_who_has_no_right_to_act_for_others_may_not_name_a_client(api: httpx.Client, key: SigningKey) -> None:
    statuses = [
        api.get("/items", headers={"Authorization": f"Bearer {key.token(role)}", "X-Client-Id": "shop"}).status_code
        for role in ("guest", "staff")
    ]

    assert statuses == [403, 200]


#: Characters that are no part of a name: they end lines, turn the direction of text, or are half of one.
ODD_CHARACTERS = ["\ud800", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\x7f", "\n"]


@pytest.mark.parametrize("odd", ODD_CHARACTERS, ids=ascii)
@pytest.mark.parametrize("claim", ["sub", "venues", "provider_id", "roles"])
def test_a_claim_with_characters_that_are_no_part_of_a_name_is_refused(
    api: httpx.Client, key: SigningKey, claim: str, odd: str
) -> None:
    name = f"a{odd}b"

    refused = got(api, unchecked(key, **{claim: name if claim == "sub" else ["staff", name]}))

    assert refused.status_code == 401
    assert claim in refused.json()["reason"]


def test_names_of_every_script_are_names(api: httpx.Client, key: SigningKey) -> None:
    names = ["Zoë Ångström", "名前", "שרה\u200f", "علی\u200cرضا", "👩\u200d🚀"]

    assert {got(api, key.token("staff", sub=name)).status_code for name in names} == {200}
