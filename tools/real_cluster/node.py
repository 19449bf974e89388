"""A node: containerd, kubelet and kube-proxy in a network and a mount namespace of their own.

Each node has its own /run, CNI folders and kubelet folders (bound below the cluster's folder), so that hostPath
volumes of different nodes do not meet and nothing of the machine is written. Pods are joined by the ptp plugin: a
veth and a host route each, as in Canal. Routes between nodes are the network agent's business.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.real_cluster import background, cgroups
from tools.real_cluster.folder import HUB, NAMESPACE, PODS, Folder, exists, fail, run, say, within
from tools.real_cluster.images import PAUSE

_OWN = ("/opt/cni", "/etc/cni", "/var/lib/cni", "/var/lib/kubelet", "/var/lib/calico", "/var/lib/hitless")
_OWN_LOGS = ("/var/log/containers", "/var/log/hitless")
PARTS = ("holder", "containerd", "kubelet", "kube-proxy")
"""The programs of a node."""

_PATIENCE = 90.0


@dataclass(frozen=True)
class Node:
    """Node ``number`` (from 1): its name, address and pod network follow from it."""

    folder: Folder
    number: int

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def address(self) -> str:
        return f"10.200.0.{self.number}"

    @property
    def namespace(self) -> str:
        return f"{NAMESPACE}-{self.name}"

    @property
    def home(self) -> Path:
        return self.folder.make("nodes", self.name)

    @property
    def socket(self) -> Path:
        return self.folder.make("run", self.name) / "containerd.sock"

    def inside(self, *command: str) -> list[str]:
        """A command in the node's network and mount namespaces."""
        pid = background.alive(self.folder, f"{self.name}-holder")
        return ["nsenter", f"--mount=/proc/{pid}/ns/mnt", f"--net=/run/netns/{self.namespace}", "--", *command]

    def ctr(self, *arguments: str, check: bool = True) -> str:
        """containerd's own client, in the kubelet's namespace of images."""
        return run(self.inside("ctr", "-a", str(self.socket), "-n", "k8s.io", *arguments), check=check).stdout


def start(node: Node, proxy_mode: str) -> None:
    """Make the node and wait until the API server says that it is ready."""
    folder = node.folder
    _links(node)
    cgroups.make(f"hitless-{node.name}")
    script = _enter_script(node)
    holder = ["unshare", "--mount", "--propagation", "private", "bash", str(script)]
    background.start(folder, f"{node.name}-holder", within(node.namespace, holder))
    ready = node.home / "bound"
    _until(ready.exists, node, "holder", "the node's mount namespace")
    shutil.copytree("/usr/lib/cni", node.home / "own/opt/cni/bin", dirs_exist_ok=True)
    _write_cni(node)
    config = node.home / "containerd.toml"
    config.write_text(_containerd(node))
    background.start(folder, f"{node.name}-containerd", node.inside("containerd", "--config", str(config)))
    _until(lambda: "Server" in node.ctr("version", check=False), node, "containerd", "containerd")
    for image in sorted(folder.images.glob("*.tar")):
        node.ctr("images", "import", str(image))
    kubelet = node.home / "kubelet.json"
    kubelet.write_text(json.dumps(_kubelet(node), indent=1))
    (node.home / "resolv.conf").write_text("")
    command = [str(folder.bin / "kubelet"), f"--config={kubelet}", f"--root-dir={node.home}/kubelet"]
    command += [f"--hostname-override={node.name}", f"--node-ip={node.address}", f"--cert-dir={node.home}/kubelet-pki"]
    command += [f"--kubeconfig={folder.pki}/kubelet-{node.name}.kubeconfig"]
    background.start(folder, f"{node.name}-kubelet", node.inside(*command))
    begun = time.monotonic()
    _until(lambda: _ready(node), node, "kubelet", f"{node.name} as Ready")
    say(f"{node.name} ready after {time.monotonic() - begun:.1f} s")
    proxy = node.home / "proxy.json"
    proxy.write_text(json.dumps(_proxy(node, proxy_mode), indent=1))
    command = [str(folder.bin / "kube-proxy"), f"--config={proxy}"]
    background.start(folder, f"{node.name}-kube-proxy", within(node.namespace, command))


def stop(node: Node) -> None:
    """End its kubelet, every container of its pods, containerd, and the namespaces."""
    folder = node.folder
    background.stop(folder, f"{node.name}-kubelet")
    background.stop(folder, f"{node.name}-kube-proxy")
    cgroups.kill(f"hitless-{node.name}")
    background.stop(folder, f"{node.name}-containerd")
    _end_shims(node)
    background.stop(folder, f"{node.name}-holder")
    cgroups.remove(f"hitless-{node.name}")
    if exists(node.namespace):
        run(["ip", "netns", "del", node.namespace], check=False)
    shutil.rmtree(folder.path / "nodes" / node.name, ignore_errors=True)
    shutil.rmtree(folder.path / "run" / node.name, ignore_errors=True)


