"""``python -m tools.real_cluster``: start, use and stop a real Kubernetes on this machine. See CONTRIBUTING.md.

up                 build or find the programs, start the control plane, two nodes and a Canal with the real flanneld
test               up, then every part (doctor, tests/cluster, drills, the agent in flanneld's place, rollouts), a
                   table, down; a cluster that is up already is used as it is, and stays up
kubectl ARGUMENTS  kubectl as administrator
shell [NODE]       a shell in the control plane's network namespace, or on a node
down               stop everything and remove the namespaces
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tools.real_cluster import background, binaries, canal, certificates, checks, control_plane, images, node
from tools.real_cluster.folder import NAMESPACE, ROOT, Folder, default, fail, need, say, within

_PROGRAMS = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "openssl": "openssl",
    "conntrack": "conntrack",
    "cc": "gcc",
    "ip": "iproute2",
    "nsenter": "util-linux",
}
_PLUGIN = "/usr/lib/cni/ptp"
_MOST_NODES = 9


def main() -> int:
    options = _options()
    os.environ["PATH"] = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"
    if os.geteuid() != 0:
        fail("it makes namespaces, mounts and cgroups: run it as root")
    folder = Folder(options.folder)
    nodes = [node.Node(folder, number) for number in range(1, options.nodes + 1)]
    match options.what:
        case "up":
            _up(folder, nodes, options)
            say(f"KUBECONFIG={folder.kubeconfig}, inside: nsenter --net=/run/netns/{NAMESPACE}")
        case "down":
            _down(folder)
        case "kubectl":
            done = folder.kubectl(*options.arguments, check=False)
            sys.stdout.write(done.stdout)
            sys.stderr.write(done.stderr)
            return done.returncode
        case "shell":
            where = options.arguments[0] if options.arguments else ""
            there = next((one for one in nodes if one.name == where), None)
            shell = os.environ.get("SHELL", "/bin/bash")
            command = there.inside(shell) if there else within(NAMESPACE, [shell])
            os.environ["KUBECONFIG"] = str(folder.kubeconfig)
            os.execvp(command[0], command)
        case "test":
            if _is_up(folder, nodes):
                say("it is up already: used as it is, with its images, flanneld and kube-proxy, and left up")
                return checks.run_all(folder, nodes, options.only)
            try:
                _up(folder, nodes, options)
                return checks.run_all(folder, nodes, options.only)
            finally:
                if not options.keep:
                    _down(folder)
    return 0


def _is_up(folder: Folder, nodes: list[node.Node]) -> bool:
    """Whether all its programs run; when only some do, it ends here, before anything is written."""
    names = [*control_plane.PARTS, *(f"{one.name}-{part}" for one in nodes for part in node.PARTS)]
    running = [name for name in names if background.alive(folder, name)]
    if running and len(running) < len(names):
        missing = ", ".join(name for name in names if name not in running)
        fail(f"it is up in part ({missing} not running): down first, or name the --nodes that it has")
    return bool(running)


def _options() -> argparse.Namespace:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--folder", type=Path, default=default(), help="default: %(default)s")
    shared.add_argument("--nodes", type=int, default=2, help=f"1 to {_MOST_NODES}, default: 2")
    making = argparse.ArgumentParser(add_help=False)
    making.add_argument("--proxy-mode", default="iptables", choices=["iptables", "nftables", "ipvs"])
    making.add_argument("--flannel", default=binaries.FLANNEL, metavar="VERSION", help="default: %(default)s")
    making.add_argument("--nftables", action="store_true", help="flannel in its nftables mode")
    making.add_argument("--no-agent", action="store_true", help="without a network agent")
    parser = argparse.ArgumentParser(
        prog="real_cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="what", required=True, metavar="up|test|kubectl|shell|down")
    commands.add_parser("up", parents=[shared, making], help="start it")
    test = commands.add_parser("test", parents=[shared, making], help="start it, run what proves it, stop it")
    test.add_argument("--keep", action="store_true", help="leave the cluster up")
    names = [part.name for part in checks.PARTS]
    test.add_argument("--only", nargs="+", default=(), choices=names, help="these parts alone (default: all)")
    commands.add_parser("down", parents=[shared], help="stop it")
    for name, what in (("kubectl", "its arguments"), ("shell", "a node's name, e.g. node1")):
        more = commands.add_parser(name, parents=[shared], help=f"with {what}")
        more.add_argument("arguments", nargs=argparse.REMAINDER, help=what)
    options = parser.parse_args()
    if not 1 <= options.nodes <= _MOST_NODES:
        parser.error(f"--nodes {options.nodes} (expected 1 to {_MOST_NODES})")
    return options


def _up(folder: Folder, nodes: list[node.Node], options: argparse.Namespace) -> None:
    begun = time.monotonic()
    if _is_up(folder, nodes):
        fail("it is up already: down first (test uses it as it is)")
    need(_PROGRAMS)
    if not Path(_PLUGIN).exists():
        fail("the CNI plugins are missing: apt-get install containernetworking-plugins")
    binaries.kubernetes(folder)
    flanneld = binaries.flanneld(folder, options.flannel)
    images.make(folder, flanneld, options.flannel)
    token = certificates.make(folder, [(one.name, one.address) for one in nodes])
    control_plane.start(folder, token)
    for one in nodes:
        node.start(one, options.proxy_mode)
    if not options.no_agent:
        canal.install(folder, options.flannel, nftables=options.nftables)
    say(f"up after {time.monotonic() - begun:.0f} s")


def _down(folder: Folder) -> None:
    for number in range(1, _MOST_NODES + 1):
        one = node.Node(folder, number)
        if (folder.path / "nodes" / one.name).exists():
            _surely(partial(node.stop, one), one.name)
    _surely(partial(control_plane.stop, folder), "the control plane")
    say("down")


def _surely(stop: Callable[[], None], what: str) -> None:
    """A stop that breaks off is tried once more, and leaves no other part running."""
    for _ in range(2):
        try:
            stop()
        except Exception as error:  # noqa: BLE001 - the border of a part: the others are stopped all the same
            say(f"{what} was not stopped whole: {type(error).__name__}: {error}")
        else:
            return


if __name__ == "__main__":
    sys.exit(main())
