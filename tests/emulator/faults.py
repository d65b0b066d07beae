"""What is to go wrong, as data: a list of `Fault`s, each of which strikes the next requests or jobs that it fits.

On the wire, on both sides (`at` is an operation: `run`, `runsync`, `status`, `cancel`, `health`, `settings`;
`job-take`, `job-done`, `job-stream`, `job-stop`, `ping`):

    status          that HTTP status, nothing is done; with `retry_after` where given
    html            the same with a page of HTML, as a proxy gives
    drip            the right answer, byte by byte, `seconds` each
    truncate        the right answer, half of it, then the connection ends
    reset-before    the connection is reset, nothing is done
    reset-after     what was asked for is done, then the connection is reset
    hold-before     nothing happens until `Faults.release`, then all of it does
    hold-after      what was asked for is done, and answered after `Faults.release`

What becomes of a job that has been accepted (`at` is `job`):

    lost            nobody knows it any more: 404
    stuck-queued    no worker gets it
    stuck-running   a worker runs it, its result never arrives
    timed-out       it expires before a worker takes it
    twice           workers get it twice
    empty           it is COMPLETED without an output (runpod-python issue 309)
    garbled         it is COMPLETED with an output that is no diarization
    raised          it is FAILED as by a handler that raises: `error` is JSON with a traceback
    odd             its status is one that nobody has documented, for good
    overtaken       a progress post arrives after the result: IN_PROGRESS for good (runpod-python issue 250)
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Literal

from aiohttp import web

WireFault = Literal["status", "html", "drip", "truncate", "reset-before", "reset-after", "hold-before", "hold-after"]
JobFault = Literal[
    "lost", "stuck-queued", "stuck-running", "timed-out", "twice", "empty", "garbled", "raised", "odd", "overtaken"
]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PAGE = "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body>bad gateway</body></html>"


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong; the module says which there are.

    Attributes:
        at: An operation, or `job`.
        what: What happens.
        times: To so many of those it fits; None: to all.
        match: It fits those alone whose path or body (of a job: whose recording's URL) holds this text.
        status: For `status` and `html`.
        retry_after: The header of that name, seconds or a date.
        seconds: For `drip`.
    """

    at: str
    what: WireFault | JobFault
    times: int | None = 1
    match: str = ""
    status: int = 502
    retry_after: str | None = None
    seconds: float = 0.1


class Faults:
    """The faults that are still to come.

    Attributes:
        struck: Those that have come, in order.
        requests: How often each operation was asked for, whatever became of it.
    """

    def __init__(self) -> None:
        self._to_come: list[Fault] = []
        self._released = asyncio.Event()
        self.struck: list[Fault] = []
        self.requests: Counter[str] = Counter()

    def script(self, *faults: Fault) -> None:
        """More faults, after those that are still to come."""
        self._to_come += faults

    def clear(self) -> None:
        """Nothing more goes wrong; what is held back goes on."""
        self._to_come.clear()
        self.release()

    def release(self) -> None:
        """What is held back by now goes on."""
        self._released.set()
        self._released = asyncio.Event()

    def strike(self, at: str, text: str) -> Fault | None:
        """The fault for this request or job, if there is one."""
        for index, fault in enumerate(self._to_come):
            if fault.at == at and fault.match in text:
                if fault.times is not None:
                    left = fault.times - 1
                    self._to_come[index : index + 1] = [replace(fault, times=left)] if left else []
                self.struck.append(fault)
                return fault
        return None

    @web.middleware
    async def on_the_wire(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Outermost middleware of both APIs: counts the request, and lets go wrong what is to."""
        operation = request.match_info.route.name or "unknown"
        self.requests[operation] += 1
        fault = self.strike(operation, request.path + await request.text()) if self._to_come else None
        if fault is None:
            return await handler(request)
        match fault.what:
            case "status" | "html":
                return _refusal(fault)
            case "reset-before":
                return _reset(request)
            case "hold-before":
                await self._released.wait()
                return await handler(request)
        answer = await handler(request)
        match fault.what:
            case "reset-after":
                return _reset(request)
            case "hold-after":
                await self._released.wait()
            case "drip":
                return await _drip(request, answer, fault.seconds)
            case "truncate":
                return await _truncate(request, answer)
        return answer


def _refusal(fault: Fault) -> web.Response:
    headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
    if fault.what == "html":
        return web.Response(status=fault.status, text=PAGE, content_type="text/html", headers=headers)
    return web.json_response({"error": f"scripted {fault.status}"}, status=fault.status, headers=headers)


def _reset(request: web.Request) -> web.Response:
    """End the connection by RST."""
    if request.transport is not None:
        at_once = struct.pack("ii", 1, 0)
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        request.transport.abort()
    return web.Response()  # goes nowhere


def _body(answer: web.StreamResponse) -> bytes:
    body = answer.body if isinstance(answer, web.Response) else None
    return body if isinstance(body, bytes) else b""


async def _begin(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    begun = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
    begun.content_length = len(_body(answer))
    await begun.prepare(request)
    return begun


async def _drip(request: web.Request, answer: web.StreamResponse, seconds: float) -> web.StreamResponse:
    slow = await _begin(request, answer)
    for byte in _body(answer):
        if request.transport is None or request.transport.is_closing():
            break
        await slow.write(bytes([byte]))
        await asyncio.sleep(seconds)  # the slowness is what is tested; nothing waits for it
    return slow


async def _truncate(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    half, body = await _begin(request, answer), _body(answer)
    await half.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return half
