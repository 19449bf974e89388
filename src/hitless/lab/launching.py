"""Starting an agent for the supervisor: a process group in a node, its output by lines. The port that tests replace."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from hitless.errors import ProgramError
from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace

__all__ = ["Launch", "Running", "launch"]

_LONGEST_LINE = 1 << 16
_LAST_WORDS_WITHIN = 0.2  # seconds after its end


class Running(Protocol):
    """A process that was started; it leads a group of its own."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int:
        """Its exit code, negative for a signal; may be asked again, and by several."""
        ...

    def signal(self, number: int, *, group: bool) -> None:
        """Send it a signal, or to everything that it started as well; nothing happens when there is nobody left."""
        ...


class Launch(Protocol):
    """Starts a program in a namespace; ``hear`` gets its output line by line."""

    async def __call__(
        self,
        command: Sequence[str],
        namespace: Namespace,
        environment: Mapping[str, str],
        hear: Callable[[str], None],
    ) -> Running: ...


class _Process:
    """A process and the reading end of its output.

    The pipe is ours and not asyncio's: there, a process has not ended before its pipes are closed, and a daemon that it
    left behind holds them open.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, output: asyncio.StreamReader, pipe: asyncio.ReadTransport
    ) -> None:
        self._process = process
        self._output = output
        self._pipe = pipe
        self._reader: asyncio.Task[None] | None = None

    def read(self, hear: Callable[[str], None]) -> None:
        """Begin to hear what it says."""
        self._reader = asyncio.create_task(self._read(hear))

    @property
    def pid(self) -> int:
        return self._process.pid

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
        code = await self._process.wait()
        # what it said last is in the pipe; its children may hold the other end open for longer than we care
        if self._reader is not None:
            await asyncio.wait({self._reader}, timeout=_LAST_WORDS_WITHIN)
        self._pipe.close()
        return code

    def signal(self, number: int, *, group: bool) -> None:
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(self.pid, number)
            elif self._process.returncode is None:
                os.kill(self.pid, number)


async def launch(
    command: Sequence[str],
    namespace: Namespace,
    environment: Mapping[str, str],
    hear: Callable[[str], None],
) -> Running:
    """Start it for real; raises ``MissingError`` or ``ProgramError`` when it cannot be started."""
    loop = asyncio.get_running_loop()
    ours, theirs = os.pipe()
    output = asyncio.StreamReader(limit=_LONGEST_LINE, loop=loop)
    pipe, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(output, loop=loop), os.fdopen(ours, "rb", buffering=0)
    )
    try:
        process = await processes.start_async(
            command,
            namespace=namespace,
            stdout=theirs,
            stderr=processes.STDOUT,
            environment=environment,
            new_session=True,
        )
    except BaseException as error:
        pipe.close()
        if isinstance(error, OSError):
            raise ProgramError(command, -1, error.strerror or str(error)) from error
        raise
    finally:
        os.close(theirs)
    running = _Process(process, output, pipe)
    running.read(hear)
    return running
