"""Who a guest is: the fields of a person, and what they may contain. No message shows what was given."""

import re
from typing import Annotated, Self

import msgspec
from msgspec import Meta

from api.plain_text import has_controls, is_visible, overrides_direction
from domain.privacy import Person
from domain.privacy.encryption import normalised_telephone
from domain.runtime.errors import Invalid

Name = Annotated[str, Meta(min_length=1, max_length=200, examples=["Zoë Ångström"])]
#: RFC 5321 has addresses of up to 254 characters.
Email = Annotated[str, Meta(min_length=3, max_length=254, examples=["zoe@example.com"])]
Telephone = Annotated[str, Meta(min_length=3, max_length=50, examples=["+351 21 000 00 00"])]
SpecialRequests = Annotated[str, Meta(min_length=1, max_length=2_000, examples=["A quiet room, please"])]

#: The fewest digits of a telephone number.
FEWEST_DIGITS = 3

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


class GuestDetails(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Who a guest is. It is encrypted before it is stored, and shown by GET /reservations/{id}/guest alone."""

    name: Name
    email: Email | None = None
    telephone: Telephone | None = None
    special_requests: SpecialRequests | None = None

    @classmethod
    def of(cls, person: Person) -> Self:
        return cls(
            name=person.name,
            email=person.email,
            telephone=person.telephone,
            special_requests=person.special_requests,
        )

    def __repr__(self) -> str:
        return "GuestDetails(…)"


def person_of(
    name: str | None, email: str | None, telephone: str | None, special_requests: str | None, *, within: str = ""
) -> Person:
    """Return the person with these fields. `within` is what their names begin with in messages. Raises Invalid."""
    if name is None or not is_visible(name):
        raise Invalid(f"{within}name", "it is required")
    require_plain(f"{within}name", name)
    require_contacts(email, telephone, within=within)
    if special_requests is not None:
        require_plain(f"{within}special_requests", special_requests, lines=True)
    return Person(name=name, email=email, telephone=telephone, special_requests=special_requests)


def require_contacts(email: str | None, telephone: str | None, *, within: str = "") -> None:
    """Raise Invalid unless these can be an e-mail address and a telephone number, if they are given."""
    if email is not None:
        require_plain(f"{within}email", email)
        if not _EMAIL.fullmatch(email.strip()):
            raise Invalid(f"{within}email", "it is no e-mail address: it has one @, text on both sides and no spaces")
    if telephone is not None:
        require_plain(f"{within}telephone", telephone)
        if len(normalised_telephone(telephone).lstrip("+")) < FEWEST_DIGITS:
            raise Invalid(f"{within}telephone", f"it has fewer than {FEWEST_DIGITS} digits")


def require_plain(field: str, text: str, *, lines: bool = False) -> None:
    """Raise Invalid if a text has characters that are for controlling what shows it."""
    if has_controls(text, lines=lines):
        raise Invalid(field, "it has control characters" if lines else "it has control characters, or several lines")
    if overrides_direction(text):
        raise Invalid(field, "it has characters that override the direction of text (U+202A to 202E, U+2066 to 2069)")
