"""All exception classes, as one tree.

Problem: a caller must be able to distinguish "the input is wrong" from "this machine cannot do it" without reading
text, and a user must learn what failed, where, why, and what to do. Promise: everything that hitless raises on purpose
is a ``HitlessError``; exceptions of other libraries are converted in the port that meets them (``raise ... from``). The
command line maps the classes to exit codes in one table (``hitless.cli.exits``).

    HitlessError
    ├── InputError           a flag, file or value given by the user is wrong
    ├── MissingError         this machine lacks a program, a kernel feature or a permission
    ├── KernelError          the kernel refused an operation; carries the kernel's message
    │   ├── NotFound         the object does not exist (real and fake kernels raise it alike)
    │   ├── AlreadyExists    the object exists already
    │   └── EventsLostError  the kernel dropped events: the known state is incomplete
    ├── ProgramError         a program that we ran failed; carries its command, exit code and standard error
    ├── ApiError             the Kubernetes API refused or could not be reached
    │   └── CommandFailed    a command in a pod failed
    ├── Displaced            another process took over this one's task: it must do nothing more
    └── Defect               a part of hitless failed with any other error; ``ours`` converts one
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AlreadyExists",
    "ApiError",
    "Defect",
    "Displaced",
    "EventsLostError",
    "HitlessError",
    "InputError",
    "KernelError",
    "MissingError",
    "NotFound",
    "ProgramError",
    "ours",
]


class HitlessError(Exception):
    """Base of all; ``str()`` is a message for users: what failed, where, why, what to do."""


class InputError(HitlessError):
    """Something given by the user is wrong.

    ``where`` names the file, flag, line or field; ``expected`` what would be right; ``remedy`` what to do.
    """

    def __init__(
        self, message: str, *, where: str | None = None, expected: str | None = None, remedy: str | None = None
    ) -> None:
        self.message = message  # what is wrong there, without the rest
        self.where = where
        self.expected = expected
        self.remedy = remedy
        text = f"{where}: {message}" if where else message
        text = f"{text} (expected {expected})" if expected else text
        super().__init__(f"{text}; {remedy}" if remedy else text)


class MissingError(HitlessError):
    """This machine lacks something; ``remedy`` says what to do."""

    def __init__(self, message: str, *, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(f"{message}; {remedy}")


class KernelError(HitlessError):
    """The kernel refused ``operation`` on ``object``; ``errno`` is the error number, 0 where there is none."""

    def __init__(self, operation: str, object: str, errno: int = 0, reason: str = "") -> None:
        import os

        self.operation = operation
        self.object = object
        self.errno = errno
        message = reason or (os.strerror(errno) if errno else "refused")
        super().__init__(f"{operation} {object}: {message}")


class NotFound(KernelError):
    """The object does not exist."""


class AlreadyExists(KernelError):
    """The object exists already."""


class EventsLostError(KernelError):
    """The kernel dropped events (ENOBUFS): everything must be read again."""


class ProgramError(HitlessError):
    """A program that we ran failed."""

    def __init__(self, command: Sequence[str], returncode: int, stderr: str) -> None:
        self.command = tuple(command)
        self.returncode = returncode
        self.stderr = stderr
        lines = stderr.strip().splitlines() or ["no message"]
        # nft prints explanations after its message, most other programs print the message last
        last = next((line.strip() for line in lines if "Error:" in line), lines[-1])
        super().__init__(f"{' '.join(command[:4])}{' …' if len(command) > 4 else ''} ended with {returncode}: {last}")


class ApiError(HitlessError):
    """The Kubernetes API refused a call, or could not be reached; ``status`` is the HTTP status, 0 when unreachable."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        self.status = status
        super().__init__(message)


class Displaced(HitlessError):
    """Another process took over this one's task; ``str()`` says which, and what that means."""


class CommandFailed(ApiError):
    """A command in a pod ended with the exit code ``code``."""

    def __init__(self, message: str, code: int) -> None:
        self.code = code
        super().__init__(message, status=500)


class Defect(HitlessError):
    """A ``part`` of hitless failed with an unexpected error: what it was, and where it was raised."""

    def __init__(self, part: str, error: BaseException) -> None:
        self.part = part
        what = f"{type(error).__name__}: {str(error)[:200]}" if str(error) else type(error).__name__
        place, trace = "", error.__traceback__
        while trace is not None:  # the innermost frame; without folders, which only show where it is installed
            place = f" ({trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno})"
            trace = trace.tb_next
        why = (
            "the memory ran out" if isinstance(error, MemoryError) else "this is a defect of hitless, please report it"
        )
        super().__init__(f"{part} ended by {what}{place}; {why}")


def ours(error: BaseException, part: str) -> HitlessError:
    """The error itself if it is in the tree, else a ``Defect``."""
    return error if isinstance(error, HitlessError) else Defect(part, error)
