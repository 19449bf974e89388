"""Strangers at the doors: how quickly /healthz answers, what a far end can be made to do, what odd bytes do to readers.

    sudo .venv/bin/python bench/hostile.py [--seconds 5] [--inputs 1000000] [--storm-seconds 300]
        [--only servers|inputs|doors|memory|storm]

In a lab of its own. ``servers``: a guard's /healthz is asked ten times a second while clients of every bad kind are at
it; two far ends get a forged question of each other; one is flooded with what is no question. ``inputs``: so many odd
inputs for each reader of the far end, the prober and the daemons' server. ``doors``: the same for the readers of files,
documents, event lines, netlink messages and xtables' tables. ``memory``: what strangers' sets, rules and legacy tables
cost guard, watch and agent, and how soon a gap is noticed beside them. ``storm``: changes without end while there are
gaps, the guard is killed and stopped, and its disk is full. Prints a table; ends with 1 when a bound was missed.
"""

from __future__ import annotations

import argparse
import http.client
import os
import platform
import random
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.parts import hostile_doors, hostile_memory, hostile_storm
from bench.parts.guard_bounds import failures

from hitless import cleaning, lab
from hitless.daemon.server import Page, Server
from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace, inside
from hitless.kernel.realtime_limit import SHARE
from hitless.model import events as e
from hitless.model.families import Family
from hitless.probe import http as probe_http
from hitless.probe import wire

HITLESS = [sys.executable, "-P", "-m", "hitless"]
ANSWER_S = 1.0  # a kubelet's default time for a probe
INPUT_S = 0.5  # one input; a machine that stands still for so long is not what is looked for
MEMORY = 64 << 20

_CONNECT = "import socket, time, resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (8000, 8000))\nheld = []\n"
CROWDS = {
    "nobody": "import time\ntime.sleep(600)",
    "a byte every 10 ms": _CONNECT + "while True:\n"
    "  s = socket.create_connection(TO)\n"
    "  try:\n"
    "    while True: s.send(b'G'); time.sleep(.01)\n"
    "  except OSError: pass",
    "2,000 connections, kept": _CONNECT + "while True:\n"
    "  try: held.append(socket.create_connection(TO, 1))\n"
    "  except OSError: pass\n"
    "  if len(held) > 2000: held.pop(0).close()",
    "connections as fast as they go": _CONNECT + "while True:\n"
    "  try: socket.create_connection(TO, 1).close()\n"
    "  except OSError: pass",
    "heads without an end": _CONNECT + "while True:\n"
    "  try: s = socket.create_connection(TO, 1); s.sendall(b'GET / HTTP/1.1\\r\\nX: ' + b'y' * 1000000)\n"
    "  except OSError: pass",
    "a thousand requests in one": _CONNECT + "while True:\n"
    "  try: s = socket.create_connection(TO, 1); s.sendall(b'GET /metrics HTTP/1.1\\r\\n\\r\\n' * 1000); s.recv(9)\n"
    "  except OSError: pass",
}

rows: list[bool] = []


def row(name: str, seen: str, bound: str, ok: bool) -> None:
    print(f"{name:52} {seen:>34}   {bound:32} {'reached' if ok else 'missed'}", flush=True)
    rows.append(ok)


# --- servers -------------------------------------------------------------------------------------------------------


def ask(address: str, port: int) -> float:
    """Seconds until /healthz said ok; infinity when it did not."""
    begun = time.monotonic()
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        ok = connection.getresponse().read() == b"ok\n"
    except (OSError, http.client.HTTPException):
        return float("inf")
    finally:
        connection.close()
    return time.monotonic() - begun if ok else float("inf")


