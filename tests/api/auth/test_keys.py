"""The keys of an identity provider: which entries of its document are keys that can be used, and which key is tried."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from api.auth.claims import Claims
from api.auth.keys import MOST_KEYS, Keys, UnusableKeys, read_jwks
from api.auth.tokens import MOST_TRIED, Expired, NotVerified, Tokens
from tests.api.auth.identity import AUDIENCE, ISSUER, SigningKey

TOKENS = Tokens(
    algorithms=frozenset({"RS256", "PS256", "ES256", "EdDSA"}),
    issuer=ISSUER,
    audience=AUDIENCE,
    leeway_seconds=60.0,
    claims=Claims(roles="roles", venues="venues", providers="provider_id", guest="sub"),
)

KEY = SigningKey.new()


def keys_of(*entries: Any) -> Keys:
    return read_jwks(json.dumps({"keys": entries}).encode())


def without_kid(key: SigningKey) -> dict[str, Any]:
    return {name: value for name, value in key.jwk().items() if name != "kid"}


def lets_in(keys: Keys, token: str) -> bool:
    try:
        return TOKENS.principal(token, keys)[0].client_id == "user:ann"
    except NotVerified:
        return False


def token_without_kid(key: SigningKey) -> str:
    return key.token("guest", headers={"kid": None})


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_a_token_without_a_key_id_is_tried_with_each_key_that_serves_its_algorithm(algorithm: str) -> None:
    others = [SigningKey.new(f"other-{other}", other) for other in ("RS256", "PS256", "ES256", "EdDSA")]
    new = SigningKey.new("new", algorithm)
    token = token_without_kid(new)

    assert lets_in(keys_of(*[key.jwk() for key in [*others, new]]), token)
    assert not lets_in(keys_of(*[key.jwk() for key in others]), token)


def test_all_keys_of_one_id_are_tried() -> None:
    one, other = SigningKey.new("same"), SigningKey.new("same")
    keys = keys_of(one.jwk(), other.jwk())

    assert [lets_in(keys, key.token("guest")) for key in (one, other, SigningKey.new("same"))] == [True, True, False]


def test_a_token_is_tried_with_a_bounded_number_of_keys() -> None:
    keys = keys_of(*[SigningKey.new("same").jwk() for _ in range(MOST_TRIED)], KEY.jwk() | {"kid": "same"})

    assert not lets_in(keys, replace(KEY, kid="same").token("guest"))


def test_the_same_key_twice_takes_one_trial() -> None:
    keys = keys_of(*[SigningKey.new("same").jwk()] * MOST_TRIED, KEY.jwk() | {"kid": "same"})

    assert lets_in(keys, replace(KEY, kid="same").token("guest"))


def test_what_is_wrong_with_a_token_is_said_whichever_key_it_is_signed_with() -> None:
    keys = keys_of(SigningKey.new("same").jwk(), KEY.jwk() | {"kid": "same"})

    with pytest.raises(Expired, match="expired"):
        TOKENS.principal(replace(KEY, kid="same").token("guest", exp=17), keys)


def elliptic(curve: ec.EllipticCurve) -> dict[str, Any]:
    return dict(ECAlgorithm.to_jwk(ec.generate_private_key(curve).public_key(), as_dict=True))


def of_rsa(bits: int, *, private: bool = False) -> dict[str, Any]:
    key = rsa.generate_private_key(65_537, bits)
    return dict(RSAAlgorithm.to_jwk(key if private else key.public_key(), as_dict=True))


#: Entries that can't be used, and what is said of them.
UNUSABLE: Mapping[str, tuple[Callable[[], Any], str]] = {
    "short": (lambda: of_rsa(1_024), "1,024 bits"),
    "private": (lambda: of_rsa(2_048, private=True), "private key"),
    "another curve": (lambda: elliptic(ec.SECP384R1()), "secp384r1"),
    "for encryption": (lambda: KEY.jwk() | {"use": "enc"}, "use is not sig"),
    "for signing only": (lambda: KEY.jwk() | {"key_ops": ["sign"]}, "key_ops do not have verify"),
    "another algorithm": (lambda: KEY.jwk() | {"alg": "ES384"}, "alg is none of"),
    "an algorithm for other keys": (lambda: KEY.jwk() | {"alg": "RS256"}, "can't be read"),
    "an algorithm of the wrong type": (lambda: KEY.jwk() | {"alg": []}, "alg is none of"),
    "a shared secret": (lambda: {"kty": "oct", "k": "c2VjcmV0"}, "of no type"),
    "no object": (lambda: "key", "it is no object"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_document_without_a_usable_key_says_why_each_entry_is_none(kind: str) -> None:
    build, reason = UNUSABLE[kind]

    with pytest.raises(UnusableKeys, match=reason):
        keys_of(build())


@pytest.mark.parametrize("member", ["use", "alg", "key_ops"])
def test_a_member_that_is_null_is_as_one_that_is_not_there(member: str) -> None:
    assert lets_in(keys_of(KEY.jwk() | {member: None}), KEY.token("guest"))


def test_an_entry_that_is_left_out_is_named_beside_those_that_serve() -> None:
    keys = keys_of(KEY.jwk(), of_rsa(1_024) | {"kid": "weak"})

    assert len(keys) == 1
    assert [reason for reason in keys.left_out if "weak" in reason and "1,024 bits" in reason]


def test_of_a_very_long_document_the_first_keys_are_used_and_the_rest_is_named() -> None:
    keys = keys_of(*[KEY.jwk() | {"kid": f"{number}"} for number in range(MOST_KEYS + 1)])

    assert len(keys) == MOST_KEYS
    assert any("1 more" in reason for reason in keys.left_out)


def test_a_document_is_the_same_whatever_the_order_of_its_keys_and_of_their_members() -> None:
    other = SigningKey.new("other", "RS256")
    shuffled = [dict(reversed(list(other.jwk().items()))), KEY.jwk() | {"use": None, "x5t": "added"}]

    assert keys_of(KEY.jwk(), other.jwk()).document == keys_of(*shuffled).document
    assert keys_of(KEY.jwk()).document != keys_of(KEY.jwk() | {"kid": "another"}).document


def test_what_is_stored_of_a_document_can_be_read_again_and_has_nothing_private() -> None:
    kinds = [SigningKey.new(algorithm, algorithm) for algorithm in ("RS256", "PS256", "ES256", "EdDSA")]
    keys = keys_of(*[key.jwk() for key in kinds], without_kid(KEY), of_rsa(2_048, private=True))

    stored = read_jwks(keys.document)

    assert stored.document == keys.document
    assert all(lets_in(stored, key.token("guest")) for key in [*kinds, KEY])
    assert b'"d"' not in keys.document


def test_a_document_with_no_entry_at_all_is_one_without_keys() -> None:
    assert len(keys_of()) == 0


def test_a_key_id_that_no_key_has_is_not_known_though_keys_without_one_were_tried() -> None:
    keys = keys_of(without_kid(KEY))

    with pytest.raises(NotVerified) as caught:
        TOKENS.principal(SigningKey.new("another").token("guest"), keys)
    assert not caught.value.is_key_known
