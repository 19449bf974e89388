"""Throughput and latency between pods of two nodes, in several labs in turn.

Promise: a lab's measurement is two ordinary processes, one in each pod; labs are measured one after another, in an
order that changes from turn to turn, so that whatever else the machine does falls on all alike.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from hitless import lab
from hitless.kernel import processes

__all__ = ["interleaved"]

_PORT = 5001
_SECONDS = 0.4
_QUESTIONS = 2000

_SERVER = """
import socket, sys
address, port = sys.argv[1], int(sys.argv[2])
kind = socket.AF_INET6 if ":" in address else socket.AF_INET
stream, packets = socket.socket(kind, socket.SOCK_STREAM), socket.socket(kind, socket.SOCK_DGRAM)
for one in (stream, packets):
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((address, port))
stream.listen(1)
print("ready", flush=True)
taken, _ = stream.accept()
room = memoryview(bytearray(1 << 20))
total = 0
while count := taken.recv_into(room):
    total += count
taken.close()
stream.close()
while (question := packets.recvfrom_into(room)) and question[0] > 1:
    packets.sendto(room[:question[0]], question[1])
print(total, flush=True)
"""

_CLIENT = """
import json, socket, sys, time
address, port, seconds, questions = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
kind = socket.AF_INET6 if ":" in address else socket.AF_INET
stream = socket.create_connection((address, port), timeout=10)
stream.settimeout(None)
data = memoryview(bytes(1 << 18))
sent, begin = 0, time.perf_counter()
while time.perf_counter() - begin < seconds:
    sent += stream.send(data)
spent = time.perf_counter() - begin
stream.close()
packets = socket.socket(kind, socket.SOCK_DGRAM)
packets.connect((address, port))
packets.settimeout(5)
times = []
for _ in range(questions):
    before = time.perf_counter()
    packets.send(b"x" * 64)
    packets.recv(100)
    times.append(time.perf_counter() - before)
packets.send(b"x")
times.sort()
print(json.dumps({"throughput": 8e-9 * sent / spent, "latency": 1e6 * times[len(times) // 2]}))
"""


def _once(built: lab.Lab) -> dict[str, float]:
    """From the first node's pod to the second's."""
    asker, answerer = (node.pods[0] for node in built.nodes[:2])
    place = [str(answerer.address), str(_PORT)]
    server = processes.start(
        [sys.executable, "-c", _SERVER, *place], namespace=answerer.namespace, stdout=processes.PIPE
    )
    try:
        assert server.stdout is not None
        server.stdout.readline()
        line = [sys.executable, "-c", _CLIENT, *place, str(_SECONDS), str(_QUESTIONS)]
        told: dict[str, float] = json.loads(processes.run(line, namespace=asker.namespace).stdout)
        server.wait(timeout=10)
        return told
    finally:
        server.kill()
        server.wait()


def interleaved(labs: Mapping[str, lab.Lab], pairs: int) -> dict[str, list[dict[str, float]]]:
    """Each lab ``pairs`` times, first the one and then the other, then the other way round."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in labs}
    for turn in range(pairs):
        for name in list(labs) if turn % 2 else list(labs)[::-1]:
            found[name].append(_once(labs[name]))
    return found
