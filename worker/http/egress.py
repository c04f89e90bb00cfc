"""Egress: webhooks go to public addresses, and into the private networks that the settings name."""

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import httpcore

from domain.runtime.settings import Network

#: Addresses of IPv4 written as IPv6, as a translating gateway reads them: RFC 6052.
NAT64 = IPv6Network("64:ff9b::/96")

#: Private networks that Python takes for public ones: the translated ones of RFC 8215, and the former site-local
#: addresses (RFC 3879).
PRIVATE = (IPv6Network("64:ff9b:1::/48"), IPv6Network("fec0::/10"))

#: Addresses of IPv4 written as IPv6 in a deprecated way, which some systems still read: RFC 4291 §2.5.5.1.
COMPATIBLE = IPv6Network("::/96")

#: The variable that the messages name.
SETTING = "WEBHOOK_PRIVATE_NETWORKS"


def resolve(host: str, port: int, allowed: Sequence[Network]) -> Sequence[str]:
    """Return the addresses of a host that may be called, as the resolver orders them.

    Raises httpcore.ConnectError if there are none. The caller connects to one of these addresses and not to the
    name: the name might lead to a private address when it is resolved again.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"{host} can't be resolved: {error}") from error
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    callable_ones = [address for address in addresses if may_be_called(address, allowed)]
    if not callable_ones:
        raise httpcore.ConnectError(f"{host} has the private address {addresses[0]}, and {SETTING} does not allow it")
    return callable_ones


def may_be_called(address: str, allowed: Sequence[Network]) -> bool:
    """Return whether an address is public, or in one of these networks."""
    real = _unwrapped(ip_address(address.partition("%")[0]))
    is_public = real.is_global and not real.is_multicast and not any(real in network for network in PRIVATE)
    return is_public or any(real in network for network in allowed)


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address inside an IPv6 address, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64 or (address in COMPATIBLE and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
