"""Starting an agent for the supervisor: as a container in a node, its output by lines. The port that tests replace.

Promise: when its first process ends, so does everything that it started (``hitless.kernel.subreaper``), as with the
kubelet's containers; only then its end is told.
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
_LAST_WORDS_WITHIN = 0.2  # seconds after its end


class RunningProgram(Protocol):
    """A process that was started, and all that it starts."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int:
        """Its exit code, negative for a signal; may be asked again, and by several."""
        ...

    def signal(self, number: int) -> None:
        """Send it a signal, itself and nothing else; nothing happens when it has ended."""
        ...

    def kill(self) -> None:
        """SIGKILL for it and for everything that it started; nothing happens when there is nobody left."""
        ...


class Launch(Protocol):
    """Starts a program in a namespace; ``hear`` gets its output line by line."""

    async def __call__(
        self,
        command: Sequence[str],
        namespace: Namespace,
        environment: Mapping[str, str],
        hear: Callable[[str], None],
    ) -> RunningProgram: ...


class _Process:
    """A process and the reading end of its output.

    The pipe is ours and not asyncio's: there, a process has not ended before its pipes are closed, and somebody whom it
    handed its output to may hold them open.
    """

    def __init__(
        self,
        warden: asyncio.subprocess.Process,
        pid: int,
        output: asyncio.StreamReader,
        pipe: asyncio.ReadTransport,
    ) -> None:
        self._warden = warden
        self._pid = pid
        self._output = output
        self._pipe = pipe
        self._reader: asyncio.Task[None] | None = None

    def read(self, hear: Callable[[str], None]) -> None:
        """Begin to hear what it says."""
        self._reader = asyncio.create_task(self._read(hear))

    @property
    def pid(self) -> int:
        return self._pid

    async def _read(self, hear: Callable[[str], None]) -> None:
        while True:
            try:
                line = await self._output.readline()
            except ValueError:  # a line longer than the limit: asyncio has thrown it away
                hear("(a line longer than 64 KiB)")
                continue
            if not line:
                return
            hear(line.decode("utf-8", "replace").rstrip("\n"))

    async def wait(self) -> int:
        code = await self._warden.wait()
        # what it said last is in the pipe
        if self._reader is not None:
            await asyncio.wait({self._reader}, timeout=_LAST_WORDS_WITHIN)
        self._pipe.close()
        return code

    def signal(self, number: int) -> None:
        if self._warden.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)  # at once; the warden takes its time to look for the others
        processes.send(self._warden, signal.SIGTERM)


async def launch(
    command: Sequence[str],
    namespace: Namespace,
    environment: Mapping[str, str],
    hear: Callable[[str], None],
) -> RunningProgram:
    """Start it for real; raises ``MissingError`` or ``ProgramError`` when it cannot be started."""
    loop = asyncio.get_running_loop()
    ours, theirs = os.pipe()
    output = asyncio.StreamReader(limit=_LONGEST_LINE, loop=loop)
    pipe, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(output, loop=loop), os.fdopen(ours, "rb", buffering=0)
    )
    try:
        warden, pid = await processes.start_contained(
            command, namespace=namespace, output=theirs, environment=environment
        )
    except BaseException as error:
        pipe.close()
        if isinstance(error, OSError):
            raise ProgramError(command, -1, error.strerror or str(error)) from error
        raise
    finally:
        os.close(theirs)
    running = _Process(warden, pid, output, pipe)
    running.read(hear)
    return running
