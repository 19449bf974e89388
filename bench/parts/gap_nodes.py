"""A node in namespaces of its own with flannel's rules, and the rules of many Services. Part of bench/gaps.py."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace

NETWORK = "10.42.0.0/16"
RULES = f"""*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.42.1.0/24 -d {NETWORK} -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s {NETWORK} -d 10.42.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s {NETWORK} -d 10.42.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s {NETWORK} ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s {NETWORK} -d {NETWORK} -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s {NETWORK} -j ACCEPT
-A FLANNEL-FWD -d {NETWORK} -j ACCEPT
COMMIT
"""
LINKS = """set -e
mount -t tmpfs tmpfs /run
ip link set lo up
ip link add cali0 type veth peer name pod0
ip link add eth0 type veth peer name far0
for each in cali0 pod0 eth0 far0; do ip link set $each up; done
ip addr add 192.0.2.1/24 dev eth0
ip route add default via 192.0.2.254
echo ready
exec sleep infinity
"""


@contextmanager
def a_node() -> Iterator[Namespace]:
    process = processes.start(["unshare", "-nm", "sh", "-c", LINKS], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise SystemExit("a namespace could not be made: run it as root")
        yield Namespace.of_process("bench", process.pid)
    finally:
        process.kill()
        process.wait()


def service_rules(services: int) -> str:
    """What kube-proxy writes for so many Services with two endpoints each, in one restore."""
    chains, rules = [":KUBE-SERVICES - [0:0]", ":KUBE-POSTROUTING - [0:0]", ":KUBE-MARK-MASQ - [0:0]"], []
    for n in range(services):
        address = f"10.43.{n // 250}.{n % 250 + 1}"
        chains.append(f":KUBE-SVC-{n:016d} - [0:0]")
        comment = f'-m comment --comment "default/service-{n}:http cluster IP"'
        rules.append(f"-A KUBE-SERVICES -d {address}/32 -p tcp {comment} -m tcp --dport 80 -j KUBE-SVC-{n:016d}")
        rules.append(f"-A KUBE-SVC-{n:016d} ! -s {NETWORK} -d {address}/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ")
        for end in (0, 1):
            sep = f"KUBE-SEP-{n:015d}{end}"
            pod = f"10.42.{n // 250}.{n % 250 + 1}"
            chains.append(f":{sep} - [0:0]")
            odds = "-m statistic --mode random --probability 0.5" if end == 0 else ""
            rules.append(f"-A KUBE-SVC-{n:016d} {odds} -j {sep}")
            rules.append(f"-A {sep} -s {pod}/32 -j KUBE-MARK-MASQ")
            rules.append(f"-A {sep} -p tcp -m tcp -j DNAT --to-destination {pod}:8080")
    rules += [
        "-A PREROUTING -j KUBE-SERVICES",
        "-A POSTROUTING -j KUBE-POSTROUTING",
        "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
        "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
    ]
    return "\n".join(["*nat", *chains, *rules, "COMMIT", ""])
