"""WireGuard's netlink messages, byte by byte as in include/uapi/linux/wireguard.h, and keys."""

from __future__ import annotations

import base64
import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.errors import HitlessError, KernelError
from hitless.kernel.links import generic
from hitless.kernel.links.wireguard import Secrets
from hitless.kernel.netlink import Message, attribute, nested
from hitless.model import curve25519
from hitless.model.links import WireguardPeer

KEY = base64.b64encode(b"\x11" * 32).decode()
PRESHARED = b"\x22" * 32
PEER = WireguardPeer(
    "flannel-wg", KEY, IPv4Address("192.0.2.2"), 51820, frozenset({IPv4Network("10.42.2.0/24")}), 25, True
)

GENL_SET = "01 01 0000"
NAME = "0f00 0200 666c616e6e656c2d776700 00"  # WGDEVICE_A_IFNAME
SET_PEER = f"""
{GENL_SET} {NAME}
9400 0880                                     WGDEVICE_A_PEERS, nested
 9000 0080                                    the first one
  2400 0100 {"11" * 32}                       WGPEER_A_PUBLIC_KEY
  0800 0300 02000000                          WGPEER_A_FLAGS: REPLACE_ALLOWEDIPS
  2400 0200 {"22" * 32}                       WGPEER_A_PRESHARED_KEY
  1400 0400 0200 ca6c c0000202 0000000000000000   WGPEER_A_ENDPOINT: sockaddr_in
  0600 0500 1900 0000                         WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL
  2000 0980                                   WGPEER_A_ALLOWEDIPS
   1c00 0080
    0600 0100 0200 0000                       WGALLOWEDIP_A_FAMILY
    0800 0200 0a2a0200                        WGALLOWEDIP_A_IPADDR
    0500 0300 18 000000                       WGALLOWEDIP_A_CIDR_MASK
"""
REMOVE_PEER = f"""
{GENL_SET} {NAME}
3400 0880 3000 0080
  2400 0100 {"11" * 32}
  0800 0300 01000000                          WGPEER_A_FLAGS: REMOVE_ME
"""
SET_DEVICE = f"""
{GENL_SET} {NAME}
2400 0300 {"33" * 32}                         WGDEVICE_A_PRIVATE_KEY
0600 0600 6dca 0000                           WGDEVICE_A_LISTEN_PORT, 51821
"""


def raw(sample: str) -> bytes:
    """Lines of hexadecimal digits; after three blanks comes a comment."""
    return bytes.fromhex(" ".join(line.split("   ")[0] for line in _flat(sample)))


def _flat(sample: str) -> list[str]:
    return [line.strip() for line in sample.splitlines()]


def peer_bytes(key: bytes, *more: bytes) -> bytes:
    return nested(0, attribute(1, key), *more)


def allowed_bytes(*networks: IPv4Network | IPv6Network) -> bytes:
    made = []
    for one in networks:
        number = 2 if one.version == 4 else 10
        parts = (
            attribute(1, struct.pack("=H", number)), attribute(2, one.network_address.packed),
            attribute(3, bytes([one.prefixlen])),
        )  # fmt: skip
        made.append(nested(0, *parts))
    return nested(9, *made)


def got(*parts: bytes) -> bytes:
    return b"\0\x01\0\0" + b"".join(parts)


def messages(*payloads: bytes) -> list[Message]:
    return [Message(30, 2, 1, 0, one) for one in payloads]


def test_what_is_written_is_what_the_header_says() -> None:
    assert generic.set_peer(PEER, PRESHARED) == raw(SET_PEER)
    assert generic.set_peer(PEER, PRESHARED, remove=True) == raw(REMOVE_PEER)
    assert generic.set_device("flannel-wg", b"\x33" * 32, 51821) == raw(SET_DEVICE)
    # CTRL_CMD_GETFAMILY with CTRL_ATTR_FAMILY_NAME; WG_CMD_GET_DEVICE
    assert generic.ask_family("wireguard") == raw("03 01 0000 0e00 0200 776972656775617264 00 0000")
    assert generic.ask_device("flannel-wg") == raw(f"00 01 0000 {NAME}")


def test_an_ipv6_endpoint_is_a_sockaddr_in6() -> None:
    six = WireguardPeer("flannel-wg-v6", KEY, IPv6Address("fd00::2"), 51821, frozenset({IPv6Network("fd42::/64")}))
    written = generic.set_peer(six, b"")
    assert raw("2000 0400 0a00 ca6d 00000000 fd000000000000000000000000000002 00000000") in written
    assert raw(f"2400 0200 {'00' * 32}") in written  # no preshared key: an earlier one is removed


def test_a_familys_number_is_found_and_that_there_is_none() -> None:
    answer = raw("01 02 0000 0e00 0200 776972656775617264 00 0000 0600 0100 1e00 0000")
    assert generic.family(messages(answer)) == 30
    assert generic.family(messages(raw("01 02 0000"))) == 0


