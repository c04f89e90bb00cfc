"""Addresses: from where a request was sent, as far as that can be believed."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from domain.runtime.settings import Network

#: The addresses whose text was read lately are remembered.
MOST_REMEMBERED = 4_096

#: The proxies that a request may have come through.
MOST_PROXIES = 16

#: No address is longer. What is longer is not read, and so not remembered either.
MOST_CHARACTERS = 64

#: A network of this size is one sender: whoever has an address of IPv6 usually has all of that network.
IPV6_PREFIX = 64


@dataclass(frozen=True, slots=True)
class Address:
    """An address, `sender` as text: that of IPv6 is its network."""

    sender: str
    is_trusted: bool
    is_loopback: bool


#: Of a request through a Unix socket.
UNKNOWN = Address("unknown", is_trusted=False, is_loopback=True)


class Addresses:
    """Finds out from where requests were sent. `trusted` are the networks of proxies whose `X-Forwarded-For` counts."""

    def __init__(self, trusted: Collection[Network]) -> None:
        self._trusted = trusted
        self._cached = lru_cache(MOST_REMEMBERED)(self._read)

    def of(self, peer: str, forwarded: Iterable[str]) -> Address:
        """Return the address of the sender, by the address of the peer and the values of X-Forwarded-For.

        Each proxy has added the address of its own peer. So they are read from the last one on, as long as they are
        proxies that are trusted: the first one that is not is the sender, and what it has written itself is nothing.
        """
        found = self._cached(peer) or UNKNOWN
        if not found.is_trusted:
            return found
        for written in _from_last(forwarded):
            address = self._cached(written)
            if address is None:
                return found
            found = address
            if not found.is_trusted:
                return found
        return found

    def _read(self, written: str) -> Address | None:
        address = _parsed(written)
        if address is None:
            return None
        sender = IPv6Network((address, IPV6_PREFIX), strict=False) if isinstance(address, IPv6Address) else address
        is_trusted = any(address in network for network in self._trusted)
        return Address(str(sender), is_trusted, address.is_loopback)


def _from_last(forwarded: Iterable[str]) -> Iterator[str]:
    written = ",".join(forwarded).rsplit(",", MOST_PROXIES)[-MOST_PROXIES:]
    return (one.strip()[:MOST_CHARACTERS] for one in reversed(written) if one.strip())


def _parsed(written: str) -> IPv4Address | IPv6Address | None:
    """Return an address that is written with or without a port and brackets, None if it can't be read."""
    text = written.strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
