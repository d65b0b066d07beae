"""Whether Redis can be reached, and if not, which of the many reasons it is."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from redis import Redis
from redis import exceptions as failures
from redis.exceptions import RedisError

from tasks.checks.finding import Check, Fault, Finding, Subject, fine
from tasks.server import connect
from tasks.settings import Settings

PROBE_SECONDS = 2.0

NO_HOST = Fault("redis_no_host", "the host's name is unknown", "check the host in REDIS_URL, and this host's DNS")
REFUSED = Fault(
    "redis_refused",
    "nobody listens at the port",
    "start Redis, or correct host and port in REDIS_URL; in a container, localhost is the container itself",
)
UNREACHABLE = Fault(
    "redis_unreachable", "no way to the host", "check the network, and the firewall between this host and Redis"
)
SILENT = Fault(
    "redis_silent",
    "no answer in time",
    "check that Redis is not hung or swapping, and that a firewall lets its port through",
)
NO_TLS = Fault("redis_no_tls", "the server speaks no TLS", "begin REDIS_URL with redis://, or turn TLS on in Redis")
TLS_ONLY = Fault("redis_tls_only", "the server speaks TLS alone", "begin REDIS_URL with rediss:// (two s)")
UNTRUSTED = Fault(
    "redis_untrusted",
    "its certificate is not trusted",
    "append ?ssl_ca_certs=/path/ca.pem to REDIS_URL, with the CA that signed it; its names must hold REDIS_URL's host",
)
NO_CA = Fault(
    "redis_no_ca",
    "a file of certificates that REDIS_URL names is not there",
    "correct the path in ?ssl_ca_certs=, and mount the file where this is a container",
)
TLS_BROKEN = Fault("redis_tls_broken", "TLS fails in another way", "compare TLS versions and client certificates")
BAD_OPTION = Fault(
    "redis_options",
    "an option behind the ? of REDIS_URL is unknown or makes no sense",
    "correct or remove it; the client's options are at https://redis.readthedocs.io/en/stable/connections.html",
)
DENIED = Fault(
    "redis_password",
    "the password or user is refused, or missing",
    "correct the password in REDIS_URL (redis://:PASSWORD@host:6379/0); percent-encode what is special in URLs",
)
FORBIDDEN = Fault(
    "redis_acl",
    "the user may not use a command or key",
    "give the user all commands but the dangerous ones, and all keys: ACL SETUSER … +@all -@dangerous +info ~* &*",
)
LOADING = Fault(
    "redis_loading", "it still reads its data from disk", "wait until Redis has loaded its data; nothing else is wrong"
)
NO_DATABASE = Fault("redis_database", "the database's number does not exist", "end REDIS_URL with a number it has: /0")
CROWDED = Fault(
    "redis_maxclients",
    "it takes no more connections",
    "raise maxclients in Redis (and its ulimit -n), or find the leak",
)
CANNOT_SAVE = Fault(
    "redis_cannot_save",
    "its last write to disk failed, and with it all that would change a key",
    "free space on Redis's disk and check its permissions; Redis's log has the error",
)
NO_REDIS = Fault("redis_other", "something else answers there", "check host and port in REDIS_URL")
ODD = Fault("redis_error", "it answers with an error of another kind", "look at the message, and at Redis's log")

NO_CONNECTION = frozenset({NO_HOST, REFUSED, UNREACHABLE, SILENT})
"""With these there is nothing to connect to."""


def connection(subject: Subject) -> Finding:
    """Name, port, TLS, password: one PING through all of them."""
    where = shown(subject.settings)
    try:
        with connect(subject.settings, patient=False) as client:
            client.ping()
            facts: Any = client.info("server")
    except RedisError as error:
        return _diagnosis(error, subject.settings, where)
    except (ValueError, TypeError) as error:
        return BAD_OPTION.found(f"{where}: {error}")
    kind = "Valkey" if "valkey_version" in facts else "Redis"
    number = facts.get("valkey_version") or facts.get("redis_version", "of an unknown version")
    return fine(f"{where} is {kind} {number}")


def shown(settings: Settings) -> str:
    """REDIS_URL without user, password and options."""
    parts = urlsplit(settings.redis_url.get_secret_value())
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or "localhost"
    return f"{parts.scheme}://{host}:{parts.port or 6379}{parts.path}"


def _diagnosis(error: RedisError, settings: Settings, where: str) -> Finding:
    causes = list(_chain(error))
    for cause in causes:
        match cause:
            case socket.gaierror():
                return NO_HOST.found(f"{where}: {cause.strerror}")
            case ConnectionRefusedError():
                return REFUSED.found(f"{where}: connection refused")
            case FileNotFoundError():
                return NO_CA.found(f"{where}: no such file")
            case ssl.SSLCertVerificationError():
                return UNTRUSTED.found(f"{where}: {cause.verify_message}")
            case ssl.SSLError():
                fault = NO_TLS if _speaks_plain(settings) else TLS_BROKEN
                return fault.found(f"{where}: {cause.reason or cause}")
            case failures.AuthenticationError():
                given = urlsplit(settings.redis_url.get_secret_value()).password
                says = "the password or user is refused" if given else "it wants a password, and REDIS_URL has none"
                return DENIED.found(f"{where}: {says}")
            case failures.NoPermissionError():
                return FORBIDDEN.found(f"{where}: {cause}")
            case failures.BusyLoadingError():
                return LOADING.found(f"{where}: {cause}")
            case failures.InvalidResponse():
                return NO_REDIS.found(f"{where}: the answer is none of Redis")
    return _by_probe(error, causes, settings, where)


def _by_probe(error: RedisError, causes: list[BaseException], settings: Settings, where: str) -> Finding:
    """What the error alone does not tell: a second look at the port, without the password."""
    text = str(error)
    said = {"DB index": NO_DATABASE, "MISCONF": CANNOT_SAVE, "max number of clients": CROWDED}
    for words, fault in said.items():
        if words in text:
            return fault.found(f"{where}: {text}")
    if isinstance(error, failures.ResponseError):
        return ODD.found(f"{where}: {text}")
    is_tls = where.startswith("rediss:")
    if is_tls and _speaks_plain(settings):
        return NO_TLS.found(f"{where}: the TLS handshake is not answered, a plain PING is")
    if not is_tls and _speaks_tls(settings):
        return TLS_ONLY.found(f"{where}: a plain PING is not answered, a TLS handshake is")
    if any(isinstance(cause, TimeoutError | failures.TimeoutError) for cause in causes):
        return SILENT.found(f"{where}: no answer within {PROBE_SECONDS:.0f} s")
    if any(isinstance(cause, OSError) and not isinstance(cause, ConnectionError) for cause in causes):
        return UNREACHABLE.found(f"{where}: {text}")
    return (NO_REDIS if "closed" in text else ODD).found(f"{where}: {text}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _address(settings: Settings) -> tuple[str, int]:
    parts = urlsplit(settings.redis_url.get_secret_value())
    return parts.hostname or "localhost", parts.port or 6379


def _speaks_plain(settings: Settings) -> bool:
    """Whether an inline PING is answered as Redis does: by itself, or by asking for the password."""
    try:
        with socket.create_connection(_address(settings), PROBE_SECONDS) as sock:
            sock.settimeout(PROBE_SECONDS)
            sock.sendall(b"PING\r\n")
            return sock.recv(64).startswith((b"+PONG", b"-NOAUTH", b"-LOADING"))
    except OSError:
        return False


def _speaks_tls(settings: Settings) -> bool:
    """Whether a TLS handshake comes to an end; nothing is sent through it, so no certificate needs to be trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection(_address(settings), PROBE_SECONDS) as sock, context.wrap_socket(sock):
            return True
    except ssl.SSLError as error:
        # A server that wants a certificate of ours has spoken TLS as well.
        return "ALERT" in str(error.reason)
    except OSError:
        return False


def ask(subject: Subject) -> Redis:
    """A client for one check, which closes it."""
    return connect(subject.settings, patient=False)


CHECKS = (
    Check(
        "redis",
        "connection",
        "name, port, TLS and password of REDIS_URL",
        connection,
        (
            *(NO_HOST, REFUSED, UNREACHABLE, SILENT, NO_TLS, TLS_ONLY, UNTRUSTED, NO_CA, TLS_BROKEN, BAD_OPTION),
            *(DENIED, FORBIDDEN, LOADING, NO_DATABASE, CROWDED, CANNOT_SAVE, NO_REDIS, ODD),
        ),
        timeout_seconds=15,
    ),
)
