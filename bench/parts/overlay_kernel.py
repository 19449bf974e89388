"""What the agent does to the kernel with many peers, from a shared directory of leases: start, change, repair, cost."""

from __future__ import annotations

import json
import os
import random
import select
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tests.kernel.overlay.ground import Ground, Member, OverlayAgent

from hitless.kernel.links import LinkEvent, LinkEvents
from hitless.kernel.links.scope import Scope
from hitless.model.families import Network
from hitless.model.links import Route
from hitless.model.reading import network

SCOPE = Scope((network("10.32.0.0/11", where="bench"), network("fd42::/40", where="bench")))
CONF = {"Network": "10.32.0.0/11", "SubnetLen": 24, "Backend": {"Type": "vxlan"}}
PATIENCE = 300.0


def peer(number: int, salt: int = 0) -> dict[str, object]:
    return {
        "Subnet": str(subnet(number)), "PublicIP": f"192.1.{number >> 8}.{number & 255}", "PublicIPv6": None,
        "BackendType": "vxlan",
        "BackendData": {"VNI": 1, "VtepMAC": f"02:{salt:02x}:00:00:{number >> 8:02x}:{number & 255:02x}"},
    }  # fmt: skip


def subnet(number: int) -> Network:
    return network(f"10.{33 + (number >> 8)}.{number & 255}.0/24", where="bench")


def write_peers(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"peer{number}.json").write_text(json.dumps(peer(number)))


class Kernel:
    """What happens to links in a node, as its own events say."""

    def __init__(self, member: Member) -> None:
        self._events = LinkEvents(member.namespace)
        self._scope = SCOPE
        listed = json.loads(member.ip("-j link"))
        self._events.know({one["ifindex"]: one["ifname"] for one in listed})

    def close(self) -> None:
        self._events.close()

    def forget(self) -> None:
        for _ in self._events.ready(self._scope):
            pass

    def wait(self, holds: Callable[[LinkEvent], bool], times: int = 1) -> float:
        """When that has happened so many times; monotonic."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            select.select([self._events.fileno()], [], [], 1.0)
            now = time.monotonic()
            times -= sum(1 for event in self._events.ready(self._scope) if holds(event))
            if times <= 0:
                return now
        raise TimeoutError("the agent did not do it")


def start(ground: Ground, count: int, *more: str) -> tuple[OverlayAgent, float]:
    """The agent, and seconds from exec until it says that all peers are in the kernel (it is asked every 20 ms)."""
    begun = time.monotonic()
    agent = ground.start_with(ground.members[0], json.dumps(CONF), "--node-subnet=10.32.9.0/24", *more)
    while agent.metric("hitless_overlay_peers") < count:
        assert agent.process.poll() is None and time.monotonic() - begun < PATIENCE, agent.said[-3:]
        time.sleep(0.02)
    return agent, time.monotonic() - begun


def written(agent: OverlayAgent) -> float:
    """How many writes it has done, when it has done none for a second: a busy machine may need many turns."""
    before, now = -1.0, 0.0
    while before != now:
        time.sleep(1.0)
        before, now = now, sum(agent.metric(name) for name in agent.series("hitless_overlay_writes_total"))
    return now


def memory(pid: int) -> tuple[float, float]:
    """Resident now and at most, MB."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = {
        line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if line.startswith(("VmRSS", "VmHWM"))
    }
    return found["VmRSS"] / 1024, found["VmHWM"] / 1024


def processor(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(pid: int, seconds: float) -> float:
    """Per cent of a core."""
    before = processor(pid)
    time.sleep(seconds)
    return (processor(pid) - before) / seconds * 100


def changes(
    ground: Ground, agent: OverlayAgent, kernel: Kernel, count: int, times: int
) -> tuple[list[float], list[float]]:
    """One peer's MAC changes: seconds from its file to the kernel, and milliseconds of the turn that wrote it."""
    took: list[float] = []
    seen = len(agent.events("overlay applied"))
    for turn in range(times):
        number = random.randrange(count)
        path = ground.directory / f"peer{number}.json"
        draft = ground.directory / ".draft"
        draft.write_text(json.dumps(peer(number, salt=turn + 1)))
        kernel.forget()
        begun = time.monotonic()
        draft.replace(path)
        mac = f"02:{turn + 1:02x}:00:00:{number >> 8:02x}:{number & 255:02x}"
        took.append(kernel.wait(lambda event, mac=mac: getattr(event.value, "mac", "") == mac) - begun)  # type: ignore[misc]
    applied = agent.events("overlay applied")[seen:]
    return took, [float(one["milliseconds"]) for one in applied]


def cost_of_changes(ground: Ground, agent: OverlayAgent, count: int, times: int) -> float:
    """So many peers' MACs change one after the other: milliseconds of processor time of the agent for each."""
    before = processor(agent.process.pid)
    draft = ground.directory / ".draft"
    for turn in range(times):
        number = turn * 7919 % count
        draft.write_text(json.dumps(peer(number, salt=turn % 250 + 1)))
        draft.replace(ground.directory / f"peer{number}.json")
        time.sleep(0.01)
    time.sleep(1.0)
    return (processor(agent.process.pid) - before) / times * 1000


def repairs(ground: Ground, kernel: Kernel, count: int, times: int) -> list[float]:
    """One object after the other is taken away: seconds until it is back."""
    member, took = ground.members[0], []
    for turn in range(times):
        number = random.randrange(count)
        where = subnet(number)
        mac = str(peer(number)["BackendData"]["VtepMAC"])  # type: ignore[index]
        words, back = (
            (f"ip route del {where}", lambda one, w=where: isinstance(one, Route) and one.to == w),
            (
                f"ip neigh del {where[0]} dev flannel.1",
                lambda one, w=where: getattr(one, "address", None) == w[0] and one.permanent,
            ),
            (f"bridge fdb del {mac} dev flannel.1", lambda one, m=mac: getattr(one, "mac", "") == m),
        )[turn % 3]
        kernel.forget()
        member.node.run(*words.split())
        begun = (
            time.monotonic()
        )  # the program's own end: what the agent needed before that is not counted against us twice
        ended = kernel.wait(lambda event, back=back: not event.gone and bool(back(event.value)))  # type: ignore[misc]
        took.append(max(0.0, ended - begun))
    return took


def device_lost(ground: Ground, kernel: Kernel, count: int) -> float:
    """The device is deleted: seconds until all its routes are back."""
    kernel.forget()
    begun = time.monotonic()
    ground.members[0].ip("link del flannel.1")
    return (
        kernel.wait(lambda event: not event.gone and isinstance(event.value, Route) and event.value.onlink, count)
        - begun
    )


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def middle(values: list[float]) -> float:
    return statistics.median(values)
