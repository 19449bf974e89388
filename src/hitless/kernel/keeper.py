"""The keeper: one process that holds namespaces open, so that they vanish when it dies, however it dies.

Problem: named namespaces (``ip netns``) are mounts in the machine's own /run/netns; they outlive a crash and are
visible to all programs. Promise: a namespace made here has no name anywhere; it is an open file of this process,
reached as /proc/PID/fd/N, and the kernel frees it with the process, SIGKILL included. Everything happens below a
private mount namespace with a tmpfs of its own on /run (xtables.lock, /run/flannel); a process without the capabilities
enters a user namespace first, so that it works for root and ordinary users alike. The keeper runs only programs that
are requested: it answers requests, one JSON object a line, on standard input, and ends when that is closed (its parent
is gone), unless it was started with the option to stay. Client: ``hitless.lab.keeper_client``.

Run as ``python -P -m hitless.kernel.keeper``; it must stay single-threaded and light.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hitless.errors import HitlessError, KernelError, MissingError
from hitless.kernel.namespaces import CLONE_NEWNET, CLONE_NEWNS, setns, unshare
from hitless.kernel.privileges import enter_user_namespace, privileged

__all__ = ["main"]

_MS_NOSUID, _MS_NODEV, _MS_BIND = 2, 4, 4096
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    if libc.mount(*encoded, ctypes.c_ulong(flags), None if data is None else data.encode()) != 0:
        raise KernelError("mount", f"{kind or source} on {target}", ctypes.get_errno())


def _private_run(shared: str = "") -> None:
    """A /run of our own; but the folder ``shared`` in it stays the one that was there (and is made if it was not)."""
    there = -1
    if shared:
        Path(shared).mkdir(mode=0o755, parents=True, exist_ok=True)
        there = os.open(shared, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _mount("tmpfs", "/run", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=512m")
        if shared:
            Path(shared).mkdir(mode=0o755, parents=True)
            _mount(f"/proc/self/fd/{there}", shared, None, _MS_BIND)
    finally:
        if shared:
            os.close(there)


def _show_instead(programs: Mapping[str, str]) -> None:
    """In this mount namespace, show other programs at some paths: each folder concerned becomes one of links.

    A link keeps the name by which it is called: iptables' programs choose their function by that.
    """
    folders = sorted({str(Path(path).parent) for path in programs})
    for number, folder in enumerate(folders):
        real, shown = Path(f"/run/hitless/programs/{number}"), Path(f"/run/hitless/shown/{number}")
        for made in (real, shown):
            made.mkdir(parents=True)
        _mount(folder, str(real), None, _MS_BIND)
        for entry in sorted(real.iterdir()):
            target = Path(programs.get(f"{folder}/{entry.name}", f"{folder}/{entry.name}"))
            if target.parent == Path(folder):
                kept = real / target.name
                led = kept.readlink() if kept.is_symlink() else Path(target.name)
                # a link such as ../bin/NAME would lead elsewhere from the bound folder
                target = Path(os.path.normpath(target.parent / led)) if len(led.parts) > 1 else kept
            (shown / entry.name).symlink_to(target)
        _mount(str(shown), folder, None, _MS_BIND)


def _open(path: str) -> int:
    # not inherited: a child that kept it would keep the namespace alive after us
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class _Keeper:
    """The namespaces that are kept, and the requests about them."""

    def __init__(self) -> None:
        user_namespace = not privileged()
        if user_namespace:
            enter_user_namespace()
        # a network namespace of its own to come back to: from inside a user namespace the machine's is out of reach
        unshare(CLONE_NEWNS | CLONE_NEWNET)
        _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
        _private_run()
        self.base = _open("/proc/self/ns/mnt")
        self.base_root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.home = _open("/proc/self/ns/net")
        self.user_namespace = user_namespace

    def hello(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "user": self.user_namespace,
            "mnt": self.base,
            "root": self.base_root,
            "mnt_inode": os.fstat(self.base).st_ino,
        }

    def make(
        self, *, mount: bool, sysctls: Mapping[str, str], programs: Mapping[str, str], shared: str
    ) -> dict[str, Any]:
        """A new network namespace, with ``sysctls`` (paths below /proc/sys) written in it before it has a link.

        With ``mount`` a mount namespace too, in which ``programs`` are others than on the machine, and whose /run is
        its own but for the folder ``shared``, which all have in common.
        """
        mnt, root = self.base, self.base_root
        if mount:
            unshare(CLONE_NEWNS)
            try:
                _private_run(shared)
                _show_instead(programs)
                mnt, root = _open("/proc/self/ns/mnt"), os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            finally:
                setns(self.base, CLONE_NEWNS)
        unshare(CLONE_NEWNET)
        try:
            net = _open("/proc/self/ns/net")
            missing = []
            for path, value in sysctls.items():
                try:
                    # /proc/sys/net shows the namespace of the process that opens the file
                    Path("/proc/sys", path).write_text(value)
                except FileNotFoundError:
                    missing.append(path)
                except OSError as error:
                    raise KernelError("write", f"/proc/sys/{path}", error.errno or 0) from error
        finally:
            setns(self.home, CLONE_NEWNET)
        return {"net": net, "mnt": mnt, "root": root, "inode": os.fstat(net).st_ino, "missing": missing}

    def spawn(self, argv: list[str], environment: dict[str, str], stdin: str, log: str) -> dict[str, Any]:
        """Start a program that dies with the keeper, in the base namespaces, its output appended to its /run's ``log``.

        It gets what it needs on ``stdin``, because it does not see the machine's own /run.
        """
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
                out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                standard_input = os.memfd_create("stdin")
                os.write(standard_input, stdin.encode())
                os.lseek(standard_input, 0, os.SEEK_SET)
                for source, target in ((standard_input, 0), (out, 1), (out, 2)):
                    os.dup2(source, target)
                os.execvpe(argv[0], argv, {**os.environ, **environment})
            finally:
                os._exit(127)
        return {"pid": child}


def _answer(keeper: _Keeper, request: dict[str, Any]) -> dict[str, Any]:
    try:
        match request["do"]:
            case "make":
                wanted = {key: request[key] for key in ("mount", "sysctls", "programs", "shared")}
                return keeper.make(**wanted)
            case "spawn":
                return keeper.spawn(request["argv"], request["environment"], request["stdin"], request["log"])
            case other:
                raise KernelError("answer", f"request {other}")
    except MissingError as error:
        return {"missing": str(error).removesuffix(f"; {error.remedy}"), "remedy": error.remedy}
    except KernelError as error:
        return {"refused": [error.operation, error.object, error.errno]}
    except OSError as error:
        return {"refused": ["do", str(request.get("do")), error.errno or 0]}


def _reap(_number: int, _frame: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _stay() -> None:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    while True:
        signal.pause()


def main() -> int:
    """Serve requests until standard input closes; ``stay`` cuts the keeper loose from its maker."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, b"hitless-keeper", 0, 0, 0)
    signal.signal(signal.SIGCHLD, _reap)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the maker, who then closes our standard input
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def say(answer: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    # three open files per node and one per pod: a big lab needs more than the usual 1,024
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        keeper = _Keeper()
    except MissingError as error:
        say({"missing": str(error).removesuffix(f"; {error.remedy}"), "remedy": error.remedy})
        return 3
    except HitlessError as error:
        say({"refused": ["make", f"namespaces: {error}", 0]})
        return 3
    say(keeper.hello())
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "stay":
            say({})
            _stay()
        say(_answer(keeper, request))
    return 0


if __name__ == "__main__":
    sys.exit(main())
