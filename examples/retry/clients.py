"""Three clients of one HTTP server, in the way that applications are written; each makes new connections all the time.

    python examples/retry/clients.py none|fixed-port|hitless HOST PORT --seconds 10 --rate 20

none        one attempt, two seconds to connect
fixed-port  tries again every half a second for ten seconds, always from the same source port, as a client does that
            must pass a firewall by its port
hitless     hitless.retry

At its end it prints a line of JSON: requests, failed, and the slowest in seconds. bench/retries.py runs all three in
the lab, beside an agent that is restarted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import struct
import time

from hitless import retry

_REQUEST = b"GET / HTTP/1.0\r\n\r\n"
_ABORT = struct.pack("ii", 1, 0)  # close with a reset: a port in TIME_WAIT could not be used again


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        writer.write(_REQUEST)
        async with asyncio.timeout(5):
            if not (await reader.read(64)).startswith(b"HTTP"):
                raise OSError("no answer")
    finally:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        writer.close()


async def none(host: str, port: int, _: int) -> None:
    async with asyncio.timeout(2):
        streams = await asyncio.open_connection(host, port)
    await _answer(*streams)


async def fixed_port(host: str, port: int, number: int) -> None:
    end = time.monotonic() + 10
    while True:
        try:
            async with asyncio.timeout(2):
                streams = await asyncio.open_connection(host, port, local_addr=("0.0.0.0", 20000 + number % 10000))
            return await _answer(*streams)
        except OSError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.5)


async def ours(host: str, port: int, _: int) -> None:
    await _answer(*await retry.open_connection(host, port, policy=_POLICY))


_POLICY = retry.Policy(hooks=())
_CLIENTS = {"none": none, "fixed-port": fixed_port, "hitless": ours}


async def run(kind: str, host: str, port: int, seconds: float, rate: float) -> dict[str, object]:
    """Requests at their times, however long each takes."""
    failed, slowest, number = 0, 0.0, 0

    async def one(number: int) -> None:
        nonlocal failed, slowest
        begin = time.monotonic()
        try:
            await _CLIENTS[kind](host, port, number)
        except OSError:  # TimeoutError is one
            failed += 1
        slowest = max(slowest, time.monotonic() - begin)

    begin = time.monotonic()
    async with asyncio.TaskGroup() as group:
        while (due := begin + number / rate) < begin + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(one(number))
            number += 1
    return {"client": kind, "requests": number, "failed": failed, "slowest_s": round(slowest, 2)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A client of an HTTP server, in one of three ways.")
    parser.add_argument("kind", choices=sorted(_CLIENTS))
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=20.0, help="new connections a second")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(run(options.kind, options.host, options.port, options.seconds, options.rate))))
