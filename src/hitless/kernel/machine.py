"""What this machine is, for the record: a figure without it can neither be repeated nor compared.

Promise: facts that the kernel and the installed programs tell, each empty where it cannot be had; nothing is changed,
no name is looked up. ``whole`` also asks iptables and nft for their versions (two programs, some ms); ``kernel`` asks
nobody, and leaves the host's name out: tools in pods and namespaces write it into their headers.
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
    told = os.uname()
    return Machine(kernel=told.release, arch=told.machine, cpus=len(os.sched_getaffinity(0)), cpu=_model())


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
    """What the first of the programs that is there says: ``1.8.9 (nf_tables)``."""
    from hitless.kernel import processes  # the tools ask for no version, and start the faster without it

    for name in names:
        try:
            said = processes.run([processes.program(name), "--version"], timeout=5).stdout
        except HitlessError:
            continue
        found = re.search(r"v(\d\S*(?: \((?:nf_tables|legacy)\))?)", said)
        if found:
            return found[1]
    return ""