def test_a_dump_of_several_messages_is_one_device_and_a_peer_may_be_split() -> None:
    nets = [IPv4Network(f"10.42.{number}.0/24") for number in range(2, 6)]
    time_of_handshake = struct.pack("=qq", 1000, 5)
    first = peer_bytes(
        b"\x11" * 32, attribute(2, PRESHARED), attribute(4, raw("0200 ca6c c0000202 0000000000000000")),
        attribute(5, b"\x19\0"), attribute(6, time_of_handshake), allowed_bytes(*nets[:2]),
    )  # fmt: skip
    rest, other = peer_bytes(b"\x11" * 32, allowed_bytes(nets[2])), peer_bytes(b"\x44" * 32, allowed_bytes(nets[3]))
    head = (attribute(3, b"\x33" * 32), attribute(4, b"\x55" * 32), attribute(6, b"\x6c\xca"))
    told = messages(got(*head, nested(8, first)), got(nested(8, rest, other)))
    found = generic.device("flannel-wg", told, PRESHARED, 1100.0)
    assert found.port == 51820 and found.public_key == base64.b64encode(b"\x55" * 32).decode()
    one, two = found.peers
    assert one == WireguardPeer("flannel-wg", KEY, IPv4Address("192.0.2.2"), 51820, frozenset(nets[:3]), 25, True)
    assert one.alive and not two.alive
    assert (two.endpoint, two.preshared, two.allowed) == (None, False, frozenset({nets[3]}))
    # three minutes later it has no session; and another preshared key than it should have is as none
    later = generic.device("flannel-wg", told, b"\x66" * 32, 1180.0)
    assert not later.peers[0].alive and not later.peers[0].preshared
    assert generic.device("flannel-wg", told, b"", 1180.0).peers[0].preshared


def test_no_secret_is_in_what_is_printed() -> None:
    head = (attribute(3, b"\x33" * 32), attribute(4, b"\x55" * 32))
    found = generic.device("flannel-wg", messages(got(*head)), PRESHARED, 0.0)
    assert found.private_key == b"\x33" * 32
    secrets = Secrets(b"\x33" * 32, PRESHARED)
    for shown in (repr(found), repr(secrets), str(secrets)):
        assert "3333" not in shown and r"\x22" not in shown and "x33" not in shown


NETS = st.frozensets(
    st.builds(lambda number: IPv4Network((0x0A2A0000 + (number << 8), 24)), st.integers(0, 255))
    | st.builds(lambda number: IPv6Network(((0xFD42 << 112) + (number << 64), 64)), st.integers(0, 999)),
    max_size=40,
)


@given(
    key=st.binary(min_size=32, max_size=32).filter(any), port=st.integers(1, 65535), keepalive=st.integers(0, 65535),
    address=st.ip_addresses(), nets=NETS, preshared=st.booleans(),
)  # fmt: skip
def test_what_is_written_reads_as_what_was_meant(
    key: bytes, port: int, keepalive: int, address: IPv4Address | IPv6Address, nets: frozenset[IPv4Network],
    preshared: bool,
) -> None:  # fmt: skip
    peer = WireguardPeer(
        "flannel-wg", base64.b64encode(key).decode(), address, port, nets, keepalive, preshared
    )  # fmt: skip
    payload = generic.set_peer(peer, PRESHARED)
    assert generic.device("flannel-wg", messages(payload), PRESHARED, 1e9).peers == (peer,)


@pytest.mark.slow
@given(st.lists(st.binary(max_size=200), max_size=3), st.data())
def test_bytes_that_the_kernel_never_sends_are_an_error_of_ours(noise: list[bytes], data: st.DataObject) -> None:
    good = raw(SET_PEER)
    at, byte = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    bent = good[:at] + bytes([byte]) + good[at + 1 :]
    for payloads in (noise, [bent], [good[:cut]], [bent[:cut], *noise]):
        for read in (
            lambda told: generic.device("flannel-wg", told, b"", 0.0),
            generic.family,
        ):
            try:
                read(messages(*payloads))
            except HitlessError as error:
                assert isinstance(error, KernelError), error


def test_public_keys_are_those_of_rfc_7748() -> None:
    """Its section 5.2."""
    nine = (9).to_bytes(32, "little")
    once = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert curve25519.public_key(nine).hex() == once
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    expected = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert curve25519.public_key(scalar, int.from_bytes(point, "little")).hex() == expected


@pytest.mark.parametrize("text", ["", "x", "A" * 44, base64.b64encode(bytes(31)).decode(), KEY[:-1], KEY + "AAAA"])
def test_what_is_no_key(text: str) -> None:
    assert curve25519.is_key(KEY) and not curve25519.is_key(text)
