"""Public addresses, and the many spellings of addresses."""

from __future__ import annotations

import ipaddress
import socket
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagegate.http.public_addresses import is_public, literal_address

NOT_PUBLIC = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "100.100.100.200/32",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "169.254.169.254/32",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "::/96",
    "::ffff:0:0/96",
    "::ffff:0:0:0/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/32",
    "2001:2::/48",
    "2001:10::/28",
    "2001:20::/28",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fd00:ec2::254/128",
    "fd20:ce::254/128",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]

PUBLIC = [
    "1.1.1.1",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700::1111",
    "3ffe:ffff::1",
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("network", NOT_PUBLIC)
def test_special_networks_are_not_public(network: str) -> None:
    """The first, the last and a middle address of every special network are refused."""
    addresses = ipaddress.ip_network(network)
    middle = addresses[addresses.num_addresses // 2]

    assert [is_public(str(address)) for address in (addresses[0], middle, addresses[-1])] == [False] * 3


@pytest.mark.parametrize("address", PUBLIC)
def test_their_neighbours_are_public(address: str) -> None:
    """Addresses on either side of the special networks are accepted."""
    assert is_public(address)


@pytest.mark.parametrize("address", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.0.1", "224.0.0.1"])
@pytest.mark.parametrize("prefix", ["::", "::ffff:", "64:ff9b::", "64:ff9b:1::", "2002:", "2001:0:"])
def test_an_embedded_private_address_is_not_public(prefix: str, address: str) -> None:
    """IPv6 forms that carry a private IPv4 address are refused, also where it is not in the last bits."""
    packed = int(ipaddress.IPv4Address(address))
    if prefix == "2002:":
        spelling = f"2002:{packed >> 16:x}:{packed & 0xFFFF:x}::1"
    elif prefix == "2001:0:":
        spelling = f"2001:0:101:101::{(packed ^ 0xFFFF_FFFF) >> 16:x}:{(packed ^ 0xFFFF_FFFF) & 0xFFFF:x}"
    else:
        spelling = f"{prefix}{address}"

    assert not is_public(spelling)


@pytest.mark.parametrize(
    "text",
    ["", "example.com", "1.2.3", "01.2.3.4", "2606:4700::1%eth0", "[2606:4700::1]", "1.1.1.1 "],
)
def test_what_is_not_an_address_is_not_public(text: str) -> None:
    """Anything but the usual spelling of one address is refused."""
    assert not is_public(text)


LOOPBACK = [
    "127.0.0.1",
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "017700000001",
    "0x7f.1",
    "0x7f.0.1",
    "0177.0.0.1",
    "0177.0.0.01",
    "0177.0x0.0.1",
    "00000177.0.0.1",
    "0x0000007f.1",
    "127.1",
    "127.0.1",
    "127.0x1",
    "127.0.0x0.1",
    "127.0.0.1.",
    "127.1.",
    "127.0.0.1..",
    f"{'0' * 900}177.1",
    "[127.0.0.1]",
    " 127.0.0.1 ",
    "%31%32%37.0.0.1",
    "127%2e0%2e0%2e1",
    "%EF%BC%91%EF%BC%92%EF%BC%97.1",
    "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
    "127\u30020\u30020\u30021",
    "127\uff0e0\uff0e0\uff0e1",
    "127\uff610\uff610\uff611",
    "\u2460\u2461\u2466.0.0.1",
    "\u246b7.1",
    "\U0001d7cf\U0001d7d0\U0001d7d5.0.0.1",
    "127\N{SOFT HYPHEN}.0.0.1",
    "127.0.0.1\N{ZERO WIDTH SPACE}",
    "\uff10\uff58\uff17\uff46.1",
]


@pytest.mark.parametrize("spelling", LOOPBACK)
def test_spellings_of_ipv4(spelling: str) -> None:
    """Every spelling of 127.0.0.1 is recognised."""
    assert literal_address(spelling) == "127.0.0.1"


@pytest.mark.parametrize(
    ("spelling", "address"),
    [
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("[0000:0000::0001]", "::1"),
        ("\uff3b\uff1a\uff1a\uff11\uff3d", "::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]", "fe80::1"),
        ("fe80::1%", "fe80::1"),
        ("[::FFFF:127.0.0.1]", "::ffff:7f00:1"),
        ("2606:4700:0::1", "2606:4700::1"),
    ],
)
def test_spellings_of_ipv6(spelling: str, address: str) -> None:
    """IPv6 comes out compressed, without brackets and zone."""
    assert literal_address(spelling) == str(IPv6Address(address))  # which Python 3.13 spells in another way


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "example.com",
        "localhost",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.256",
        "1.16777216",
        "4294967296",
        "0x100000000",
        "040000000000",
        "9" * 5000,
        "08.0.0.1",
        "127..1",
        "1e3",
        "-1",
        "0b1",
        "127.0.0.1.example.com",
        "0xg",
        "::g",
        "1::2::3",
        "\u0661\u0662\u0667.0.0.1",
        "\ud800",
    ],
)
def test_names_are_not_addresses(name: str) -> None:
    """What no resolver takes for an address is a name."""
    assert literal_address(name) is None


@given(st.text(alphabet="0123456789abcdefxX.", max_size=20))
def test_agrees_with_the_resolver(text: str) -> None:
    """Whatever the C library takes for an IPv4 address is recognised as that address."""
    try:
        expected = socket.inet_ntoa(socket.inet_aton(text))
    except OSError:
        return

    assert literal_address(text) == expected


def spell_number(number: int, style: str, padding: int) -> str:
    match style:
        case "hex":
            return f"0x{'0' * padding}{number:x}"
        case "octal":
            return f"0{'0' * padding}{number:o}"
        case _:
            return str(number)


@st.composite
def private_spellings(draw: st.DrawFn) -> tuple[str, str]:
    network = draw(st.sampled_from([network for network in NOT_PUBLIC if ":" not in network]))
    value = int(draw(st.ip_addresses(network=network)))
    parts = draw(st.integers(1, 4))
    numbers = [value >> (24 - 8 * position) & 255 for position in range(parts - 1)]
    numbers.append(value & (1 << (8 * (5 - parts))) - 1)
    spelled = [
        spell_number(number, draw(st.sampled_from(["decimal", "hex", "octal"])), draw(st.integers(0, 20)))
        for number in numbers
    ]
    dot = draw(st.sampled_from([".", "\u3002", "\uff0e", "%2e"]))
    text = dot.join(spelled) + draw(st.sampled_from(["", dot]))
    if draw(st.booleans()):
        text = text.translate(
            {ord("0") + digit: ord("\uff10") + digit for digit in range(10)} if "%" not in text else {}
        )
    return draw(st.sampled_from([str.lower, str.upper]))(text), str(ipaddress.IPv4Address(value))


@given(private_spellings())
def test_no_spelling_of_a_private_address_passes(spelling: tuple[str, str]) -> None:
    """Any IPv4 address of a special network is recognised in any spelling, and is not public."""
    text, address = spelling

    assert literal_address(text) == address
    assert not is_public(address)


@given(st.ip_addresses(v=6))
def test_ipv6_outside_global_unicast_is_not_public(address: ipaddress.IPv6Address) -> None:
    """Nothing outside 2000::/3 is public, but for addresses that stand for a public IPv4 address."""
    embedded = str(address).startswith("64:ff9b::")

    assert not is_public(str(address)) or address in ipaddress.IPv6Network("2000::/3") or embedded
