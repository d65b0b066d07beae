from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diarization import addresses
from diarization.addresses import canonical_host, connect, embedded_ipv4, is_allowed, is_global, resolve
from diarization.download import download
from diarization.errors import Cancelled, UrlNotAllowed
from diarization.recording import Recording
from tests.unit.diarization.hostile_urls import HOSTILE_URLS, HostileUrl

LOOPBACK = (ip_network("127.0.0.0/8"),)

ipv4 = st.ip_addresses(v=4)
ipv4_networks = st.builds(
    lambda address, length: ip_network((int(address), length), strict=False),
    ipv4,
    st.integers(min_value=0, max_value=32),
).map(lambda network: IPv4Network(network))
networks = st.lists(
    st.one_of(
        ipv4_networks,
        st.sampled_from([ip_network(block) for block in ("127.0.0.0/8", "10.0.0.0/8", "::1/128", "::/0", "2002::/16")]),
    ),
    max_size=3,
)
EMBED = {
    "mapped": lambda bits, rest: 0xFFFF << 32 | bits,
    "compatible": lambda bits, rest: bits,
    "translated": lambda bits, rest: 0xFFFF << 48 | bits,
    "NAT64": lambda bits, rest: 0x64FF9B << 96 | bits,
    "local NAT64": lambda bits, rest: 0x64FF9B0001 << 80 | rest % 2**48 << 32 | bits,
    "6to4": lambda bits, rest: 0x2002 << 112 | bits << 80 | rest % 2**80,
    "Teredo server": lambda bits, rest: 0x2001 << 112 | bits << 64 | rest % 2**64,
    "Teredo client": lambda bits, rest: 0x2001 << 112 | rest % 2**64 << 32 | bits ^ 0xFFFFFFFF,
    "ISATAP": lambda bits, rest: 0x2A00 << 112 | rest % 2**48 << 64 | 0x5EFE << 32 | bits,
    "global ISATAP": lambda bits, rest: 0x2A00 << 112 | rest % 2**48 << 64 | 0x02005EFE << 32 | bits,
}


@given(ipv4, st.integers(min_value=0, max_value=2**80 - 1), networks, st.sampled_from(sorted(EMBED)))
def test_no_ipv6_form_allows_more_than_the_ipv4_address_in_it(
    address: IPv4Address, rest: int, allowed: list[IPv4Network | IPv6Network], form: str
) -> None:
    embedding = IPv6Address(EMBED[form](int(address), rest))
    if int(embedding) > 1 and is_allowed(embedding, allowed):
        assert is_allowed(address, allowed)


@given(ipv4, ipv4_networks)
def test_an_allowed_ipv4_network_holds_for_the_mapped_form_and_no_other_address(
    address: IPv4Address, network: IPv4Network
) -> None:
    expected = address in network or is_global(address)
    assert is_allowed(address, [network]) is expected
    assert is_allowed(IPv6Address(0xFFFF << 32 | int(address)), [network]) is expected


@given(st.ip_addresses())
def test_what_python_calls_private_or_reserved_is_never_global(address: IPv4Address | IPv6Address) -> None:
    nat64 = address.version == 6 and address in IPv6Network("64:ff9b::/96")
    if is_global(address) and not nat64:
        assert not any((address.is_private, address.is_reserved, address.is_multicast, address.is_loopback))


PUBLIC = ["1.1.1.1", "8.8.8.8", "11.0.0.0", "100.128.0.1", "172.32.0.1", "198.20.0.1", "223.255.255.255"]
PUBLIC += ["2606:4700:4700::1111", "2a00:1450::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_allowed(text: str) -> None:
    assert is_allowed(ip_address(text))


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("::ffff:10.0.0.1", ["10.0.0.1"]),
        ("64:ff9b::10.0.0.1", ["10.0.0.1"]),
        ("2002:a00:1::5", ["10.0.0.1"]),
        ("2001:0:a00:1::f5ff:fffd", ["10.0.0.1", "10.0.0.2"]),
        ("2a00::5efe:10.0.0.1", ["10.0.0.1"]),
        ("2a00::200:5efe:10.0.0.1", ["10.0.0.1"]),
        ("::", []),
        ("::1", []),
        ("2a00:1450::1", []),
    ],
)
def test_the_embedded_ipv4_is_found(text: str, inner: list[str]) -> None:
    assert [str(address) for address in embedded_ipv4(IPv6Address(text))] == inner


