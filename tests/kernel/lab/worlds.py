"""What the lab's kernel tests share: skipping with a reason, asking pods, watching the machine itself."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable

import pytest

from hitless import lab
from hitless.errors import MissingError
from hitless.kernel import namespaces, processes
from hitless.kernel.namespaces import Namespace
from hitless.lab import features
from hitless.lab.agents import AGENTS
from hitless.model.families import Family

HANG = 60.0  # nothing here takes a tenth of it on a quiet machine


def missing(reason: str) -> None:
    """Skip, or fail where the machine must have everything."""
    if os.environ.get("REQUIRE_KERNEL") == "1":
        pytest.fail(f"REQUIRE_KERNEL is set, but {reason}")
    pytest.skip(reason)


def up(plan: lab.LabPlan) -> lab.Lab:
    """A lab, or a skip that says why not."""
    try:
        return lab.up(plan)
    except MissingError as error:
        missing(str(error))
        raise


def need(plan: lab.LabPlan) -> None:
    """Skip unless this machine can build such a lab."""
    for feature in _features(plan):
        if not feature.present:
            missing(f"{feature.name}: {feature.problem}; {feature.remedy}")


@functools.cache
def _features(plan: lab.LabPlan) -> tuple[features.Feature, ...]:
    return features.probe(plan)  # the machine's: they do not change while tests run


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition; a hang is a failure that says what was waited for."""
    deadline = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {HANG:g} s"
        time.sleep(0.01)


def run(namespace: Namespace, *command: str, stdin: str | None = None, check: bool = True) -> str:
    return processes.run(command, namespace=namespace, stdin=stdin, check=check).stdout


def reaches(pod: lab.LabPod, address: object) -> bool:
    """Whether a new flow from the pod gets an answer, however busy this machine is: it asks each second."""
    return _ping(pod, address, f"-w{HANG / 2:g}") == 0


def silent(pod: lab.LabPod, address: object) -> bool:
    """Whether a new flow from the pod gets no answer for a second."""
    return _ping(pod, address, "-W1") == 1


def _ping(pod: lab.LabPod, address: object, patience: str) -> int:
    return processes.run(["ping", "-c1", patience, str(address)], namespace=pod.namespace, check=False).returncode


def seen_source(cluster: lab.Lab, pod: lab.LabPod, family: Family) -> str:
    """The source address under which a datagram of the pod arrives at the far end."""
    kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    address = str(cluster.far_end.addresses[family][0])
    receiver = namespaces.inside(cluster.far_end.namespace, lambda: socket.socket(kind, socket.SOCK_DGRAM))
    sender = namespaces.inside(pod.namespace, lambda: socket.socket(kind, socket.SOCK_DGRAM))
    with receiver, sender:
        receiver.settimeout(1.0)
        receiver.bind((address, 9))
        for _ in range(int(HANG)):
            sender.sendto(b"x", (address, 9))  # nobody promises that one arrives: a link may just be coming up
            with contextlib.suppress(TimeoutError):
                return str(receiver.recvfrom(10)[1][0])
    raise AssertionError(f"nothing from {pod.name} arrived at {address} within {HANG:g} s")


def stand_in(cluster: lab.Lab, name: str, *more: str, node: int = 0) -> processes.Process:
    """A stand-in, started in a node and ready."""
    place = cluster.nodes[node]
    agent = AGENTS[name]
    ready = place.root / agent.readiness.what.lstrip("/")
    ready.unlink(missing_ok=True)
    process = processes.start(
        [*agent.command(cluster.plan, place), *more], namespace=place.namespace, stdout=processes.PIPE
    )
    until(lambda: ready.exists() or process.poll() is not None, f"{name} becoming ready")
    assert process.poll() is None, f"{name} ended with {process.returncode}"
    return process


def finish(process: processes.Process, number: int = 15) -> str:
    """Signal it and wait for its end; what it wrote."""
    process.send_signal(number)
    output, _ = process.communicate(timeout=HANG)
    return output.decode()


_MOVING = re.compile(r" (expires|valid_lft) .*|\[\d+:\d+\]|counter packets \d+ bytes \d+")


def machine() -> dict[str, str]:
    """The machine's own rules, links, addresses, routes and names of namespaces."""
    commands = {
        "links": "ip -o link",
        "addresses": "ip -o addr",
        "routes": "ip route show table all; ip -6 route show table all",
        "rules": "ip rule; ip -6 rule",
        "iptables-nft": "iptables-nft-save; ip6tables-nft-save",
        "iptables-legacy": "iptables-legacy-save; ip6tables-legacy-save",
        "nft": "nft list ruleset",
        "namespaces": "ls /run/netns 2>&1",
        "forwarding": "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding",
        "mounts": "cat /proc/self/mounts",
    }
    found = {}
    for name, command in commands.items():
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("# ")]
        # what counts and expires is no change
        found[name] = "\n".join(_MOVING.sub("", line) for line in lines)
    return found


class Witness:
    """Tells when namespaces of a lab are really gone: each holds one end of a link, and we the other.

    The kernel takes both ends away when it frees the namespace. Inode numbers would lie: they are given out again.
    """

    def __init__(self, observer: lab.Lab, cluster: lab.LabCluster) -> None:
        self._observer = observer.underlay.namespace
        self.names = {}
        text = ""
        for number, (name, place) in enumerate(cluster.places.items()):
            self.names[f"w{number}"] = name
            text += f"link add w{number} type veth peer name witness netns {place.net}\n"
        run(self._observer, "ip", "-batch", "-", stdin=text)

    def standing(self) -> set[str]:
        """The places that are still there."""
        links = run(self._observer, "ip", "-o", "link")
        return {name for link, name in self.names.items() if f": {link}@" in links}
