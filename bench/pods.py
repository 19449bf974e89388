"""What it costs to ask about every pod of a full node: 110 pods, the rules of many Services, a policy for each pod.

    python bench/pods.py [--pods 110] [--services 5000] [--idle-seconds 20]

In a network namespace of its own; root is needed. Each pod has a link with a route of its own (as Calico makes them);
the rules decide by no pod at all, by a chain for each pod's address (kube-router), or for each pod's link (Calico).
Printed are the look at the node, the answer that a change waits for, while pods are carried and while none is, the
count of all pods, and what an idle watch and guard take. Asked: below 1 % of a core when idle, 60 MB for the guard, and
an answer within 200 ms: a watch that is later makes a drill inconclusive. What is not reached is printed as missed, and
ends with 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import IPv4Network
from pathlib import Path

from hitless.kernel import nftables, processes, xtables
from hitless.kernel.namespaces import Namespace
from hitless.model.families import Family
from hitless.model.rules import Ruleset
from hitless.observe import Asking, LiveNode
from hitless.observe.judging import Judge

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.parts.gap_nodes import RULES, a_node, service_rules

NETWORK = IPv4Network((0x0A2A0000, 16))
LINKS = """
for n in $(seq 2 {last}); do
  echo "link add cali$n type veth peer name pod$n"; echo "link set cali$n up"; echo "link set pod$n up"
  echo "route add 10.42.0.$n/32 dev cali$n"
done | ip -batch -
"""
missed = 0


def asked(words: str, holds: bool) -> None:
    global missed
    missed += not holds
    print(f"    {'ok' if holds else 'MISSED'}: {words}")


def policies(shape: str, pods: int) -> str:
    """A chain for each pod, which lets everything out; a second one for the answers to it."""
    lines = ["*filter", ":PODS - [0:0]", "-I FORWARD 1 -j PODS"]
    by, to = ("-s 10.42.0.{0}/32", "-d 10.42.0.{0}/32") if shape == "kube-router" else ("-i cali{0}", "-o cali{0}")
    for number in range(2, pods + 2):
        chain = f"KUBE-POD-FW-{number}"
        lines += [
            f":{chain} - [0:0]",
            f"-A PODS {to.format(number)} -j {chain}",
            f"-A PODS {by.format(number)} -j {chain}",
        ]
        lines += [
            f"-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"-A {chain} -d 10.43.0.0/16 -j MARK --set-xmark 0x10000/0x10000",
            f"-A {chain} -m mark --mark 0x20000/0x20000 -j REJECT",
        ]
    return "\n".join([*lines, "COMMIT", ""])


def best(action: Callable[[], object], times: int = 5) -> float:
    """The shortest of several runs, in milliseconds of processor time."""
    found = []
    for _ in range(times):
        begin = time.thread_time()
        action()
        found.append(1000 * (time.thread_time() - begin))
    return min(found)


def read(node: Namespace) -> Ruleset:
    """As the watch has them: what was decoded once is kept."""
    mirror = nftables.Mirror(node, (Family.IPV4,))
    try:
        return Ruleset((*mirror.current.tables, *xtables.read_ruleset(node).tables))
    finally:
        mirror.close()


def answers(node: Namespace, program: str, pods: int) -> None:
    around = LiveNode(node, (Family.IPV4,))
    try:
        look = best(lambda: around._viewer.look())
        witnesses = around.witnesses(Asking(NETWORK, protocols=(6, 17, 1)))
        whole = read(node)
        judge = Judge(NETWORK, witnesses)
        first = judge.count(whole)
        settled, counted = best(lambda: judge.answer(whole)), best(lambda: judge.count(whole), 3)
        processes.run([program, "-w", "-t", "nat", "-F", "FLANNEL-POSTRTG"], namespace=node)
        emptied = read(node)
        gap = judge.answer(emptied)
        lost = best(lambda: judge.answer(emptied), 3)
        text = ["*nat", "-A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE", "COMMIT", ""]
        processes.run([f"{program}-restore", "--noflush"], namespace=node, stdin="\n".join(text))
    finally:
        around.close()
    print(
        f"  look at the node {look:.1f} ms; answer {settled:.1f} ms; all pods {counted:.0f} ms; in a gap {lost:.0f} ms"
    )
    asked(f"{pods} pods are found and carried", (first.state, first.pods, first.kept) == ("carried", pods, 0))
    asked("a gap of all pods is one", gap.state == "not_carried")
    asked("an answer within 200 ms, in a gap too", max(settled, lost) < 200)


def idle(node: Namespace, words: list[str], seconds: float, folder: Path) -> None:
    command = [sys.executable, "-P", "-m", "hitless", *words]
    with (folder / "out").open("wb") as out:
        process = processes.start(command, namespace=node, stdout=out.fileno(), stderr=out.fileno())
        try:
            time.sleep(12)
            before, began = ticks(process.pid), time.monotonic()
            time.sleep(seconds)
            share = 100 * (ticks(process.pid) - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - began)
            memory = resident(process.pid)
        finally:
            process.terminate()
            process.wait()
    print(f"  idle {words[0]}: {share:.2f} % of a core, {memory:.0f} MB")
    asked("below 1 % of a core", share < 1)
    if words[0] == "guard":
        asked("60 MB", memory < 60)


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def resident(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pods", type=int, default=110)
    parser.add_argument("--services", type=int, default=5000)
    parser.add_argument("--idle-seconds", type=float, default=20)
    chosen = parser.parse_args()
    print(f"{os.cpu_count()} processors, Linux {platform.release()}, load {os.getloadavg()[0]:.1f}")
    for backend in ("nft", "legacy"):
        program = f"iptables-{backend}"
        for shape in ("no policy", "kube-router", "calico"):
            with ExitStack() as made:
                node = made.enter_context(a_node())
                folder = Path(made.enter_context(tempfile.TemporaryDirectory()))
                processes.run(["sh", "-e", "-c", LINKS.format(last=chosen.pods + 1)], namespace=node, timeout=300)
                texts = [service_rules(chosen.services), RULES]
                for text in texts + ([policies(shape, chosen.pods)] if shape != "no policy" else []):
                    processes.run([f"{program}-restore", "--noflush"], namespace=node, stdin=text, timeout=300)
                print(f"\n{program}, {chosen.services} Services, {chosen.pods} pods, {shape}:")
                answers(node, program, chosen.pods)
                if chosen.idle_seconds and (backend, shape) in (("nft", "kube-router"), ("legacy", "kube-router")):
                    idle(node, ["watch", "--json", "--profile", "canal"], chosen.idle_seconds, folder)
                    flags = ["--run-dir", str(folder), "--journal", str(folder / "journal")]
                    idle(node, ["guard", "--observe", *flags], chosen.idle_seconds, folder)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
