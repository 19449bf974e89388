"""Do our measuring threads stand still on a busy machine, and what for? Many short drills beside compilers.

    sudo .venv/bin/python bench/stalls.py [--drills 100] [--compilers 2] [--namespaces 4] [--minutes 30]

Beside the drills a C file is compiled again and again (niced), and network namespaces with a veth and a masquerade are
made and removed, a few at a time. Of each drill's log: the tools (watch, probe, far end) whose heartbeat tells more
than a second of lag, or whose heartbeats are more than two seconds apart. An ordinary process looks at the real-time
threads meanwhile (``bench/parts/stall_watchdog.py``) and says of each that stood still for half a second or more
whether it waited for a core (and who had it, or the host), or for something in the kernel. Asked for: each stall above
a second has an explanation, and no watch tells more than the stop and a sleep of 0.2 s. Ends with 1 where that is
missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hitless.kernel.cpu_priority import stolen

HITLESS = [sys.executable, "-P", "-m", "hitless"]
WATCHDOG = Path(__file__).parent / "parts" / "stall_watchdog.py"
_NAME = f"bench-stalls-{os.getpid()}"
LONG = 1_000_000_000
SOURCE = (
    "\n".join(
        f"static inline double f{n}(double x) {{ return x * {n}.5 + f{n - 1}(x / ({n} + x * x)); }}"
        if n
        else "static inline double f0(double x) { return x; }"
        for n in range(120)
    )
    + "\nint main(int argc, char **argv) { (void)argv; return (int)f119(argc); }\n"
)
COMPILE = "while :; do cc -O2 -c -o /dev/null {source} || exit 1; done"
NAMESPACES = """
for number in $(seq {count}); do
  ip netns add {name}-$number
  ip -n {name}-$number link add a type veth peer name b
  ip -n {name}-$number link set a up
  ip netns exec {name}-$number iptables -t nat -A POSTROUTING -j MASQUERADE
