"""Egress: webhooks go to public addresses, and into the private networks that the settings name."""

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpcore

from domain.runtime.settings import Network

#: Networks of IPv6 whose addresses end in an address of IPv4, to which a packet really goes.
HOLDS_IPV4 = (
    IPv6Network("64:ff9b::/96"),  # as a translating gateway reads them: RFC 6052 §2.1
    IPv6Network("::/96"),  # IPv4-compatible, deprecated, but some systems still read it: RFC 4291 §2.5.5.1
    IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated, deprecated like that: RFC 2765 §2.1
)

#: The only addresses of IPv6 that the internet uses. Source: RFC 4291 §2.4, and IANA's "IPv6 Global Unicast Address
#: Assignments". So site-local addresses (RFC 3879), SRv6 (5f00::/16, RFC 9602), the dummy prefix (100:0:0:1::/64, RFC
#: 9780) and the local translation (64:ff9b:1::/48, RFC 8215) are not public.
GLOBAL_UNICAST = IPv6Network("2000::/3")

#: Networks that Python, or some release of it, takes for public ones, and that no server of the internet is in.
NOT_PUBLIC = (
    IPv4Network("168.63.129.16/32"),  # Azure answers machines in its cloud here: "What is IP address 168.63.129.16?"
    IPv4Network("192.0.0.0/24"),  # protocol assignments, RFC 6890 §2.2.2; 192.0.0.192 is Oracle's cloud itself
    IPv4Network("192.88.99.0/24"),  # relays of 6to4, deprecated: RFC 7526
    IPv6Network("2001::/23"),  # protocol assignments, RFC 2928; Teredo tunnels (RFC 4380) among them
    IPv6Network("3fff::/20"),  # documentation: RFC 9637
)

#: An address of IPv6 with these bits, of those before the last 32, leads through a tunnel to the address of IPv4 that
#: it ends in (ISATAP). The bit that the mask leaves out says whether that one is unique. Source: RFC 5214 §6.1.
ISATAP_MASK, ISATAP = 0xFDFF_FFFF, 0x0000_5EFE

#: The variable that the messages name.
SETTING = "WEBHOOK_PRIVATE_NETWORKS"


def resolve(host: str, port: int, allowed: Sequence[Network] | None) -> Sequence[str]:
    """Return the addresses of a host that may be called, as the resolver orders them. With None, all may be.

    Raises httpcore.ConnectError if there are none. The caller connects to one of these addresses and not to the
    name: the name might lead to a private address when it is resolved again.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"{host} can't be resolved: {error}") from error
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    callable_ones = [address for address in addresses if allowed is None or may_be_called(address, allowed)]
    if not callable_ones:
        raise httpcore.ConnectError(f"{host} has the private address {addresses[0]}, and {SETTING} does not allow it")
    return callable_ones


def may_be_called(address: str, allowed: Sequence[Network]) -> bool:
    """Return whether an address is public, or in one of these networks, and so is the one that it may hide."""
    return all(
        _is_public(real) or any(real in network for network in allowed)
        for real in _leads_to(ip_address(address.partition("%")[0]))
    )


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if not address.is_global or address.is_multicast or any(address in network for network in NOT_PUBLIC):
        return False
    return isinstance(address, IPv4Address) or address in GLOBAL_UNICAST


def _leads_to(address: IPv4Address | IPv6Address) -> Sequence[IPv4Address | IPv6Address]:
    """Return the addresses to which packets may go: an IPv4 address inside an IPv6 address, or the address itself."""
    if isinstance(address, IPv4Address):
        return [address]
    held = IPv4Address(int(address) & 0xFFFF_FFFF)
    if int(address) > 1 and any(address in network for network in HOLDS_IPV4):
        return [held]
    outer = address.ipv4_mapped or address.sixtofour or address
    return [outer, held] if int(address) >> 32 & ISATAP_MASK == ISATAP else [outer]
