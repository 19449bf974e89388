"""The settings of other runtimes, each measured: one request that begins in a gap of two seconds.

    python bench/retry_settings.py [--gap 2]

In a lab of its own; root is needed. Go, Java, Node and curl are used where they are installed: the programs are those
of examples/retry. Each row is one setting: what the runtime does without it, with it, and from a fixed source port.
Printed is what became of the request, and after how long; a program that is not installed is said so.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from hitless import lab
from hitless.kernel import privileges, processes
from hitless.kernel.namespaces import inside

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "retry"
SYN_SENT = "net.netfilter.nf_conntrack_tcp_timeout_syn_sent"
PATIENCE = 40.0  # seconds after which a row is given up
RULES = """
table ip bench {
  chain forward { type filter hook forward priority filter; ct state established accept; }
  chain postrouting { type nat hook postrouting priority srcnat; oifname "eth0" ip saddr 10.42.0.0/16 masquerade; }
}
"""


def rows(folder: Path, url: str) -> list[tuple[str, Sequence[str]]]:
    """What is measured: a word, and the command."""
    go = str(folder / "go")
    retrying = ["--retry", "20", "--retry-delay", "1", "--retry-all-errors"]
    curl = ["curl", "-sS", "-o", os.devnull, "-w", "%{http_code}\n", url]
    return [
        ("curl, as it is", curl),
        ("curl --connect-timeout 2", [*curl, "--connect-timeout", "2"]),
        ("curl --connect-timeout 2 --retry 20", [*curl, "--connect-timeout", "2", *retrying]),
        ("curl the same, --local-port 4711", [*curl, "--connect-timeout", "2", *retrying, "--local-port", "4711"]),
        ("hitless retry -- curl --connect-timeout 2", [
            sys.executable, "-m", "hitless", "retry", "-q", "--", *curl, "--connect-timeout", "2"
        ]),
        ("Go, Dialer.Timeout 30 s (its default)", [go, url, "30"]),
        ("Go, Dialer.Timeout 2 s, one attempt", [go, url, "2", "1"]),
        ("Go, Dialer.Timeout 2 s, retries", [go, url, "2"]),
        ("Node, no time to connect of its own", ["node", str(EXAMPLES / "node" / "client.mjs"), url, "1000"]),
        ("Node, 2 s to connect, retries", ["node", str(EXAMPLES / "node" / "client.mjs"), url, "2"]),
        ("Java, no connectTimeout", ["java", "-cp", str(folder), "Client", url, "1000"]),
        ("Java, connectTimeout 2 s, retries", ["java", "-cp", str(folder), "Client", url, "2"]),
    ]  # fmt: skip


def built(folder: Path) -> set[str]:
    """Compile what has a compiler here; returns the programs that there are."""
    there = {name for name in ("curl", "go", "node", "java") if shutil.which(name)}
    if "go" in there:
        source = str(EXAMPLES / "go" / "main.go")
        processes.run(["go", "build", "-o", str(folder / "go"), source], timeout=600)
    if "java" in there:
        processes.run(["javac", "-d", str(folder), str(EXAMPLES / "java" / "Client.java")], timeout=600)
    return there


def measure(node: lab.LabNode, command: Sequence[str], gap: float) -> str:
    """What became of a request that begins when nothing is translated."""
    processes.run(["nft", "flush", "chain", "ip", "bench", "postrouting"], namespace=node.namespace)
    back = threading.Timer(gap, lambda: processes.run(["nft", "-f", "-"], namespace=node.namespace, stdin=RULES))
    back.start()
    begin = time.monotonic()
    process = processes.start(
        command, namespace=node.pods[0].namespace, stdout=processes.PIPE, stderr=processes.DEVNULL
    )
    code = processes.ended(process, PATIENCE)
    taken = time.monotonic() - begin
    if code is None:
        process.kill()
    text, _ = process.communicate()
    back.join()
    if code is None:
        return f"no answer after {taken:.0f} s, given up"
    words = text.decode(errors="replace").strip().rpartition("\n")[2]  # the last attempt's
    return f"{'answered' if code == 0 else 'failed'} after {taken:.1f} s ({words})"


def life(node: lab.LabNode, host: str, patience: float) -> None:
    """How long a flow of the gap stays dead: from one port every two seconds, and once more after a rest."""

    def tried() -> bool:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", 4712))
            sock.settimeout(1.5)
            return sock.connect_ex((host, 7880)) == 0

    timeout = int(processes.run(["sysctl", "-n", SYN_SENT], namespace=node.namespace).stdout)
    processes.run(["nft", "flush", "chain", "ip", "bench", "postrouting"], namespace=node.namespace)
    inside(node.pods[0].namespace, tried)
    processes.run(["nft", "-f", "-"], namespace=node.namespace, stdin=RULES)
    begin, tries = time.monotonic(), 0
    while time.monotonic() - begin < patience:
        tries += 1
        if inside(node.pods[0].namespace, tried):
            print(
                f"    one port, every 2 s: answered after {time.monotonic() - begin:.0f} s (a flow's life: {timeout} s)"
            )
            return
        time.sleep(0.5)
    print(
        f"    one port, every 2 s: {tries} tries in {patience:g} s, none answered (each renews the flow's {timeout} s)"
    )
    time.sleep(timeout + 5)
    answered = inside(node.pods[0].namespace, tried)
    print(f"    the same port after a rest of {timeout + 5} s: {'answered' if answered else 'dead'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--life", type=float, default=0.0, help="also: how long a flow stays dead; tries so many seconds"
    )
    parser.add_argument("--only", default="", help="rows that begin with this")
    parser.add_argument("--gap", type=float, default=2.0, help="seconds without translation")
    options = parser.parse_args()
    privileges.ensure()
    print(f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, load {os.getloadavg()[0]:.1f}")
    print(f"a request that begins in a gap of {options.gap:g} s:")
    with tempfile.TemporaryDirectory(prefix="hitless-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        there = built(folder)
        cluster = stack.enter_context(lab.up(lab.LabPlan(kubernetes=False)))
        node, far = cluster.nodes[0], cluster.far_end
        host = str(next(iter(far.addresses.values()))[0])
        processes.run(["nft", "-f", "-"], namespace=node.namespace, stdin=RULES)
        farend = processes.start(
            [sys.executable, "-m", "hitless", "farend", "--bind", host, "--json"],
            namespace=far.namespace,
            stdout=processes.PIPE,
        )
        assert farend.stdout is not None
        farend.stdout.readline()
        for word, command in rows(folder, f"http://{host}:7880/"):
            if not word.startswith(options.only):
                continue
            program = Path(command[0]).name
            missing = program not in there and program != Path(sys.executable).name
            print(f"    {word:44} {'not installed' if missing else measure(node, command, options.gap)}", flush=True)
        if options.life:
            life(node, host, options.life)
        farend.kill()
        farend.communicate()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
