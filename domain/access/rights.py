"""Rights: which role may use which operation, and on what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.access.principals import ANONYMOUS, Principal, Role
from domain.runtime.errors import NotAllowed, NotAuthenticated


class Whose(StrEnum):
    """On what a role may use an operation."""

    #: What belongs to the guest that the sender is.
    OWN = "own"
    #: What belongs to the venues or to the providers for which the sender acts.
    OWN_VENUES = "own venues"
    OWN_PROVIDERS = "own providers"
    ALL = "all"


Right = Mapping[Role, Whose]

_STAFF: Right = {Role.STAFF: Whose.ALL, Role.ADMIN: Whose.ALL}
_OPERATORS: Right = {Role.OPERATOR: Whose.ALL, Role.ADMIN: Whose.ALL}
_HOSTS: Right = {Role.BUSINESS: Whose.OWN_VENUES, Role.PROVIDER: Whose.OWN_PROVIDERS, **_STAFF}
_GUESTS_AND_HOSTS: Right = {Role.GUEST: Whose.OWN, **_HOSTS}

#: What is offered is shown to whoever may reserve it.
_OFFER: Right = dict.fromkeys(_GUESTS_AND_HOSTS, Whose.ALL)

#: Every operation, of every front, and who may use it.
RIGHTS: Mapping[str, Right] = {
    "items.create": _HOSTS,
    "items.list": _OFFER,
    "items.read": _OFFER,
    "items.change": _HOSTS,
    "calendars.availability": _OFFER,
    "reservations.make": _GUESTS_AND_HOSTS,
    "reservations.block": _HOSTS,
    "reservations.list": _GUESTS_AND_HOSTS,
    "reservations.read": _GUESTS_AND_HOSTS,
    "reservations.confirm": _HOSTS,
    "reservations.reject": _HOSTS,
    "reservations.cancel": _GUESTS_AND_HOSTS,
    "reservations.check-in": _HOSTS,
    "reservations.complete": _HOSTS,
    "reservations.no-show": _HOSTS,
    "reservations.extend": _GUESTS_AND_HOSTS,
    "reservations.change": _GUESTS_AND_HOSTS,
    "reservations.reschedule": _GUESTS_AND_HOSTS,
    # Reservations by the booking contract.
    "bookings.create": _GUESTS_AND_HOSTS,
    "bookings.read": _GUESTS_AND_HOSTS,
    "bookings.list": _GUESTS_AND_HOSTS,
    "bookings.update": _GUESTS_AND_HOSTS,
    "bookings.cancel": _GUESTS_AND_HOSTS,
    "bookings.status": _HOSTS,
    "bookings.availability": _OFFER,
    # Slots of providers, and bookings of them, by the slot contract.
    "slots.publish": {Role.PROVIDER: Whose.OWN_PROVIDERS, **_STAFF},
    "slots.list": _OFFER,
    "slots.book": _GUESTS_AND_HOSTS,
    "slots.read": _GUESTS_AND_HOSTS,
    "slots.cancel": _GUESTS_AND_HOSTS,
    "slots.accept": _HOSTS,
    "slots.reject": _HOSTS,
    # Who the guest of a reservation is: the only operations that show, change or look for personal data.
    "guests.read": _GUESTS_AND_HOSTS,
    "guests.change": _GUESTS_AND_HOSTS,
    "guests.search": _HOSTS,
    "events.read": {**_STAFF, **_OPERATORS},
    "outbox.read": {**_STAFF, **_OPERATORS},
    "outbox.pause": _OPERATORS,
    "outbox.resume": _OPERATORS,
    "outbox.probe": _OPERATORS,
    "outbox.replay": _OPERATORS,
    "outbox.discard": _OPERATORS,
    "audit.read": _OPERATORS,
    "metrics.read": _OPERATORS,
    # To send a request in the name of a client: its idempotency keys count, and the reservation belongs to it.
    "clients.act-for": _STAFF,
}

#: The operations that anybody may use, without saying who it is.
OPEN = frozenset({"health.read", "reference.read"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What an operation may be used on: everything, or what belongs to a guest, a venue or a provider."""

    is_everything: bool = False
    guest_id: str | None = None
    venues: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()

    def covers(self, *, venue: str | None, provider: str | None, guest_id: str | None = None) -> bool:
        """Return whether it may be used on what belongs to these."""
        is_own = guest_id is not None and guest_id == self.guest_id
        return self.is_everything or is_own or venue in self.venues or provider in self.providers

    @property
    def owners(self) -> Sequence[tuple[str, str]]:
        """Whose it may be used on, unless it is everything: the kind of each owner, and its id."""
        guests = [("guest_id", self.guest_id)] if self.guest_id is not None else []
        venues = [("venue", venue) for venue in sorted(self.venues)]
        return [*guests, *venues, *(("provider", provider) for provider in sorted(self.providers))]


EVERYTHING = Reach(is_everything=True)


def reach_of(principal: Principal, operation: str) -> Reach:
    """Return what a principal may use an operation on. Raises NotAuthenticated, NotAllowed."""
    if operation in OPEN:
        return EVERYTHING
    right = RIGHTS[operation]
    whose = {right[role] for role in principal.roles if role in right}
    if Whose.ALL in whose:
        return EVERYTHING
    if not whose:
        raise NotAuthenticated("it has no credentials") if principal is ANONYMOUS else NotAllowed(operation)
    return Reach(
        guest_id=principal.guest_id if Whose.OWN in whose else None,
        venues=principal.venues if Whose.OWN_VENUES in whose else frozenset(),
        providers=principal.providers if Whose.OWN_PROVIDERS in whose else frozenset(),
    )
