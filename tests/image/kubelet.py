"""A kubelet's words to a real containerd: pods by their manifests, through the runtime's own interface (CRI).

The containerd runs inside a lab's node, so that "the host's network" is the node's, with files of its own. What a
kubelet would fill in (masked paths, seccomp's default, no-new-privs, groups, volumes) is filled in here; what the
runtime makes of it is real. Field numbers are those of ``runtime.v1`` of the CRI.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
from tests.image import cgroups

from hitless import lab
from hitless.kernel import processes

Document = dict[str, Any]
Message = dict[int, Any]

PROGRAMS = ("containerd", "ctr", "containerd-shim-runc-v2", "runc")
EXITED = 2
CGROUP = f"hitless-test-{os.getpid()}"
_POD, _OWN, _NODE = 0, 1, 2  # NamespaceMode
_UNCONFINED = 1
_MASKED = (
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"),
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

LOOPBACK = """#!/bin/sh
cat > /dev/null
[ "$CNI_COMMAND" = ADD ] || exit 0
nsenter "--net=$CNI_NETNS" ip link set lo up
echo '{"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "127.0.0.1/8"}]}'
"""
PLUGIN = """#!/bin/sh
# a link and a host route for each pod; not by the name of Calico's, whose rules drop what they do not know
cat > /dev/null
[ "$CNI_COMMAND" = ADD ] || exit 0
set -e
number=$(ls "$0.used" | wc -l); touch "$0.used/$number"
address=SUBNET.$((100 + number)); link=veth$number
ip link add "$link" address ee:ee:ee:ee:ee:ee type veth peer name "$CNI_IFNAME" netns "$CNI_NETNS"
ip link set "$link" up
ip route add "$address/32" dev "$link"
nsenter "--net=$CNI_NETNS" sh -c "ip link set $CNI_IFNAME up; ip addr add $address/32 dev $CNI_IFNAME
  ip route add 169.254.1.1 dev $CNI_IFNAME; ip route add default via 169.254.1.1
  ip neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev $CNI_IFNAME nud permanent"
echo '{"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "'"$address"'/32"}]}'
"""
CONFIG = """version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/socket"
[ttrpc]
  address = "{folder}/ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{folder}/cni"
  conf_dir = "{folder}/net.d"
"""


def programs() -> dict[str, str]:
    """Where containerd's programs are: beside this Python (tools/setup puts them there) or in PATH."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
    return {name: found for name in PROGRAMS if (found := shutil.which(name, path=path))}


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode(message: Message) -> bytes:
    """A protobuf message by field numbers: numbers, texts, messages, and lists of those."""
    out = b""
    for field, given in message.items():
        for value in given if isinstance(given, list | tuple) else [given]:
            if isinstance(value, int):
                out += _varint(field << 3) + _varint(int(value))
            else:
                data = encode(value) if isinstance(value, dict) else str(value).encode()
                out += _varint(field << 3 | 2) + _varint(len(data)) + data
    return out


def decode(data: bytes) -> dict[int, list[Any]]:
    """The fields of a protobuf message: numbers, and bytes of everything else."""
    found: dict[int, list[Any]] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            value: Any = number()
        else:
            assert tag & 7 == 2, f"wire type {tag & 7}"
            length = number()
            value = data[at : at + length]
            at += length
        found.setdefault(tag >> 3, []).append(value)
    return found


