"""The stand-ins' command line; also ``hitless lab stand-in``. Standard library only, so that a restart costs little.

Writes one JSON line per step on standard output: started, ready, stopping, stopped, each with the commands run so far.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hitless.errors import HitlessError, InputError
from hitless.kernel import files
from hitless.lab.standins.adopter import Adopter
from hitless.lab.standins.commands import Counter
from hitless.lab.standins.flannel import FlannelNft, FlannelStandIn, Subnets
from hitless.lab.standins.rules import Pods
from hitless.model import reading
from hitless.model.families import Backend, family_of, within

__all__ = ["NAMES", "main"]

NAMES = ("flannel-0.26", "flannel-0.28", "flannel-0.28-canal", "adopter")


class _Agent(Protocol):
    counter: Counter

    def start(self) -> None: ...

    def stop(self) -> None: ...


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hitless lab stand-in", description="A stand-in for a network agent.")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--backend", choices=[str(each) for each in Backend], default="nft")
    parser.add_argument("--network", action="append", required=True, help="pod network; once per family")
    parser.add_argument("--subnet", action="append", required=True, help="this node's subnet; in the same order")
    parser.add_argument("--subnet-file", default="/run/flannel/subnet.env")
    parser.add_argument("--resync", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--ready-file", help="written with the process id when ready, removed at start")
    return parser


def _pods(networks: Sequence[str], subnets: Sequence[str]) -> tuple[Pods, ...]:
    if len(networks) != len(subnets):
        raise InputError("as many --subnet as --network are needed")
    found = []
    for network_text, subnet_text in zip(networks, subnets, strict=True):
        network, subnet = (
            reading.network(network_text, where="--network"),
            reading.network(subnet_text, where="--subnet"),
        )
        if not within(subnet, network):
            raise InputError(f"{subnet} is not in {network}", where="--subnet", expected="a part of --network")
        found.append(Pods.of(family_of(network), network, subnet))
    return tuple(found)


def _agent(options: argparse.Namespace) -> _Agent:
    pods = _pods(options.network, options.subnet)
    backend = Backend(options.backend)
    if options.name == "adopter":
        return Adopter(pods, backend, options.resync)
    old = options.name == "flannel-0.26"
    if backend.native:
        return FlannelNft(pods, old)
    # Canal's flannel container has no /run/flannel of the host's
    path = None if options.name.endswith("-canal") else Path(options.subnet_file)
    return FlannelStandIn(pods, backend, Subnets(path), old, options.resync)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a stand-in until SIGTERM or SIGINT; exit code 3 when its input is wrong or its set-up failed."""
    begin = time.monotonic()
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(name)s: %(message)s")
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    ready = Path(options.ready_file) if options.ready_file else None
    if ready is not None:
        ready.unlink(missing_ok=True)
    try:
        agent = _agent(options)

        def report(event: str) -> None:
            elapsed = round((time.monotonic() - begin) * 1000, 1)
            line = {"agent": options.name, "event": event, "commands": agent.counter.total, "elapsed_ms": elapsed}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()

        report("started")
        agent.start()
        report("ready")
        if ready is not None:  # last: who sees the file may end us at once, after the report
            ready.parent.mkdir(parents=True, exist_ok=True)
            files.replace(ready, f"{os.getpid()}\n".encode(), durable=False)
        while not stopping.wait(0.1):
            continue  # a signal to a stopped process (SIGSTOP) may be delivered to another thread, which does not end a
            # wait here: the handler runs when this thread continues by itself
        report("stopping")
        agent.stop()
        report("stopped")
    except HitlessError as error:
        sys.stderr.write(f"stand-in {options.name}: {error}\n")
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
