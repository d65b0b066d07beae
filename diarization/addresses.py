"""Which addresses may be connected to, and the connection to exactly the address that was checked.

A stranger's URL must not reach the networks that a worker stands in: its loopback, its neighbours, a cloud's metadata
service. How a host is spelt decides nothing: it is resolved once, every address it resolves to is checked, and the
connection goes to such an address, so a second, different answer of the name server is never asked for.

One address that is not allowed refuses the whole host, even beside allowed ones: a public name that also points inwards
is a mistake or an attack, and a refusal that depended on which address happened to answer could not be explained.
"""

from __future__ import annotations

import concurrent.futures
import errno
import os
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, NamedTuple

import certifi

from diarization.errors import UrlNotAllowed

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Longest wait between two calls of `tick`.
SLICE_SECONDS = 0.25
# Per address: so that a dead first address leaves time for the second one.
CONNECT_TIMEOUT_SECONDS = 10.0

# The IANA special-purpose address registries (RFC 6890 and updates), written out because what `ipaddress` calls global
# differs between patch releases of Python. Blocks of the IETF's own protocols are refused whole, parts of them global.
_NOT_GLOBAL_IPV4 = tuple(
    IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; holds a cloud's metadata service at 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a public address by registry, Azure's platform service in fact
        "169.254.0.0/16",  # link-local; holds the metadata services at 169.254.169.254
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocols
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Global unicast, and NAT64 by its well-known prefix; whatever is outside is not global.
_GLOBAL_IPV6 = (IPv6Network("2000::/3"), IPv6Network("64:ff9b::/96"))
_NOT_GLOBAL_IPV6 = tuple(
    IPv6Network(block)
    for block in (
        "2001::/23",  # IETF protocols: Teredo, benchmarking, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, deprecated
        "3fff::/20",  # documentation
    )
)

_IPV4_IN_LOW_BITS = tuple(
    IPv6Network(block)
    for block in (
        "::/96",  # IPv4-compatible, RFC 4291
        "::ffff:0:0/96",  # IPv4-mapped, RFC 4291
        "::ffff:0:0:0/96",  # IPv4-translated, RFC 2765
        "64:ff9b::/96",  # NAT64, RFC 6052
        "64:ff9b:1::/48",  # NAT64 for local use, RFC 8215, in its usual /96 layout
    )
)
_6TO4 = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")

_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]*:[0-9a-f:.]*")


class Endpoint(NamedTuple):
    """A checked address with its port, as the socket library names it."""

    family: socket.AddressFamily
    sockaddr: tuple[Any, ...]


def is_global(address: Address) -> bool:
    """Whether the address itself is one of the public internet; IPv4 addresses embedded in it are not looked at."""
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _NOT_GLOBAL_IPV4)
    return any(address in block for block in _GLOBAL_IPV6) and not any(address in block for block in _NOT_GLOBAL_IPV6)