done
for number in $(seq {count}); do ip netns del {name}-$number; done
"""


@dataclass
class Findings:
    """What all drills gave."""

    verdicts: Counter[str] = field(default_factory=Counter)
    stalls: list[tuple[int, str, float, str]] = field(default_factory=list)
    unexplained: int = 0
    doubled: int = 0
    still: list[dict[str, object]] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drills", type=int, default=100)
    parser.add_argument("--compilers", type=int, default=2)
    parser.add_argument("--namespaces", type=int, default=4, help="made and removed at a time")
    parser.add_argument("--minutes", type=float, default=30.0, help="no drill begins after so long")
    parser.add_argument("--keep", type=Path, help="a folder for the watchdog's findings of each drill")
    arguments = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before", flush=True)
    end, found, done = time.monotonic() + arguments.minutes * 60, Findings(), 0
    with tempfile.TemporaryDirectory(prefix="bench-stalls-") as temporary:
        beside = _compilers(Path(temporary), arguments.compilers)
        try:
            while done < arguments.drills and time.monotonic() < end:
                done += 1
                _drill(done, Path(temporary), arguments, found)
        finally:
            for one in beside:
                one.terminate()
            for one in beside:
                one.wait()
            for number in range(1, arguments.namespaces + 1):  # those that an interruption left
                subprocess.run(["ip", "netns", "del", f"{_NAME}-{number}"], check=False, capture_output=True)
    return _tell(found, done, arguments)


def _compilers(folder: Path, count: int) -> list[subprocess.Popen[bytes]]:
    source = folder / "busy.c"
    source.write_text(SOURCE)
    command = ["nice", "sh", "-c", f"trap 'exit 0' TERM; {COMPILE.format(source=source)}"]
    return [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(count)]


def _drill(number: int, folder: Path, arguments: argparse.Namespace, found: Findings) -> None:
    out, seen = folder / f"drill-{number}", folder / f"still-{number}.jsonl"
    command = [*HITLESS, "drill", "--agents", "flannel-0.28", "--rounds", "1", "--baseline", "1", "--settle", "0"]
    command += ["--rate", "300", "--out", str(out), "--json", "--quiet"]
    began_stolen, begun = stolen(), time.monotonic()
    drill = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    watchdog = subprocess.Popen([sys.executable, str(WATCHDOG), str(drill.pid), str(seen)])
    script = NAMESPACES.format(count=arguments.namespaces, name=_NAME)
    while drill.poll() is None:
        subprocess.run(["nice", "sh", "-c", script], check=False, capture_output=True)
        time.sleep(0.2)
    errors = drill.stderr.read() if drill.stderr is not None else ""
    watchdog.wait()
    found.verdicts[{0: "pass", 1: "fail", 2: "inconclusive"}.get(drill.returncode, "error")] += 1
    still = [json.loads(line) for line in seen.read_text().splitlines()]
    episodes = [one for one in still if "name" in one]
    found.still += episodes
    told = list(_stalls(out / "events.jsonl"))
    host = (stolen() - began_stolen) / 1e9
    for tool, seconds, interval in told:
        longest = max((float(one["seconds"]) for one in episodes), default=0.0)
        why = "; ".join(_why(one) for one in episodes) or f"no thread stood still for 0.5 s; host took {host:.1f} s"
        found.stalls.append((number, tool, seconds, why))
        found.unexplained += not episodes
        if tool == "watch" and longest and seconds > interval + longest + 0.3:
            found.doubled += 1
    if drill.returncode not in (0, 1, 2):
        print(f"drill {number}: exit {drill.returncode}: {errors.strip()[-300:]}", flush=True)
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        (arguments.keep / seen.name).write_text(seen.read_text())
    took = time.monotonic() - begun
    words = ", ".join(f"{tool} {seconds:.1f} s" for tool, seconds, _ in told) or "none"
    print(
        f"drill {number}: {took:.0f} s, exit {drill.returncode}, stalls above 1 s: {words}; "
        f"{len(episodes)} real-time threads stood still; host took {host:.2f} s",
        flush=True,
    )


def _stalls(log: Path) -> list[tuple[str, float, float]]:
    """(tool, seconds, time since its heartbeat before) of each lag above a second."""
    found: list[tuple[str, float, float]] = []
    before: dict[str, int] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        event = json.loads(line)
        if event["type"] != "heartbeat":
            continue
        tool, t = str(event["tool"]), int(event["t"])
        apart = t - before.get(tool, t)
        before[tool] = t
        if event.get("max_lag_ns", 0) > LONG:
            found.append((tool, event.get("max_lag_ns", 0) / 1e9, apart / 1e9))
        elif apart > 2 * LONG:
            found.append((tool, apart / 1e9, apart / 1e9))
    return found


def _why(one: dict[str, object]) -> str:
    """An episode as text."""
    samples, states, cores = one["samples"], one["states"], one["cores"]
    assert isinstance(samples, list) and isinstance(states, list) and isinstance(cores, dict)
    words = f"{one['name']} stood still for {one['seconds']} s"
    if states == ["R"]:
        core = samples[0]["core"]
        there = cores.get(f"cpu{core}", {})
        others = {
            f"{each['name']} (policy {each['policy']}, at {(each['stack'] or ['user space'])[0]})"
            for each in samples[0]["running"].values()
            if each["core"] == core
        }
        words += (
            f", ready, waiting for core {core} ({one['waited_for_core_s']} s as the kernel counts); there meanwhile: "
        )
        words += f"{there}, ready or running: {', '.join(sorted(others)) or 'nobody'}"
    else:
        words += f", {'/'.join(map(str, states))} at {samples[0]['wchan'] or '?'}: {samples[0]['stack'][:3]}"
    return words


def _tell(found: Findings, done: int, arguments: argparse.Namespace) -> int:
    print(
        f"{done} drills beside {arguments.compilers} compilers: {dict(found.verdicts)}; load {os.getloadavg()[0]:.1f}"
    )
    print(f"stalls above 1 s: {len(found.stalls)} {dict(Counter(tool for _, tool, _, _ in found.stalls))}")
    for number, tool, seconds, why in found.stalls:
        print(f"  drill {number}, {tool}, {seconds:.1f} s: {why}")
    print(f"real-time threads that stood still for 0.5 s or more: {len(found.still)}")
    for one in found.still:
        print(f"  {_why(one)}")
    missed = [f"{found.unexplained} unexplained"] if found.unexplained else []
    missed += [f"{found.doubled} lags longer than the stop"] if found.doubled else []
    missed += [f"{arguments.drills - done} drills not run in time"] if done < arguments.drills else []
    missed += [f"{found.verdicts['error']} drills ended in an error"] if found.verdicts["error"] else []
    print(
        f"asked for: {arguments.drills} drills, every stall explained, no lag longer than its stop: "
        f"{'missed: ' + ', '.join(missed) if missed else 'reached'}"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
