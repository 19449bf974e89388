"""A network and mount namespace that stands for somebody's machine, with things of theirs in it, and how it is.

The test must not change what it looks at: legacy tables are listed by the kernel's own file (asking a program for one
loads it), and rules with the handles that a rewrite would change.
"""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.kernel.drill.drills import HANG, HITLESS, left
from tests.kernel.lab.worlds import until

SET_UP = """
set -e
# what others mount there (named namespaces, containers) goes in every mount namespace when they remove it
awk '$5 ~ "^/run/" { print $5 }' /proc/self/mountinfo | tac | while read -r point; do umount -l "$point"; done
mount -t tmpfs none /run
mkdir /run/netns /run/flannel
for which in all default; do echo 0 > /proc/sys/net/ipv6/conf/$which/accept_dad; done
ip link set lo up
ip link add uplink type veth peer name cable
ip link set cable up
ip link set uplink up
ip addr add 192.0.2.77/24 dev uplink
ip addr add 2001:db8:7::77/64 dev uplink nodad
ip route add default via 192.0.2.1
ip route add 10.42.9.0/24 via 192.0.2.9
ip -6 route add fd42:0:0:9::/64 via 2001:db8:7::9
ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev uplink nud permanent
ip rule add fwmark 0x77 lookup 77
echo 1 > /proc/sys/net/ipv4/ip_forward
nft -f - <<RULES
table inet theirs {
  set some { type ipv4_addr; elements = { 192.0.2.5 }; }
  chain forward { type filter hook forward priority 0; ct state established accept; ip saddr @some drop; }
}
RULES
for tables in iptables ip6tables; do
  $tables-nft -t nat -N FLANNEL-POSTRTG
  $tables-nft -t nat -A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
  $tables-nft -t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN
done
iptables-nft -t nat -A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully
ip6tables-nft -t nat -A FLANNEL-POSTRTG -s fd42::/48 ! -d ff00::/8 -j MASQUERADE --random-fully
iptables-legacy -t filter -A INPUT -s 192.0.2.66 -j DROP
# the kernel tells of a new link's carrier, and makes its own addresses and routes, a moment later
for device in uplink cable; do
  until ip -o link show dev $device | grep -q "state UP"; do sleep 0.02; done
  until ip -6 route show table local dev $device | grep -q fe80; do sleep 0.02; done
  until ip -6 route show dev $device | grep -q fe80; do sleep 0.02; done
done
"""

LOOK = {
    "links": "ip -d -o link",
    "addresses": "ip -o addr",
    "routes": "ip route show table all; ip -6 route show table all",
    "policy rules": "ip rule; ip -6 rule",
    "neighbours": "ip neigh show nud permanent",
    "rules": "nft -a -s list ruleset",
    "legacy tables": "cat /proc/net/ip_tables_names; echo; cat /proc/net/ip6_tables_names",
    "legacy rules": "iptables-legacy -t filter -S",
    # what is not configuration: counts, and keys that only their owner may read
    "sysctls": "find /proc/sys/net -type f -perm -444 ! -name nf_conntrack_count | sort | xargs grep -H ''",
    "mounts": "cat /proc/self/mountinfo",
    "run": "find /run ! -name xtables.lock | sort",
}


def changes(before: dict[str, str], after: dict[str, str]) -> dict[str, list[str]]:
    """The lines that came and went, by what they tell of."""
    found = {}
    for name, text in before.items():
        old, new = set(text.splitlines()), set(after[name].splitlines())
        if old != new or text != after[name]:
            found[name] = sorted(f"- {line}" for line in old - new) + sorted(f"+ {line}" for line in new - old)
    return found


@dataclass
class Machine:
    """A place to run commands in. ``here`` is the commands' working directory, ``home`` their user's."""

    pid: int
    here: Path
    home: Path
    mark: str = field(default_factory=lambda: f"HITLESS_TEST_MARK={uuid.uuid4()}")

    def line(self, *words: str) -> list[str]:
        here = f"--wdns={self.here}"
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", f"--mount=/proc/{self.pid}/ns/mnt", here, "--", *words]

    def state(self) -> dict[str, str]:
        """Everything about it that a command might change."""
        found = {}
        for name, command in LOOK.items():
            done = subprocess.run(
                self.line("sh", "-c", command), capture_output=True, text=True, timeout=HANG, check=True
            )
            # lifetimes run down by themselves
            found[name] = "\n".join(line.split(" expires ")[0] for line in done.stdout.splitlines())
        found["working directory"] = "\n".join(sorted(str(path) for path in self.here.rglob("*")))
        return found

    @property
    def environment(self) -> dict[str, str]:
        name, _, value = self.mark.partition("=")
        own = {name: value, "HOME": str(self.home), "HITLESS_RUNTIME_DIR": str(self.home / "labs")}
        return {**os.environ, **own, "XDG_STATE_HOME": "", "TMPDIR": str(self.home)}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A hitless command, in the machine, its output in the home folder's ``out``."""
        with (self.home / "out").open("w") as out:
            return subprocess.Popen(
                self.line(*HITLESS, *words), stdout=out, stderr=subprocess.PIPE, text=True, env=self.environment,
                # a shell in the background may have told us to ignore it
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
            )  # fmt: skip

    @property
    def out(self) -> str:
        """What the last command that was started wrote so far."""
        return (self.home / "out").read_text()

    def hitless(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A hitless command, to its end."""
        with self.start(*words) as process:
            _, err = process.communicate(timeout=HANG)
        return subprocess.CompletedProcess(words, process.returncode, self.out, err)

    def quiet(self) -> None:
        """Wait until nothing of the commands runs any more."""
        until(lambda: not left(self.mark), f"the end of {left(self.mark)}")


@contextmanager
def standing_machine(folder: Path) -> Iterator[Machine]:
    """The machine, for as long as the block runs."""
    here, home = folder / "here", folder / "home"
    here.mkdir()
    home.mkdir()
    script = f"{SET_UP}\necho up\nexec sleep infinity"
    with subprocess.Popen(["unshare", "-n", "-m", "sh", "-c", script], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n", "the machine could not be set up"
            machine = Machine(process.pid, here, home)
            try:
                yield machine
            finally:
                machine.hitless("lab", "down", "--all")  # a test that failed in the middle leaves none behind
        finally:
            process.kill()