def call(path: Path, method: str, request: Message) -> dict[int, list[Any]]:
    """One call of gRPC without streams."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(path))
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        headers = {":method": "POST", ":scheme": "http", ":authority": "localhost", ":path": f"/runtime.v1.{method}"}
        connection.send_headers(1, [*(headers | {"content-type": "application/grpc", "te": "trailers"}).items()])
        body = encode(request)
        connection.send_data(1, struct.pack(">BI", 0, len(body)) + body, end_stream=True)
        answer = b""
        told: dict[str, str] = {}
        ended = False
        while not ended:
            sock.sendall(connection.data_to_send())
            data = sock.recv(65536)
            assert data, f"{method}: containerd closed the connection"
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    answer += event.data or b""
                    connection.acknowledge_received_data(event.flow_controlled_length or 0, 1)
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    told |= {str(name): str(value) for name, value in event.headers or ()}
                ended = ended or isinstance(event, h2.events.StreamEnded | h2.events.StreamReset)
    assert told.get("grpc-status") == "0", f"{method}: {unquote(told.get('grpc-message', 'no status'))}"
    return decode(answer[5:])


@dataclass
class Running:
    """A pod that runs: its one container, and what it takes to start that again."""

    pod: Document
    sandbox: str
    config: Message
    address: str
    container: str = ""
    attempt: int = 0


class Kubelet:
    """A containerd in ``node`` and the part of a kubelet that speaks to it."""

    def __init__(self, node: lab.LabNode, folder: Path, pause: str) -> None:
        self.node, self.folder, self.socket = node, folder, folder / "socket"
        found = programs()
        self.path = ":".join(dict.fromkeys(str(Path(one).parent) for one in found.values())) + f":{os.environ['PATH']}"
        subnet = ".".join(str(next(iter(node.subnets.values()))).split(".")[:3])
        for name, text in (("loopback", LOOPBACK), ("lab", PLUGIN.replace("SUBNET", subnet))):
            (folder / "cni" / f"{name}.used").mkdir(parents=True)
            (folder / "cni" / name).write_text(text)
            (folder / "cni" / name).chmod(0o755)
        (folder / "net.d").mkdir()
        network = {"cniVersion": "0.4.0", "name": "lab", "plugins": [{"type": "lab"}]}
        (folder / "net.d/lab.conflist").write_text(json.dumps(network))
        (folder / "config.toml").write_text(CONFIG.format(folder=folder, pause=pause))
        with (folder / "log").open("wb") as log:
            self.process = processes.start(
                [found["containerd"], "--config", str(folder / "config.toml")],
                namespace=node.namespace,
                environment={"PATH": self.path},
                stdout=log,
                stderr=log,
            )
        self.ctr_program = found["ctr"]
        for _ in self.patience("containerd's start"):
            if b"successfully booted" in (folder / "log").read_bytes():
                break
            assert self.process.poll() is None, (folder / "log").read_text()
        self.pods: list[Running] = []

    @staticmethod
    def patience(what: str, seconds: float = 60.0) -> Iterator[None]:
        """Turns of a wait that ends with a failure."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            yield
            time.sleep(0.05)
        raise AssertionError(f"{what} did not happen within {seconds:g} s")

    def ctr(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [self.ctr_program, "-a", str(self.socket), "-n", "k8s.io", *words]
        return processes.run(command, namespace=self.node.namespace, environment={"PATH": self.path}, check=check)

    def image(self, name: str) -> tuple[str, int]:
        """The id of an image and its user, asked for as a pod's manifest names it; "" when it is not there."""
        found = call(self.socket, "ImageService/ImageStatus", {1: {1: name}})
        if 1 not in found:
            return "", 0
        image = decode(found[1][0])
        user = decode(image[5][0]) if 5 in image else {}
        return image[1][0].decode(), user.get(1, [0])[0]

    def start(self, pod: Document) -> Running:
        """Run a pod of one container; its image must be there, as with the pull policy Never."""
        spec, metadata = pod["spec"], pod["metadata"]
        metadata.setdefault("uid", f"uid-{metadata['name']}")
        security = spec.get("securityContext", {})
        container = spec["containers"][0]
        privileged = container["securityContext"].get("privileged", False)
        inside: Message = {1: self._namespaces(spec), 6: privileged, 9: {}}
        inside |= {
            number: {1: security[name]} for number, name in ((3, "runAsUser"), (8, "runAsGroup")) if name in security
        }
        host = spec.get("hostNetwork", False)
        sysctls = [{1: one["name"], 2: one["value"]} for one in security.get("sysctls", ())]
        config: Message = {
            1: {1: metadata["name"], 2: metadata["uid"], 3: metadata.get("namespace", "default")},
            2: "" if host else metadata["name"],
            3: str(self.folder / "logs" / metadata["uid"]),
            8: {1: f"/{CGROUP}", 2: inside, 3: sysctls},
        }
        (self.folder / "logs").mkdir(exist_ok=True)
        sandbox = call(self.socket, "RuntimeService/RunPodSandbox", {1: config})[1][0].decode()
        address = str(self.node.address)
        if not host:
            status = decode(call(self.socket, "RuntimeService/PodSandboxStatus", {1: sandbox})[1][0])
            address = decode(status[5][0])[1][0].decode()
        running = Running(pod, sandbox, config, address)
        self.pods.append(running)
        self.start_again(running)
        return running

    @staticmethod
    def _namespaces(spec: Document) -> Message:
        return {1: _NODE if spec.get("hostNetwork") else _POD, 2: _NODE if spec.get("hostPID") else _OWN, 3: _POD}

    def start_again(self, running: Running) -> None:
        """The pod's container, once more after its end."""
        if running.container:
            running.attempt += 1
        spec, metadata = running.pod["spec"], running.pod["metadata"]
        container = spec["containers"][0]
        image, user = self.image(container["image"])
        assert image, f"ErrImageNeverPull: {container['image']}"
        both = {**spec.get("securityContext", {}), **container["securityContext"]}
        capabilities = both.get("capabilities", {})
        security: Message = {
            1: {1: [*capabilities.get("add", ())], 2: [*capabilities.get("drop", ())]},
            2: both.get("privileged", False),
            3: self._namespaces(spec),
            5: {1: both.get("runAsUser", user)},
            7: both.get("readOnlyRootFilesystem", False),
            8: [both["fsGroup"]] if "fsGroup" in both else [],
            11: both.get("allowPrivilegeEscalation") is False,
            15: {1: _UNCONFINED if both.get("seccompProfile", {}).get("type") is None else 0},
        }
        if "runAsGroup" in both:
            security[12] = {1: both["runAsGroup"]}
        if not both.get("privileged"):
            security |= {13: [*_MASKED], 14: [*_READ_ONLY]}
        environment = self._environment(container, running.address, str(spec.get("nodeName", "")))

        def put_in(words: Sequence[str]) -> list[str]:
            for key, value in environment.items():
                words = [word.replace(f"$({key})", value) for word in words]
            return list(words)

        config: Message = {
            1: {1: container["name"], 2: running.attempt},
            2: {1: image, 18: container["image"]},
            3: put_in(container.get("command", ())),
            4: put_in(container.get("args", ())),
            6: [{1: key, 2: value} for key, value in environment.items()],
            7: self._mounts(spec, container, metadata["uid"]),
            9: [{1: "io.kubernetes.container.name", 2: container["name"]}],
            11: f"{running.attempt}.log",
            15: {1: {4: 512 << 20}, 2: security},
        }
        request = {1: running.sandbox, 2: config, 3: running.config}
        identity = call(self.socket, "RuntimeService/CreateContainer", request)[1][0].decode()
        call(self.socket, "RuntimeService/StartContainer", {1: identity})
        running.container = identity

    def _environment(self, container: Document, address: str, node: str) -> dict[str, str]:
        told = {"spec.nodeName": node, "status.podIP": address, "status.hostIP": str(self.node.address)}
        return {
            one["name"]: one["value"] if "value" in one else told[one["valueFrom"]["fieldRef"]["fieldPath"]]
            for one in container.get("env", ())
        }

    def _mounts(self, spec: Document, container: Document, uid: str) -> list[Message]:
        places: dict[str, str] = {}
        for volume in spec.get("volumes", ()):
            if "emptyDir" in volume:
                path = self.folder / "pods" / uid / volume["name"]
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(0o777)
                if (group := spec.get("securityContext", {}).get("fsGroup")) is not None:
                    os.chown(path, -1, group)
                    path.chmod(0o2777)
                places[volume["name"]] = str(path)
            else:
                told = volume["hostPath"]
                path = self.node.root / told["path"].lstrip("/")
                if told["type"] == "DirectoryOrCreate":
                    path.mkdir(parents=True, exist_ok=True)
                else:
                    assert told["type"] == "FileOrCreate"
                    path.touch()
                places[volume["name"]] = told["path"]
        return [
            {1: one["mountPath"], 2: places[one["name"]], 3: one.get("readOnly", False)}
            for one in container.get("volumeMounts", ())
        ]

    def state(self, container: str) -> tuple[int, int]:
        """The state and the exit code of a container."""
        status = decode(call(self.socket, "RuntimeService/ContainerStatus", {1: container})[1][0])
        return status.get(3, [0])[0], status.get(7, [0])[0]

    def exec(self, running: Running, *words: str) -> tuple[int, str, str]:
        """Exit code, output and errors of a command in the container, as an exec probe's."""
        request: Message = {1: running.container, 2: list(words), 3: 30}
        done = call(self.socket, "RuntimeService/ExecSync", request)
        out, error = (done.get(number, [b""])[0].decode() for number in (1, 2))
        return done.get(3, [0])[0], out, error

    def python(self, running: Running, script: str) -> str:
        """What a script says inside the container."""
        code, out, error = self.exec(running, "/usr/bin/python3", "-sP", "-c", script)
        assert code == 0, error
        return out

    def log(self, running: Running) -> str:
        return "".join(one.read_text() for one in (self.folder / "logs" / running.pod["metadata"]["uid"]).glob("*.log"))

    def stop(self, running: Running) -> int:
        """End the container within its pod's grace period; its exit code (137 when it had to be killed)."""
        grace = running.pod["spec"].get("terminationGracePeriodSeconds", 30)
        call(self.socket, "RuntimeService/StopContainer", {1: running.container, 2: grace})
        state, code = self.state(running.container)
        assert state == EXITED
        return code

    def close(self) -> None:
        """Take every pod away, and end containerd."""
        try:
            for running in self.pods:
                for method in ("StopPodSandbox", "RemovePodSandbox"):
                    call(self.socket, f"RuntimeService/{method}", {1: running.sandbox})
        finally:
            self.process.terminate()
            self.process.wait(30)
            cgroups.remove(CGROUP)


def status(text: str, names: Sequence[str]) -> Mapping[str, str]:
    """Some lines of a /proc/PID/status."""
    lines = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    return {name: lines[name].strip() for name in names}
