"""Starts an agent for the supervisor, as a container in a node, and reads its output. Tests replace this port.

Promise: when its first process ends, everything that it started is ended (``hitless.kernel.subreaper``), as with the
kubelet's containers; only then ``wait`` returns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from hitless.errors import ProgramError
from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace

__all__ = ["Launch", "RunningProgram", "launch"]

_LONGEST_LINE = 1 << 16
_OUTPUT_WITHIN = 0.2  # seconds after its end


class RunningProgram(Protocol):
    """A process that was started, and all that it starts."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int:
        """Its exit code, negative for a signal; may be called several times."""
        ...

    def signal(self, number: int) -> None:
        """Send a signal to this process only; nothing happens when it has ended."""
        ...

    def kill(self) -> None:
        """SIGKILL for it and for everything that it started; nothing happens when all have ended."""
        ...


class Launch(Protocol):
    """Starts a program in a namespace; ``receive`` gets its output line by line."""

    async def __call__(
        self,
        command: Sequence[str],
        namespace: Namespace,
        environment: Mapping[str, str],
        receive: Callable[[str], None],
    ) -> RunningProgram: ...


class _Process:
    """A process and the reading end of its output.

    The pipe is ours and not asyncio's, for which a process has not ended before its pipes are closed: another process
    that inherited its output may hold them open.
    """

    def __init__(
        self,
        reaper: asyncio.subprocess.Process,
        pid: int,
        output: asyncio.StreamReader,
        pipe: asyncio.ReadTransport,
    ) -> None:
        self._reaper = reaper
        self._pid = pid
        self._output = output
        self._pipe = pipe
        self._reader: asyncio.Task[None] | None = None

    def read(self, receive: Callable[[str], None]) -> None:
        """Begin to read its output."""
        self._reader = asyncio.create_task(self._read(receive))

    @property
    def pid(self) -> int:
        return self._pid

    async def _read(self, receive: Callable[[str], None]) -> None:
        while True:
            try:
                line = await self._output.readline()
            except ValueError:  # a line longer than the limit: asyncio has discarded it
                receive("(a line longer than 64 KiB)")
                continue
            if not line:
                return
            receive(line.decode("utf-8", "replace").rstrip("\n"))

    async def wait(self) -> int:
        code = await self._reaper.wait()
        # its last lines are in the pipe
        if self._reader is not None:
            await asyncio.wait({self._reader}, timeout=_OUTPUT_WITHIN)
        self._pipe.close()
        return code

    def signal(self, number: int) -> None:
        if self._reaper.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)  # at once; the subreaper needs longer to find the others
        processes.send(self._reaper, signal.SIGTERM)


async def launch(
    command: Sequence[str],
    namespace: Namespace,
    environment: Mapping[str, str],
    receive: Callable[[str], None],
) -> RunningProgram:
    """Start it; raises ``MissingError`` or ``ProgramError`` when it cannot be started."""
    loop = asyncio.get_running_loop()
    ours, theirs = os.pipe()
    output = asyncio.StreamReader(limit=_LONGEST_LINE, loop=loop)
    pipe, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(output, loop=loop), os.fdopen(ours, "rb", buffering=0)
    )
    try:
        reaper, pid = await processes.start_contained(
            command, namespace=namespace, output=theirs, environment=environment
        )
    except BaseException as error:
        pipe.close()
        if isinstance(error, OSError):
            raise ProgramError(command, -1, error.strerror or str(error)) from error
        raise
    finally:
        os.close(theirs)
    running = _Process(reaper, pid, output, pipe)
    running.read(receive)
    return running
