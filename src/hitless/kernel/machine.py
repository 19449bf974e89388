"""The machine on which figures were measured: without it they can neither be repeated nor compared.

Promise: facts from the kernel and the installed programs, each empty where it is not known; nothing is changed, and no
name is resolved. ``whole`` also runs iptables and nft for their versions (some ms); ``kernel`` runs no program and
leaves the host's name out: tools in pods and namespaces write it into their headers.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from hitless.errors import HitlessError
from hitless.model.events import Machine

__all__ = ["kernel", "whole"]


def kernel() -> Machine:
    """Kernel and processors."""
    found = os.uname()
    return Machine(kernel=found.release, arch=found.machine, cpus=len(os.sched_getaffinity(0)), cpu=_model())


def whole() -> Machine:
    """All that is known of this machine, its name too."""
    here = kernel()
    return Machine(
        host=os.uname().nodename,
        kernel=here.kernel,
        arch=here.arch,
        cpus=here.cpus,
        cpu=here.cpu,
        os=_system(),
        iptables=_version("iptables", "iptables-nft", "iptables-legacy"),
        nft=_version("nft"),
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _model() -> str:
    found = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else ""


def _system() -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]+)"?$', _read("/etc/os-release"), re.MULTILINE)
    return found[1] if found else ""


def _version(*names: str) -> str:
    """The version of the first of these programs that is installed: ``1.8.9 (nf_tables)``."""
    from hitless.kernel import processes  # imported only here: tools that need no versions start faster

    for name in names:
        try:
            output = processes.run([processes.program(name), "--version"], timeout=5).stdout
        except HitlessError:
            continue
        found = re.search(r"v(\d\S*(?: \((?:nf_tables|legacy)\))?)", output)
        if found:
            return found[1]
    return ""