def _links(node: Node) -> None:
    if exists(node.namespace):
        fail(f"the network namespace {node.namespace} is there already: down first")
    run(["ip", "netns", "add", node.namespace])
    run(["ip", "-n", node.namespace, "link", "set", "lo", "up"])
    link = f"to-{node.name}"
    peer = ["peer", "name", "eth0", "netns", node.namespace]
    run(["ip", "-n", NAMESPACE, "link", "add", link, "type", "veth", *peer])
    run(["ip", "-n", NAMESPACE, "link", "set", link, "master", "hub0", "up"])
    run(["ip", "-n", node.namespace, "link", "set", "eth0", "up"])
    run(["ip", "-n", node.namespace, "addr", "add", f"{node.address}/24", "dev", "eth0"])
    run(["ip", "-n", node.namespace, "route", "add", "default", "via", HUB])


def _enter_script(node: Node) -> Path:
    """Binds the node's own folders over the machine's inside the new mount namespace, then waits."""
    own = node.home / "own"
    lines = ["set -e", "mount --make-rprivate /", "mount -t tmpfs tmpfs /run", "mkdir -p /run/netns /run/containerd"]
    for place in (*_OWN, *_OWN_LOGS):
        (own / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
        lines += [f"mkdir -p {place}", f"mount --bind '{own}{place}' {place}"]
    lines += ["echo 1 > /proc/sys/net/ipv4/ip_forward", f"touch '{node.home}/bound'", "exec sleep infinity"]
    script = node.home / "enter.sh"
    script.write_text("\n".join(lines) + "\n")
    return script


def _write_cni(node: Node) -> None:
    subnet = f"10.88.{node.number - 1}.0/24"
    ipam = {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}], "ranges": [[{"subnet": subnet}]]}
    plugins = [{"type": "ptp", "ipMasq": False, "ipam": ipam}]
    ports = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    place = node.home / "own/etc/cni/net.d"
    place.mkdir(parents=True, exist_ok=True)
    whole = {"cniVersion": "0.4.0", "name": "pods", "plugins": [*plugins, ports]}
    (place / "10-ptp.conflist").write_text(json.dumps(whole))


def _containerd(node: Node) -> str:
    off = [f"io.containerd.snapshotter.v1.{one}" for one in ("btrfs", "zfs", "devmapper", "aufs")]
    return f"""version = 2
root = "{node.home}/containerd"
state = "{node.socket.parent}/containerd"
disabled_plugins = {json.dumps([*off, "io.containerd.internal.v1.opt"])}
[grpc]
  address = "{node.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def _kubelet(node: Node) -> dict[str, object]:
    pki = node.folder.pki
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "readOnlyPort": 0,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / f"kubelet-{node.name}.crt"),
        "tlsPrivateKeyFile": str(pki / f"kubelet-{node.name}.key"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/hitless-{node.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{node.socket}",
        "podLogsDir": str(node.home / "pods"),
        "clusterDomain": "cluster.local",
        "clusterDNS": ["10.96.0.10"],
        "resolvConf": str(node.home / "resolv.conf"),
        "enforceNodeAllocatable": ["pods"],
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "makeIPTablesUtilChains": False,
        "volumePluginDir": str(node.home / "plugins"),
        "maxPods": 120,
    }


def _proxy(node: Node, mode: str) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": "127.0.0.1",
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "hostnameOverride": node.name,
        "clusterCIDR": PODS,
        "mode": mode,
        "clientConnection": {"kubeconfig": str(node.folder.pki / "proxy.kubeconfig")},
        "conntrack": {"maxPerCore": 0, "min": 0},
    }


def _ready(node: Node) -> bool:
    path = "{.status.conditions[?(@.type=='Ready')].status}"
    return node.folder.kubectl("get", "node", node.name, f"-o=jsonpath={path}", check=False).stdout == "True"


def _until(true: Callable[[], bool], node: Node, part: str, what: str) -> None:
    end = time.monotonic() + _PATIENCE
    while not true():
        name = f"{node.name}-{part}"
        if not background.alive(node.folder, name):
            fail(f"{name} ended:\n  {background.last_words(node.folder, name)}")
        if time.monotonic() > end:
            fail(f"{what} is not there after {_PATIENCE:.0f} s; {node.folder.logs / name}.log says why")
        time.sleep(0.2)


def _end_shims(node: Node) -> None:
    """The shims outlive containerd on purpose; theirs are known by the socket in their arguments."""
    mark = f"\0-address\0{node.socket}\0".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if mark in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue  # it ended meanwhile