def daemon(cluster: lab.Lab, seconds: float) -> None:
    """A guard with --metrics, and one crowd after the other from the far end's side."""
    node, far = cluster.nodes[0], cluster.far_end.namespace
    address = str(node.addresses[Family.IPV4])
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        words = ["guard", "--run-dir", folder, "--journal", "", "--metrics", f"{address}:9470"]
        guard = processes.start([*HITLESS, *words], namespace=node.namespace, stderr=subprocess.DEVNULL)
        stack.callback(end, guard)
        until = time.monotonic() + 30
        while inside(node.namespace, lambda: ask(address, 9470)) > 5:
            assert time.monotonic() < until, "the guard does not answer"
            time.sleep(0.1)
        for name, code in CROWDS.items():
            crowd = [
                processes.start([sys.executable, "-c", f"TO = ({address!r}, 9470)\n{code}"], namespace=far)
                for _ in range(1 if name == "nobody" else 2)
            ]
            try:
                time.sleep(1)
                took, until = [], time.monotonic() + seconds
                while time.monotonic() < until:
                    took.append(inside(node.namespace, lambda: ask(address, 9470)))
                    time.sleep(0.1)
            finally:
                for one in crowd:
                    one.kill()
                    one.wait()
            files = len(list(Path(f"/proc/{guard.pid}/fd").iterdir()))
            seen = f"{1000 * max(took):.0f} ms at most of {len(took)}, {files} files"
            row(f"/healthz beside: {name}", seen, f"every answer within {ANSWER_S:.0f} s", max(took) <= ANSWER_S)


def far_end(namespace: Namespace, address: str, stack: ExitStack) -> processes.Process:
    process = processes.start(
        [*HITLESS, "farend", "--json", "--bind", address], namespace=namespace, stdout=subprocess.PIPE
    )
    stack.callback(end, process)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def totals(process: processes.Process) -> dict[str, int]:
    """End a far end, and return what it counted."""
    process.terminate()
    said, _ = process.communicate(timeout=60)
    return next(one.totals for one in map(e.decode, said.splitlines()) if isinstance(one, e.Summary))


def far_ends(cluster: lab.Lab, seconds: float) -> None:
    node, far = cluster.nodes[0], cluster.far_end
    here, there = str(node.addresses[Family.IPV4]), str(far.addresses[Family.IPV4][0])
    with ExitStack() as stack:
        first, second = far_end(node.namespace, here, stack), far_end(far.namespace, there, stack)
        asked = wire.udp_request(b"forged-1", 1)

        def forge() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
                raw.bind((here, 0))
                raw.sendto(struct.pack("!HHHH", 7801, 7801, 8 + len(asked), 0) + asked, (there, 0))

        inside(node.namespace, forge)
        time.sleep(seconds)
        answered = totals(first).get("udp", 0) + totals(second).get("udp", 0)
        row("two far ends after one forged question", f"answers in all: {answered}", "1", answered == 1)
    with ExitStack() as stack:
        victim = far_end(far.namespace, there, stack)
        code = (
            f"import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(({there!r}, 7801))\n"
            "while True:\n  try: s.send(b'x' * 40)\n  except OSError: pass"
        )
        for _ in range(2):
            stack.callback(end, processes.start([sys.executable, "-c", code], namespace=node.namespace))
        time.sleep(2.5)  # it may use a whole core for a second
        urgent, before, begun = 0, used(victim), time.monotonic()
        while time.monotonic() - begun < max(5.0, seconds):
            time.sleep(0.05)
            now = used(victim)
            if os.sched_getscheduler(victim.pid) & ~os.SCHED_RESET_ON_FORK == os.SCHED_RR:
                urgent += now - before
            before = now
        share = urgent / 1e9 / (time.monotonic() - begun)
        count = totals(victim)
        seen = f"{count['udp_ignored']:,} ignored, {share:.0%} of a core"
        bound = f"0 answered, real-time {SHARE:.0%} of a core"
        passed = count.get("udp", 0) == 0 and share < SHARE + 0.1
        row("a far end flooded with packets that it must not answer", seen, bound, passed)


def used(process: processes.Process) -> int:
    """Nanoseconds that its first thread has run."""
    return int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0])


def end(process: processes.Process) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


# --- inputs --------------------------------------------------------------------------------------------------------


def odd(samples: list[bytes], number: int) -> Iterator[bytes]:
    """Mutations of right inputs: cut, doubled, bytes changed, pieces of others put in, and noise."""
    draw = random.Random(1)
    for _ in range(number):
        data = bytearray(draw.choice(samples))
        for _ in range(draw.randrange(4)):
            at = draw.randrange(len(data) + 1)
            match draw.randrange(5):
                case 0:
                    del data[at:]
                case 1:
                    data[at:at] = draw.choice(samples)[: draw.randrange(40)]
                case 2:
                    data[at:at] = draw.randbytes(draw.randrange(20))
                case 3:
                    data[at:at] = bytes([draw.choice(b"\x00\r\n :;0\xb2\xff\x1b")]) * draw.randrange(1, 300)
                case _:
                    data[at : at + 1] = bytes([draw.randrange(256)])
        yield bytes(data)