def test_an_operators_networks_are_allowed_and_what_is_in_them_is_still_checked() -> None:
    assert is_allowed(ip_address("::1"), [ip_network("::1/128")])
    assert is_allowed(ip_address("fd00::1"), [ip_network("fd00::/8")])
    assert is_allowed(ip_address("64:ff9b::10.0.0.1"), [ip_network("10.0.0.0/8")])
    assert not is_allowed(ip_address("64:ff9b::10.0.0.1"), [ip_network("64:ff9b::/96")])
    assert not is_allowed(ip_address("::ffff:127.0.0.1"), [ip_network("::/0")])


def test_the_table_is_long_enough() -> None:
    assert len({hostile.url for hostile in HOSTILE_URLS}) == len(HOSTILE_URLS) >= 40


@pytest.mark.parametrize("hostile", HOSTILE_URLS, ids=lambda hostile: ascii(hostile.url)[1:60])
def test_a_hostile_url_is_refused_for_the_address_it_really_means(
    hostile: HostileUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(addresses, "_open", lambda *endpoint: opened.append(endpoint))
    with pytest.raises(hostile.error) as refusal, _download(hostile.url, tmp_path):
        pass
    if hostile.resolves is not None and "localhost" not in str(refusal.value):
        assert str(ip_address(hostile.resolves)) in str(refusal.value)
    assert type(refusal.value) is hostile.error
    assert opened == []
    assert list(tmp_path.iterdir()) == []


def _download(url: str, directory: Path) -> AbstractContextManager[Path]:
    return download(
        Recording(url),
        directory,
        max_bytes=1000,
        timeout_seconds=5.0,
        stall_timeout_seconds=5.0,
        report=lambda *_: None,
    )


@pytest.mark.parametrize(
    ("host", "canonical"),
    [
        ("Example.COM.", "example.com"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("①②⑦.0.0.1", "127.0.0.1"),
        ("a_b-c.example", "a_b-c.example"),
        ("2001:DB8::1", "2001:db8::1"),
    ],
)
def test_canonical_host(host: str, canonical: str) -> None:
    assert canonical_host(host) == canonical


def _answers(monkeypatch: pytest.MonkeyPatch, *found: str) -> list[str]:
    """Stands in for the name server alone: whatever name is asked for has these addresses."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        families = [socket.AF_INET6 if ":" in text else socket.AF_INET for text in found]
        return [
            (family, socket.SOCK_STREAM, 6, "", (text, port, 0, 0) if ":" in text else (text, port))
            for family, text in zip(families, found, strict=True)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize("found", [("8.8.8.8", "10.0.0.1"), ("10.0.0.1", "8.8.8.8"), ("2a00:1450::1", "::1")])
def test_one_address_that_is_not_allowed_refuses_the_host(
    monkeypatch: pytest.MonkeyPatch, found: tuple[str, ...]
) -> None:
    _answers(monkeypatch, *found)
    with pytest.raises(
        UrlNotAllowed, match=r"recordings\.example resolves to (10\.0\.0\.1|::1), which is not a public"
    ):
        resolve("recordings.example", 80)


def test_an_address_with_a_zone_is_judged_by_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, "fe80::1%lo")
    with pytest.raises(UrlNotAllowed):
        resolve("recordings.example", 80)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_the_name_server_is_asked_once_and_its_answer_is_what_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket
) -> None:
    port = listener.getsockname()[1]
    asked = _answers(monkeypatch, "127.0.0.1")
    with connect("recordings.example", port, allowed_networks=LOOPBACK, tick=lambda: None, tls=False) as sock:
        assert sock.getpeername() == ("127.0.0.1", port)
    assert asked == ["recordings.example"]


def test_a_dead_first_address_leaves_the_second(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    _answers(monkeypatch, "127.0.0.2", "127.0.0.1")
    with connect("recordings.example", port, allowed_networks=LOOPBACK, tick=lambda: None, tls=False) as sock:
        assert sock.getpeername()[0] == "127.0.0.1"


def test_the_error_is_the_last_address_s(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    _answers(monkeypatch, "127.0.0.2", "127.0.0.1")
    with pytest.raises(ConnectionRefusedError) as refusal:
        connect("recordings.example", port, allowed_networks=LOOPBACK, tick=lambda: None, tls=False)
    assert refusal.value.errno == errno.ECONNREFUSED


def test_a_name_server_that_does_not_answer_can_be_left(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    ticks = 0

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        answered.wait(10)
        return []

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 3:
            raise Cancelled("enough")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        with pytest.raises(Cancelled):
            connect("recordings.example", 80, allowed_networks=(), tick=tick, tls=False)
    finally:
        answered.set()


def test_a_connection_that_is_not_accepted_can_be_left_and_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        monkeypatch.setattr(addresses, "CONNECT_TIMEOUT_SECONDS", 0.3)
        with pytest.raises(TimeoutError):
            connect(*full.getsockname(), allowed_networks=LOOPBACK, tick=lambda: None, tls=False)
