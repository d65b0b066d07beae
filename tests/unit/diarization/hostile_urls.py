"""URLs that want what they must not get, each with the error it gives. None needs a name server, none is connected to.

`resolves` says which address it is about, so that a row cannot pass for a reason it was not written for; None where the
URL is refused before any address is looked at.
"""

from __future__ import annotations

from typing import NamedTuple

from diarization.errors import DiarizationError, UrlNotAllowed


class HostileUrl(NamedTuple):
    url: str
    resolves: str | None
    error: type[DiarizationError] = UrlNotAllowed


_METADATA = "169.254.169.254"

HOSTILE_URLS = (
    # Other schemes, and none.
    HostileUrl("", None),
    HostileUrl("recording.wav", None),
    HostileUrl("//192.0.2.1/a.wav", None),
    HostileUrl("ftp://127.0.0.1/a.wav", None),
    HostileUrl("gopher://127.0.0.1:6379/_FLUSHALL", None),
    HostileUrl("data:audio/wav;base64,UklGRg==", None),
    HostileUrl("javascript:alert(1)", None),
    HostileUrl("concat:/etc/passwd|/etc/group", None),
    HostileUrl("unix:///run/docker.sock", None),
    # Malformed.
    HostileUrl("http://", None),
    HostileUrl("http:///a.wav", None),
    HostileUrl("http://:80/a.wav", None),
    HostileUrl("http://user@/a.wav", None),
    HostileUrl("http://127.0.0.1:0/a.wav", None),
    HostileUrl("http://127.0.0.1:65536/a.wav", None),
    HostileUrl("http://127.0.0.1:-80/a.wav", None),
    HostileUrl("http://127.0.0.1:80x/a.wav", None),
    HostileUrl("http://[::1/a.wav", None),
    HostileUrl("http://[::1]x/a.wav", None),
    HostileUrl("http://a..b/a.wav", None),
    HostileUrl("http://./a.wav", None),
    HostileUrl("http://.a/a.wav", None),
    HostileUrl(f"http://{'a' * 64}.example/a.wav", None),
    HostileUrl(f"http://127.0.0.1/{'a' * 9000}", None),
    HostileUrl("http://127.0.0.1 .example/a.wav", None),
    HostileUrl("http://127.0.0.1\t/a.wav", None),
    HostileUrl("http://127.0.0.1/a.wav\r\nHost: other", None),
    HostileUrl("http://127.0.0.1\x00.example/a.wav", None),
    HostileUrl("http://example.com\\@127.0.0.1/a.wav", None),
    HostileUrl("http://%31%32%37.0.0.1/a.wav", None),
    HostileUrl("http://127.0.0.1%2f.example/a.wav", None),
    HostileUrl("http://127.0.0.1*/a.wav", None),
    HostileUrl("http://127.0.0.1,192.0.2.1/a.wav", None),
    HostileUrl("http://[fe80::1%25lo]/a.wav", None),
    HostileUrl("http://[fe80::1%lo]/a.wav", None),
    HostileUrl("http://127.0.0.1\N{FULLWIDTH COLON}80/a.wav", None),
    # Loopback, under all its names.
    HostileUrl("http://localhost/a.wav", "127.0.0.1"),
    HostileUrl("http://LOCALHOST./a.wav", "127.0.0.1"),
    HostileUrl("http://127.0.0.1/a.wav", "127.0.0.1"),
    HostileUrl("http://127.0.0.1./a.wav", "127.0.0.1"),
    HostileUrl("http://127.1/a.wav", "127.0.0.1"),
    HostileUrl("http://127.127.127.127/a.wav", "127.127.127.127"),
    HostileUrl("http://2130706433/a.wav", "127.0.0.1"),
    HostileUrl("http://0x7f000001/a.wav", "127.0.0.1"),
    HostileUrl("http://0x7f.1/a.wav", "127.0.0.1"),
    HostileUrl("http://0X7F.0.0.1/a.wav", "127.0.0.1"),
    HostileUrl("http://0177.0.0.1/a.wav", "127.0.0.1"),
    HostileUrl("http://017700000001/a.wav", "127.0.0.1"),
    HostileUrl("http://①②⑦.⓪.⓪.①/a.wav", "127.0.0.1"),
    HostileUrl("http://１２７．０．０．１/a.wav", "127.0.0.1"),
    HostileUrl("http://127。0。0。1/a.wav", "127.0.0.1"),
    HostileUrl("http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/a.wav", "127.0.0.1"),
    HostileUrl("http://example.com@127.0.0.1/a.wav", "127.0.0.1"),
    HostileUrl("http://example.com:80@127.0.0.1:6379/a.wav", "127.0.0.1"),
    HostileUrl("http://127.0.0.1#@example.com/a.wav", "127.0.0.1"),
    HostileUrl("http://127.0.0.1?@example.com/a.wav", "127.0.0.1"),
    HostileUrl("https://127.0.0.1/a.wav", "127.0.0.1"),
    HostileUrl("HTTP://[::1]/a.wav", "::1"),
    HostileUrl("http://[0:0:0:0:0:0:0:1]/a.wav", "::1"),
    HostileUrl("http://[::]/a.wav", "::"),
    HostileUrl("http://0/a.wav", "0.0.0.0"),
    HostileUrl("http://0.0.0.0:6379/a.wav", "0.0.0.0"),
    # The metadata services of clouds.
    HostileUrl(f"http://{_METADATA}/latest/meta-data/", _METADATA),
    HostileUrl("http://2852039166/latest/meta-data/", _METADATA),
    HostileUrl("http://0xa9fea9fe/latest/meta-data/", _METADATA),
    HostileUrl("http://0251.0376.0251.0376/latest/meta-data/", _METADATA),
    HostileUrl("http://169.254.43518/latest/meta-data/", _METADATA),
    HostileUrl("http://[::ffff:169.254.169.254]/latest/meta-data/", f"::ffff:{_METADATA}"),
    HostileUrl("http://[fd00:ec2::254]/latest/meta-data/", "fd00:ec2::254"),
    HostileUrl("http://[fd20:ce::254]/computeMetadata/v1/", "fd20:ce::254"),
    HostileUrl("http://100.100.100.200/latest/meta-data/", "100.100.100.200"),
    HostileUrl("http://192.0.0.192/opc/v1/", "192.0.0.192"),
    HostileUrl("http://168.63.129.16/machine/?comp=goalstate", "168.63.129.16"),
    # Networks that are not public.
    HostileUrl("http://10.0.0.1/a.wav", "10.0.0.1"),
    HostileUrl("http://172.16.0.1/a.wav", "172.16.0.1"),
    HostileUrl("http://172.31.255.255/a.wav", "172.31.255.255"),
    HostileUrl("http://192.168.1.1/a.wav", "192.168.1.1"),
    HostileUrl("http://3232235777/a.wav", "192.168.1.1"),
    HostileUrl("http://100.64.0.1/a.wav", "100.64.0.1"),
    HostileUrl("http://198.18.0.1/a.wav", "198.18.0.1"),
    HostileUrl("http://203.0.113.9/a.wav", "203.0.113.9"),
    HostileUrl("http://224.0.0.1/a.wav", "224.0.0.1"),
    HostileUrl("http://255.255.255.255/a.wav", "255.255.255.255"),
    HostileUrl("http://[fe80::1]/a.wav", "fe80::1"),
    HostileUrl("http://[fc00::1]/a.wav", "fc00::1"),
    HostileUrl("http://[fec0::1]/a.wav", "fec0::1"),
    HostileUrl("http://[ff02::1]/a.wav", "ff02::1"),
    HostileUrl("http://[100::1]/a.wav", "100::1"),
    HostileUrl("http://[2001:db8::1]/a.wav", "2001:db8::1"),
    HostileUrl("http://[3fff::1]/a.wav", "3fff::1"),
    # IPv4 inside IPv6.
    HostileUrl("http://[::ffff:127.0.0.1]/a.wav", "::ffff:127.0.0.1"),
    HostileUrl("http://[::ffff:7f00:1]/a.wav", "::ffff:127.0.0.1"),
    HostileUrl("http://[::127.0.0.1]/a.wav", "::127.0.0.1"),
    HostileUrl("http://[::ffff:0:127.0.0.1]/a.wav", "::ffff:0:127.0.0.1"),
    HostileUrl("http://[64:ff9b::127.0.0.1]/a.wav", "64:ff9b::127.0.0.1"),
    HostileUrl("http://[64:ff9b::a9fe:a9fe]/a.wav", "64:ff9b::169.254.169.254"),
    HostileUrl("http://[64:ff9b:1::10.0.0.1]/a.wav", "64:ff9b:1::10.0.0.1"),
    HostileUrl("http://[2002:7f00:1::]/a.wav", "2002:7f00:1::"),
    HostileUrl("http://[2001:0:7f00:1::]/a.wav", "2001:0:7f00:1::"),
    HostileUrl("http://[2606:4700::5efe:127.0.0.1]/a.wav", "2606:4700::5efe:127.0.0.1"),
    # Files, where none may be read.
    HostileUrl("file:///etc/passwd", None),
    HostileUrl("file://localhost/etc/passwd", None),
    HostileUrl("FILE:///etc/passwd", None),
    HostileUrl("file://fileserver/share/a.wav", None),
    HostileUrl("file:///a.wav?b", None),
    HostileUrl("file:a.wav", None),
    HostileUrl("file://", None),
)
