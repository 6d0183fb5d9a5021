"""Which addresses are on the public internet, and which host names are addresses in disguise. No I/O."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import unquote

import idna

# Own tables, from IANA's registries of special-purpose addresses: what `ipaddress` calls global differs from
# one Python to the next (3.11.7 lets 192.88.99.0/24, 2002::/16 and 64:ff9b:1::/48 pass, for instance).
_NOT_PUBLIC_4: Final = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # carrier-grade NAT, and Alibaba's metadata at 100.100.100.200
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's host agent, a public number that never leaves the machine's host
            "169.254.0.0/16",  # link-local, and the metadata services of most clouds at 169.254.169.254
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # protocol assignments
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # relays of 6to4, given up
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarking
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
_GLOBAL_UNICAST_6: Final = IPv6Network("2000::/3")  # all that was ever given out
_NOT_PUBLIC_6: Final = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # protocol assignments, among them Teredo, which hides an IPv4 address
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4, which hides an IPv4 address
            "3fff::/20",  # documentation
        ),
    )
)
# Networks without IPv4 reach every IPv4-only host through this prefix. The last 32 bits say which.
_NAT64: Final = IPv6Network("64:ff9b::/96")

_NUMBER: Final = re.compile(r"0x[0-9a-f]*|0[0-7]*|[1-9][0-9]*")


def is_public(address: str) -> bool:
    """Return whether an IPv4 or IPv6 address, in its usual spelling, is globally reachable unicast.

    What is no such address, or has a zone (`%eth0`), is not public.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv4Address):
        return not any(parsed in network for network in _NOT_PUBLIC_4)
    if parsed.scope_id is not None:
        return False
    if parsed in _NAT64:
        return is_public(str(IPv4Address(int(parsed) & 0xFFFF_FFFF)))
    # IPv4-mapped and -compatible, loopback, link-local, site-local, ULA and multicast are outside 2000::/3.
    return parsed in _GLOBAL_UNICAST_6 and not any(parsed in network for network in _NOT_PUBLIC_6)


def literal_address(host: str) -> str | None:
    """Return the address that `host`, the host of a URL, spells, in its usual spelling; None for a name.

    Recognises whatever some resolver or URL parser takes for an address: octal, hexadecimal and short forms
    of IPv4 (`0177.0.0.1`, `0x7f000001`, `127.1`), trailing dots, percent-encoding, compatibility characters
    such as full-width digits, brackets, and zones of IPv6, which are dropped.
    """
    text = host.strip()
    if len(text) > 1000:  # four times the longest name; int() minds numbers that are very long
        return None
    try:
        text = idna.uts46_remap(text if ":" in text else unquote(text), std3_rules=False)
    except idna.IDNAError:
        return None
    text = text.removeprefix("[").removesuffix("]")
    return _ipv6(text) if ":" in text else _ipv4(text)


def _ipv6(text: str) -> str | None:
    try:
        return str(IPv6Address(text.partition("%")[0]))
    except ValueError:
        return None


def _ipv4(text: str) -> str | None:
    """Read an IPv4 address as inet_aton does: one to four numbers, the last of which fills the rest."""
    *leading, last = (_number(part) for part in text.rstrip(".").split("."))
    if last is None or len(leading) > 3 or last >= 256 ** (4 - len(leading)):
        return None
    value = last
    for position, number in enumerate(leading):
        if number is None or number > 255:
            return None
        value |= number << (24 - 8 * position)
    return str(IPv4Address(value))


def _number(text: str) -> int | None:
    if not _NUMBER.fullmatch(text):
        return None
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") else 10)
