"""Rates: how many requests in which time, as the settings write it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from limits import parse_many

from domain.access import RIGHTS
from domain.runtime.errors import ConfigurationError
from domain.runtime.settings import Settings

#: The limits of addresses, as clients see them.
ADDRESS, FAILED = "address", "failed-authentication"

#: What switches a limit off.
OFF = frozenset({"", "0"})


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `quota` requests within any `seconds`. `name` is what clients see of it."""

    name: str
    quota: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Rates:
    """The limits that the settings ask for. Several may hold at once, such as `20/second; 500/hour`."""

    principal: Sequence[Rate]
    address: Sequence[Rate]
    failed: Sequence[Rate]
    operations: Mapping[str, Sequence[Rate]]

    @classmethod
    def of(cls, settings: Settings) -> "Rates":
        """Return the limits that the settings ask for. Raises ConfigurationError."""
        return cls(
            _read("principal", settings.rate_limit),
            _read(ADDRESS, settings.rate_limit_address),
            _read(FAILED, settings.rate_limit_failed_auth),
            _of_operations(settings.rate_limits),
        )


def _of_operations(written: str) -> Mapping[str, Sequence[Rate]]:
    found: dict[str, Sequence[Rate]] = {}
    for operation, rates in map(_of_operation, filter(None, map(str.strip, written.split(",")))):
        if operation in found:
            raise ConfigurationError(
                f"RATE_LIMITS: {operation} is there twice. Write several rates of it like this:"
                f" {operation}=20/second;500/hour"
            )
        found[operation] = rates
    return found


def _of_operation(written: str) -> tuple[str, Sequence[Rate]]:
    operation, _, rates = (part.strip() for part in written.partition("="))
    if operation not in RIGHTS:
        raise ConfigurationError(
            f"RATE_LIMITS: no operation has the name {operation}. bin/rights lists all operations; write"
            " reservations.make=200/second, with commas between several."
        )
    return operation, _read(operation, rates)


def _read(name: str, written: str) -> Sequence[Rate]:
    if written.strip() in OFF:
        return ()
    # The settings are of this form only.
    return tuple(Rate(name, item.amount, item.get_expiry()) for item in parse_many(written))
