"""Which IP addresses lie on the public internet, and what the others are.

The tables are IANA's registries of special-purpose addresses (RFC 6890 and what updates it). Of IPv6 only the global
unicast block 2000::/3 is public; forms that carry an IPv4 address inside are judged by that address or refused.
"""

from __future__ import annotations

import ipaddress

from keyeloop.tools.pages.address import IP

LOOPBACK, PRIVATE, LINK_LOCAL, METADATA = "loopback", "a private network", "link-local", "a cloud's metadata service"
RESERVED, NOWHERE, MULTICAST, TUNNEL = "a reserved range", "no address at all", "multicast", "a tunnel to IPv4"
NEVER = frozenset({NOWHERE, MULTICAST, TUNNEL})
"""Refused however a host was allowed."""
ONLY_BY_NUMBER = frozenset({LINK_LOCAL, METADATA})
"""Refused behind an allowed name: allowed only where the address itself is."""

_IPV4 = [
    (ipaddress.IPv4Network(network), what)
    for network, what in (
        ("168.63.129.16/32", METADATA),
        ("169.254.169.254/32", METADATA),
        ("100.100.100.200/32", METADATA),
        ("0.0.0.0/32", NOWHERE),
        ("0.0.0.0/8", RESERVED),
        ("10.0.0.0/8", PRIVATE),
        ("100.64.0.0/10", PRIVATE),
        ("127.0.0.0/8", LOOPBACK),
        ("169.254.0.0/16", LINK_LOCAL),
        ("172.16.0.0/12", PRIVATE),
        ("192.0.0.0/24", RESERVED),
        ("192.0.2.0/24", RESERVED),
        ("192.88.99.0/24", RESERVED),
        ("192.168.0.0/16", PRIVATE),
        ("198.18.0.0/15", RESERVED),
        ("198.51.100.0/24", RESERVED),
        ("203.0.113.0/24", RESERVED),
        ("224.0.0.0/4", MULTICAST),
        ("240.0.0.0/4", RESERVED),
    )
]
_IPV6 = [
    (ipaddress.IPv6Network(network), what)
    for network, what in (
        ("::/128", NOWHERE),
        ("::1/128", LOOPBACK),
        ("::/96", TUNNEL),
        ("64:ff9b:1::/48", TUNNEL),
        ("2001::/23", TUNNEL),
        ("2001:db8::/32", RESERVED),
        ("2002::/16", TUNNEL),
        ("3fff::/20", RESERVED),
        ("fd00:ec2::254/128", METADATA),
        ("fc00::/7", PRIVATE),
        ("fe80::/10", LINK_LOCAL),
        ("fec0::/10", PRIVATE),
        ("ff00::/8", MULTICAST),
    )
]
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def place_of(ip: IP) -> str | None:
    """What kind of address it is, in words; None for one on the public internet."""
    if isinstance(ip, ipaddress.IPv4Address):
        return next((what for network, what in _IPV4 if ip in network), None)
    if ip.ipv4_mapped is not None:
        return place_of(ip.ipv4_mapped)
    if ip in _NAT64:
        return place_of(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    found = next((what for network, what in _IPV6 if ip in network), None)
    if found is None and (int(ip) >> 32) & 0xFDFFFFFF == 0x5EFE:  # ISATAP: an IPv4 address in the interface's number
        return TUNNEL
    return found if found is not None or ip in _GLOBAL_UNICAST else RESERVED
