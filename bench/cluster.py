"""Drills in a cluster, measured against the fake API server: memory, whole records, an API that is away for a minute.

Prints this machine, then what was asked and what was seen; ends with 1 when something was missed. The driver is the
command as people run it, in a process of its own, whose largest resident memory the kernel tells.

    .venv/bin/python bench/cluster.py [nodes] [refuse] [hang]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.unit.cluster.clusters import cluster, until

from hitless.testing.api_kubelet import FakeNodes

PARTS = ["nodes", "refuse", "hang"]
MEMORY_MB = 200
AWAY_S = 60.0
HITLESS = (sys.executable, "-P", "-m", "hitless")


@dataclass
class Ran:
    """A drill's end: exit code, its largest resident memory, its report and its log."""

    code: int
    memory_mb: float
    seconds: float
    report: dict[str, object]
    log: Path
    stderr: str


async def drill(fake: FakeNodes, folder: Path, *words: str) -> Ran:
    """Run the command against the fake server."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(fake.api.kubeconfig())
    begin = time.monotonic()
    command = [*HITLESS, "drill", "--cluster", "--yes", "--json", "--quiet", "--kubeconfig", str(kubeconfig)]
    command += ["--out", str(folder / "out"), *words]
    with (folder / "stderr").open("wb") as err, (folder / "stdout").open("wb") as out:
        pid = os.posix_spawn(  # noqa: ASYNC221 - returns at once; wait4 tells its memory, in a thread
            command[0],
            command,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, out.fileno(), 1), (os.POSIX_SPAWN_DUP2, err.fileno(), 2)],
        )
        _, status, usage = await asyncio.to_thread(os.wait4, pid, 0)
    said = (folder / "stderr").read_text()
    text = (folder / "stdout").read_text()
    log = folder / "out/events.jsonl"
    report = json.loads(text) if text.startswith("{") else {}
    return Ran(os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1024, time.monotonic() - begin, report, log, said)


def sums(fake: FakeNodes, ran: Ran) -> tuple[int, int, int, int]:
    """Attempts in the streams as written in the pods, in the log, in the report; and events in the log."""
    spools = [*fake.spools.items(), *(("-probe-", one) for one in fake.retired if one.sent)]
    written = sum(spool.sent for name, spool in spools if "-probe-" in name)
    logged = events = 0
    with ran.log.open() as lines:
        for line in lines:
            events += 1
            if '"attempts"' in line:
                event = json.loads(line)
                logged += event["sent"] if event["type"] == "attempts" and event.get("stream") == "probe" else 0
    agents = ran.report.get("agents")
    told = sum(int(one["attempted"]) for one in agents) if isinstance(agents, list) else 0
    return written, logged, told, events


def judge(name: str, asked: str, seen: str, met: bool) -> bool:
    """One line."""
    print(f"  {'met   ' if met else 'missed'}  {name}: asked {asked}; seen {seen}")
    return met


async def nodes(folder: Path) -> bool:
    """Twenty nodes at once."""
    print("20 nodes in one run, streams merged")
    async with cluster(20, gap=0.05) as fake:
        fake.busy = True
        words = ["--nodes", "20", "--at-once", "20", "--rounds", "3", "--baseline", "10", "--settle", "10"]
        ran = await drill(fake, folder, *words, "--recovery", "10")
        written, logged, told, events = sums(fake, ran)
    print(f"  {ran.seconds:.0f} s, {events:,} events in {ran.log.stat().st_size / 1e6:.1f} MB, exit code {ran.code}")
    kept = judge("memory of the driver", f"<= {MEMORY_MB} MB", f"{ran.memory_mb:.0f} MB", ran.memory_mb <= MEMORY_MB)
    same = written == logged == told and written > 0
    whole = judge("attempts", "streams = log = report", f"{written:,} = {logged:,} = {told:,}", same)
    return kept and whole and _ended(ran)


async def away(folder: Path, how: str) -> bool:
    """The API server away for a minute in the middle of a round."""
    what = {"refuse": "refuses every connection", "hang": "accepts and never answers"}[how]
    print(f"the API server {what} for {AWAY_S:.0f} s in the middle of a round")
    async with cluster(3, start_delay=0.5, gap=1.0) as fake:

        async def go() -> None:
            await until(lambda: sum("rke2-canal" in pod["metadata"]["name"] for pod in fake.pods_made) > 3)
            fake.api.faults.cut(AWAY_S) if how == "refuse" else fake.api.faults.hang(AWAY_S)

        going = asyncio.create_task(go())
        ran = await drill(fake, folder, "--rounds", "2", "--settle", "2", "--node", "node-1")
        await going
        written, logged, told, events = sums(fake, ran)
        faults = fake.api.faults
    print(f"  {ran.seconds:.0f} s, {events:,} events; {faults.refused} refused, {faults.unanswered} unanswered")
    same = written == logged == told and written > 100 * AWAY_S * 0.9
    whole = judge("attempts", "streams = log = report", f"{written:,} = {logged:,} = {told:,}", same)
    agents = ran.report.get("agents")
    rounds = agents[0]["rounds"] if isinstance(agents, list) else 0
    return whole and judge("rounds", "2 of 2", f"{rounds}", rounds == 2) and _ended(ran)


def _ended(ran: Ran) -> bool:
    return judge(
        "the drill", "ends with a verdict (0 or 1)", f"{ran.code} {ran.stderr.strip()[-300:]}", ran.code in (0, 1)
    )


def _part(word: str) -> str:
    # argparse's own choices refuse an empty list of words
    if word not in PARTS:
        raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(PARTS)}")
    return word


def main() -> int:
    """Run what was named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", type=_part, metavar="PART", help=f"{', '.join(PARTS)}; default: all of them")
    wanted = parser.parse_args().what or PARTS
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    print(f"{platform.system()} {platform.release()}, {os.cpu_count()} cores {cpu}, Python {platform.python_version()}")
    met = True
    for name in wanted:
        with tempfile.TemporaryDirectory(prefix="hitless-bench-") as folder:
            work = nodes(Path(folder)) if name == "nodes" else away(Path(folder), name)
            met = asyncio.run(work) and met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
