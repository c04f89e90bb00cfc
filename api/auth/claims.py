"""The claims of a token, read as a principal. Which claims hold what is set, as identity providers differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from api.plain_text import has_controls, overrides_direction
from domain.access import Principal, Role
from domain.access.principals import USER
from domain.runtime.errors import NotAuthenticated

#: Characters of a subject, of a venue and of a provider.
NAME_LENGTH = 200

#: What a name is, in words.
A_NAME = f"a name has 1 to {NAME_LENGTH} characters, none of which controls how it is shown"

ROLES = {role.value: role for role in Role}

#: The venues, providers or roles that one token may have.
MOST_VALUES = 100

#: Characters, as many as a reservation has room for.
GUEST_ID_LENGTH = 64

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The names of claims. A dot leads into an object: `realm_access.roles`."""

    roles: str
    venues: str
    providers: str
    guest: str
    _unknown: set[str] = field(default_factory=set)

    def principal(self, claims: Mapping[str, Any]) -> Principal:
        """Return whose claims these are. Raises NotAuthenticated if one has a value of the wrong type."""
        roles = frozenset(self._roles(_texts(claims, self.roles)))
        return Principal(
            client_id=f"{USER}{_text(claims, 'sub')}",
            roles=roles,
            guest_id=_guest_id(claims, self.guest) if Role.GUEST in roles else None,
            venues=frozenset(_texts(claims, self.venues)),
            providers=frozenset(_texts(claims, self.providers)),
        )

    def _roles(self, names: Iterable[str]) -> Iterable[Role]:
        for name in names:
            if name in ROLES:
                yield ROLES[name]
            elif name not in self._unknown and len(self._unknown) < MOST_VALUES:
                self._unknown.add(name)
                log.info("token.unknown_role", role=name, advice="It is ignored, and not logged again.")


def _find(claims: Mapping[str, Any], name: str) -> Any:
    found: Any = claims.get(name)
    if found is None and "." in name:
        found = claims
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    return found


def _texts(claims: Mapping[str, Any], name: str) -> Sequence[str]:
    """Return the values of a claim: a list of texts, or one text with spaces between them, as `scope` has."""
    found = _find(claims, name)
    if found is None:
        return ()
    values = found.split() if isinstance(found, str) else found
    if not isinstance(values, list) or len(values) > MOST_VALUES or not all(map(_is_name, values)):
        raise NotAuthenticated(f"the claim {name} of the token is no list of up to {MOST_VALUES} names ({A_NAME})")
    return values


def _text(claims: Mapping[str, Any], name: str) -> str:
    found = _find(claims, name)
    if not _is_name(found):
        raise NotAuthenticated(f"the claim {name} of the token is no name ({A_NAME})")
    return str(found)


def _guest_id(claims: Mapping[str, Any], name: str) -> str:
    guest_id = _text(claims, name)
    if len(guest_id) > GUEST_ID_LENGTH:
        raise NotAuthenticated(f"the claim {name} of the token has more than {GUEST_ID_LENGTH} characters")
    return guest_id


def _is_name(value: object) -> bool:
    if not isinstance(value, str) or not 1 <= len(value) <= NAME_LENGTH:
        return False
    return not has_controls(value) and not overrides_direction(value)