def embedded_ipv4(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that a translator or tunnel would take from the address.

    The forms are IPv4-mapped, -compatible and -translated, NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo
    (RFC 4380: server and client) and ISATAP (RFC 5214).
    """
    bits = int(address)
    found = []
    is_isatap = bits >> 32 & 0xFDFF_FFFF == 0x0000_5EFE
    # `::` and `::1` are addresses of their own, not IPv4 ones.
    if is_isatap or (bits > 1 and any(address in block for block in _IPV4_IN_LOW_BITS)):
        found.append(bits)
    if address in _6TO4:
        found.append(bits >> 80)
    if address in _TEREDO:
        found += [bits >> 64, ~bits]
    return tuple(IPv4Address(inner & 0xFFFF_FFFF) for inner in found)


def is_allowed(address: Address, allowed_networks: Iterable[Network] = ()) -> bool:
    """Whether the address may be connected to: it is global, or the operator allows its network.

    The same must hold for each IPv4 address embedded in it, so that no IPv6 spelling allows more than IPv4 would. An
    IPv4-mapped address is judged as the IPv4 address it is.
    """
    networks = tuple(allowed_networks)
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_allowed(address.ipv4_mapped, networks)
        if not all(is_allowed(inner, networks) for inner in embedded_ipv4(address)):
            return False
    return is_global(address) or any(address in network for network in networks)


def canonical_host(host: str) -> str:
    """The host in lower-case ASCII (IDNA) without a trailing dot; numeric spellings stay as they are.

    Raises:
        UrlNotAllowed: No host can be called so; a zone id (`fe80::1%eth0`) and percent-encoding are refused, too.
    """
    try:
        name = host.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name):
        raise UrlNotAllowed("the URL's host is malformed")
    return name


def resolve(host: str, port: int, allowed_networks: Iterable[Network] = ()) -> tuple[Endpoint, ...]:
    """Resolve a host, and check every address it resolves to.

    Raises:
        UrlNotAllowed: The host is malformed, or one of its addresses is not allowed.
        socket.gaierror: The host cannot be resolved.
    """
    networks = tuple(allowed_networks)
    name = canonical_host(host)
    endpoints = []
    for family, _, _, _, sockaddr in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM):
        address = ip_address(str(sockaddr[0]))
        if not is_allowed(address, networks):
            subject = str(address) if str(address) == name else f"{name} resolves to {address}, which"
            raise UrlNotAllowed(f"{subject} is not a public address")
        endpoints.append(Endpoint(family, sockaddr))
    return tuple(endpoints)


def connect(
    host: str, port: int, *, allowed_networks: Iterable[Network], tick: Callable[[], None], tls: bool
) -> socket.socket:
    """Connect to a host at an address that was checked.

    No proxy is used. With `tls`, the certificate must be valid for the host's name, by the system's certificate
    authorities (or those of OpenSSL's SSL_CERT_FILE) or certifi's.

    Args:
        host: Name or literal address, as a URL has it.
        port: TCP port.
        allowed_networks: May be connected to though they are not global.
        tick: Called at least every `SLICE_SECONDS` while waiting; what it raises ends the attempt.
        tls: Whether to speak TLS.

    Returns:
        The connected socket; its timeout is `SLICE_SECONDS`.

    Raises:
        UrlNotAllowed: The host is malformed, or one of its addresses is not allowed.
        socket.gaierror: The host cannot be resolved.
        ssl.SSLCertVerificationError: The certificate is not valid for the host.
        OSError: No address could be connected to; the error is that of the last one.
    """
    endpoints = _resolve_in_slices(host, port, tuple(allowed_networks), tick)
    for endpoint in endpoints:
        try:
            sock = _open(endpoint, tick)
            break
        except OSError:
            if endpoint is endpoints[-1]:
                raise
    return _start_tls(sock, canonical_host(host), tick) if tls else sock


def _resolve_in_slices(
    host: str, port: int, allowed_networks: tuple[Network, ...], tick: Callable[[], None]
) -> tuple[Endpoint, ...]:
    """`resolve`, in a thread of its own: the system's resolver knows no timeout."""
    answer: concurrent.futures.Future[tuple[Endpoint, ...]] = concurrent.futures.Future()

    def run() -> None:
        try:
            answer.set_result(resolve(host, port, allowed_networks))
        except Exception as error:  # noqa: BLE001 - raised again where the answer is awaited
            answer.set_exception(error)

    threading.Thread(target=run, name="resolve", daemon=True).start()
    while not answer.done():
        tick()
        concurrent.futures.wait([answer], timeout=SLICE_SECONDS)
    return answer.result()


def _open(endpoint: Endpoint, tick: Callable[[], None]) -> socket.socket:
    sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        error = sock.connect_ex(endpoint.sockaddr)
        if error == errno.EINPROGRESS:
            _await_writable(sock, tick)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        sock.settimeout(SLICE_SECONDS)
    except BaseException:
        sock.close()
        raise
    return sock


def _await_writable(sock: socket.socket, tick: Callable[[], None]) -> None:
    deadline = time.monotonic() + CONNECT_TIMEOUT_SECONDS
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    while not poll.poll(SLICE_SECONDS * 1000):
        tick()
        if time.monotonic() > deadline:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


def _start_tls(sock: socket.socket, server_name: str, tick: Callable[[], None]) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    # A slim image may have no certificate authorities of its own.
    context.load_verify_locations(certifi.where())
    with sock:  # wrapping detaches it: what is closed here is what could not be wrapped
        wrapped = context.wrap_socket(
            sock,
            server_hostname=server_name,
            do_handshake_on_connect=False,
            # A connection cut without TLS's own goodbye may be a recording cut short: an error, not an end.
            suppress_ragged_eofs=False,
        )
    try:
        while True:
            tick()
            try:
                wrapped.do_handshake()
            except TimeoutError:
                continue
            return wrapped
    except BaseException:
        wrapped.close()
        raise
