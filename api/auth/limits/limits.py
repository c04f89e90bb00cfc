"""Limits: who has sent too many requests, whatever front they come through."""

import time
from collections.abc import Mapping, Sequence

from api.auth.limits.addresses import Address
from api.auth.limits.counts import Count, Counts
from api.auth.limits.rates import FAILED, Rate, Rates
from api.auth.limits.redis_counts import RedisCounts
from domain.access import ANONYMOUS, Principal
from domain.runtime.errors import FailedTooOften, RateLimited, TooManyRequests
from domain.runtime.settings import Settings

#: A sender that was refused so often within a window goes on without looking at the answers.
FIRST_REFUSALS = 20

#: The unknown credentials that are checked in a second for an address that has failed too often. To check a signature
#: takes a tenth of a millisecond, and somebody else at that address may have a new token.
CHECKS = Rate(FAILED, quota=100, seconds=1)


class Exceeded(Exception):
    """Raised when a request is too many. `is_repeated` is whether its sender was refused often before."""

    def __init__(self, error: RateLimited, *, is_repeated: bool) -> None:
        super().__init__(error)
        self.error = error
        self.is_repeated = is_repeated


class Limits:
    """Counts requests, and refuses those that are too many. Safe for threads.

    A refused request does not count in the limits that are looked at with the one that refuses it: a sender that does
    not stop gets what its limits allow, and no less.
    """

    def __init__(self, rates: Rates, shared: RedisCounts | None, *, knows_principals: bool) -> None:
        self._shared = shared
        self._knows_principals = knows_principals
        self._addresses = self._counts(rates.address)
        self._failed = self._counts(rates.failed)
        self._checks = Counts(CHECKS)
        self._principals = self._counts(rates.principal) if knows_principals else ()
        self._operations: Mapping[str, Sequence[Counts]] = {
            operation: self._counts(several) for operation, several in rates.operations.items()
        }

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """Return the limits that the settings ask for. Raises ConfigurationError.

        With AUTH=none nobody is known, so there are no principals to be limited.
        """
        return cls(Rates.of(settings), RedisCounts.of(settings), knows_principals=settings.auth != "none")

    @property
    def operations(self) -> Sequence[str]:
        """The operations that have a limit of their own."""
        return list(self._operations)

    def start(self) -> None:
        """Begin to share counts with other processes."""
        if self._shared:
            self._shared.start()

    def stop(self) -> None:
        """Share no more."""
        if self._shared:
            self._shared.stop()

    def of_address(self, address: Address) -> None:
        """Count a request from an address, before anything else of it is looked at. Raises Exceeded.

        What comes from this machine itself is not limited: it is a proxy or a tool, and not one sender.
        """
        if self._addresses and not address.is_loopback:
            _use([(counts, address.sender) for counts in self._addresses])

    def has_failed_often(self, address: Address) -> bool:
        """Return whether too many requests from an address had no credentials that can be used."""
        return any(counts.is_used_up(address.sender, time.time()) for counts in self._failed)

    def of_check(self, address: Address) -> None:
        """Count a check of unknown credentials from an address that has failed too often. Raises Exceeded."""
        refused = self._checks.use(address.sender, time.time())
        if refused is not None:
            rate = self._failed[0].rate
            raise _refusal(FailedTooOften(FAILED, rate.quota, rate.seconds, CHECKS.seconds), refused)

    def of_failure(self, sender: str) -> None:
        """Count a request whose credentials are missing or can't be used. Raises Exceeded.

        The sender is an address, or whose credentials they were.
        """
        _use([(counts, sender) for counts in self._failed])

    def of_sender(self, principal: Principal, address: Address, operation: str | None) -> None:
        """Count a request of a principal that uses an operation, if that has a limit. Raises Exceeded."""
        is_known = self._knows_principals and principal is not ANONYMOUS
        sender = principal.name if is_known else address.sender
        of_principals = self._principals if is_known else ()
        _use([(counts, sender) for counts in (*of_principals, *self._operations.get(operation or "", ()))])

    def _counts(self, rates: Sequence[Rate]) -> Sequence[Counts]:
        share = self._shared.share if self._shared else None
        return [Counts(rate, share) for rate in rates]


def _use(several: Sequence[tuple[Counts, str]]) -> None:
    """Count a request in all of these, by the key of its sender there, or in none. Raises Exceeded."""
    now = time.time()
    if len(several) > 1:
        # Those before the one that refuses would have counted it. One alone refuses by itself.
        several = [(counts, key) for counts, key in several if counts.is_used_up(key, now)][:1] or several
    for counts, key in several:
        refused = counts.use(key, now)
        if refused is not None:
            raise _exceeded(counts, key, refused, now)


def _exceeded(counts: Counts, key: str, count: Count, now: float) -> Exceeded:
    rate = counts.rate
    seconds = counts.seconds_until_free(key, count, now)
    kind = FailedTooOften if rate.name == FAILED else TooManyRequests
    error = kind(rate.name, rate.quota, rate.seconds, seconds)
    return _refusal(error, count)


def _refusal(error: RateLimited, count: Count) -> Exceeded:
    return Exceeded(error, is_repeated=count.refused > FIRST_REFUSALS)
