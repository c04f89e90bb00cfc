"""What can be said no to, as facts. A door chooses the words and the codes.

HoldfastError
├── Refusal                 the answer is no, and nothing has changed
│   ├── Invalid             one field of the request can't be
│   ├── NotFound
│   │   ├── UnknownItem
│   │   ├── UnknownReservation
│   │   ├── UnknownDestination
│   │   └── NothingPromised  under this id, which may be an event's or a reservation's
│   └── Conflict            what is asked for does not fit what is true now
│       ├── SoldOut
│       ├── SkuTaken
│       ├── StockCommitted  more is to be taken away than is available
│       ├── WrongStatus
│       ├── HoldLapsed
│       ├── StaleVersion    of a body; StalePrecondition: of an If-Match header
│       └── KeyReused
└── Unavailable             nothing is known; ask again
    ├── Busy
    └── DatabaseUnavailable
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


class HoldfastError(Exception):
    """The root of the tree. `str()` is for logs; a door renders the fields."""

    def __str__(self) -> str:
        facts = ", ".join(f"{name}={value!s}" for name, value in vars(self).items())
        return f"{type(self).__name__}({facts})"


class Refusal(HoldfastError):
    pass


class NotFound(Refusal):
    @property
    def field(self) -> str:
        """The field of the request that names what there is not."""
        raise NotImplementedError


class Conflict(Refusal):
    pass


class Unavailable(HoldfastError):
    retry_after_seconds: int


@dataclass(eq=False)
class Invalid(Refusal):
    field: str
    reason: str


@dataclass(eq=False)
class UnknownItem(NotFound):
    item: int | str

    @property
    def field(self) -> str:
        return "item_id" if isinstance(self.item, int) else "sku"


@dataclass(eq=False)
class UnknownReservation(NotFound):
    reservation_id: UUID

    @property
    def field(self) -> str:
        return "reservation_id"


@dataclass(eq=False)
class UnknownDestination(NotFound):
    destination: str
    there_are: str

    @property
    def field(self) -> str:
        return "name"


@dataclass(eq=False)
class NothingPromised(NotFound):
    subject_id: UUID

    @property
    def field(self) -> str:
        return "subject_id"


@dataclass(eq=False)
class SoldOut(Conflict):
    sku: str
    asked: int
    available_quantity: int


@dataclass(eq=False)
class SkuTaken(Conflict):
    sku: str


@dataclass(eq=False)
class StockCommitted(Conflict):
    sku: str
    adjust_quantity_by: int
    available_quantity: int


@dataclass(eq=False)
class WrongStatus(Conflict):
    status: str
    to: str


@dataclass(eq=False)
class HoldLapsed(Conflict):
    reservation_id: UUID
    expired_at: datetime


@dataclass(eq=False)
class StaleVersion(Conflict):
    expected_version: int
    current_version: int


@dataclass(eq=False)
class StalePrecondition(Conflict):
    expected_version: int
    current_version: int


@dataclass(eq=False)
class KeyReused(Conflict):
    key: str


@dataclass(eq=False)
class Busy(Unavailable):
    retry_after_seconds: int = 1


@dataclass(eq=False)
class DatabaseUnavailable(Unavailable):
    retry_after_seconds: int = 2