def readers() -> dict[str, tuple[list[bytes], Callable[[bytes], object]]]:
    server = Server([], lambda path: Page(200, path))
    asked = wire.udp_request(b"0123abcd-1", 1)
    answer = wire.udp_answer("192.0.2.1", 40000, asked) or b""
    gets = [b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"HEAD http://a/x?y HTTP/1.0\n\n", b"POST / HTTP/1.1\r\n\r\n"]
    page = wire.http_answer("2001:db8::1", 40000)
    words = ["a\x1b]0;x\x07b", "\u202eabc", "[red]x[/red]\n", "\x9b31m"]
    texts = [text.encode() for text in words]
    return {
        "far end: datagrams": ([asked, answer, b"hitless me 1\n"], lambda data: wire.udp_answer("::1", 65535, data)),
        "far end: HTTP": (gets, wire.is_http_request),
        "prober: datagrams": ([asked, answer], lambda data: wire.read_udp_answer(data, b"0123abcd-1")),
        "prober: banners": ([wire.banner("::1", 9), wire.banner("192.0.2.1", 65535)], wire.read_banner),
        "prober: HTTP": ([page, *gets], lambda data: (probe_http.read_head(data), wire.http_seen(data))),
        "daemons: HTTP": (gets, server._answer),
        "people: names": (texts, lambda data: cleaning.clean(data.decode("utf-8", "surrogateescape"))),
        "people: all text": (texts, lambda data: cleaning.for_terminal(data.decode("utf-8", "surrogateescape"))),
    }


def inputs(number: int) -> None:
    for name, (samples, read) in readers().items():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        slowest, wrong, begun = 0.0, "", time.monotonic()
        for data in odd(samples, number):
            at = time.thread_time()
            try:
                read(data)
            except Exception as error:  # noqa: BLE001 - that is the question
                wrong = f"{type(error).__name__} of {data[:40]!r}"
                break
            slowest = max(slowest, time.thread_time() - at)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        seen = wrong or f"{1e3 * slowest:.1f} ms at most, {grown >> 20} MB, {time.monotonic() - begun:.0f} s"
        ok = not wrong and slowest < INPUT_S and grown < MEMORY
        row(f"{name}: {number:,} odd inputs", seen, f"no error, {INPUT_S} s, {MEMORY >> 20} MB", ok)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each kind of visitor (%(default)s)")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="for each reader (%(default)s)")
    parser.add_argument("--only", choices=["servers", "inputs", "doors", "memory", "storm"])
    parser.add_argument("--seed", default="1", help="of the doors (%(default)s)")
    parser.add_argument("--storm-seconds", type=float, default=300.0, help="for each kind of storm (%(default)s)")
    parser.add_argument("--rate", type=int, default=10_000, help="changes a second of the storm (%(default)s)")
    parser.add_argument("--elements", type=int, default=1_000_000, help="that strangers own (%(default)s)")
    parser.add_argument("--rules", type=int, default=50_000, help="that strangers own (%(default)s)")
    parser.add_argument("--which", default="", help="only doors or strangers with this in their name")
    given = parser.parse_args()
    print(f"{platform.platform()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    if given.only in (None, "servers"):
        with lab.up(lab.LabPlan(nodes=1, pods_per_node=1, family="ipv4", kubernetes=False)) as cluster:
            daemon(cluster, given.seconds)
            far_ends(cluster, given.seconds)
    if given.only in (None, "inputs"):
        inputs(given.inputs)
    if given.only in (None, "doors"):
        hostile_doors.fuzz(given.inputs, given.seed, given.which)
    if given.only in (None, "memory"):
        hostile_memory.memory(given.elements, given.rules, given.which)
    if given.only in (None, "storm"):
        for single in (False, True):
            hostile_storm.storm(given.storm_seconds, given.rate, commits=single)
    missed = rows.count(False) + len(failures)
    print(f"{missed} missed" if missed else "all reached")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
