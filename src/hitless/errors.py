"""The one exception tree.

Problem: a caller must be able to tell "you gave me something wrong" from "this machine cannot do it" without reading
text, and a person must be told what, where, why and what to do. Promise: everything that hitless raises on purpose is
a ``HitlessError``; foreign exceptions stop at the port that met them (``raise ... from``). The command line maps the
classes to exit codes in one table (``hitless.cli.exits``).

    HitlessError
    ├── InputError           a flag, file or value that people wrote does not say what it should
    ├── MissingError         this machine lacks a program, a kernel feature or a permission
    ├── KernelError          the kernel refused an operation; carries its own words
    │   ├── NotFound         the object is not there (a fact, real and fake kernels alike)
    │   ├── AlreadyExists    the object is there already
    │   └── LostEvents       the kernel dropped events for us: what we know is incomplete
    ├── ProgramError         a program that we ran failed; carries its command, exit code and standard error
    ├── ApiError             the Kubernetes API refused or could not be reached
    ├── Displaced            somebody else took over what this process was doing: it must do nothing more
    └── Defect               a part of hitless ended by an error that is none of these; ``ours`` makes one of any
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AlreadyExists",
    "ApiError",
    "Defect",
    "Displaced",
    "HitlessError",
    "InputError",
    "KernelError",
    "LostEvents",
    "MissingError",
    "NotFound",
    "ProgramError",
    "ours",
]


class HitlessError(Exception):
    """Base of all; ``str()`` is one message that is fit to show: what, where, why, what to do."""


class InputError(HitlessError):
    """Something that people wrote is wrong.

    ``where`` names the file, flag, line or field; ``expected`` says what would be right; ``remedy`` what to do.
    """

    def __init__(
        self, message: str, *, where: str | None = None, expected: str | None = None, remedy: str | None = None
    ) -> None:
        self.where = where
        self.expected = expected
        self.remedy = remedy
        text = f"{where}: {message}" if where else message
        text = f"{text} (expected {expected})" if expected else text
        super().__init__(f"{text}; {remedy}" if remedy else text)


class MissingError(HitlessError):
    """This machine lacks something; ``remedy`` is what to do about it."""

    def __init__(self, message: str, *, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(f"{message}; {remedy}")


class KernelError(HitlessError):
    """The kernel refused ``operation`` on ``object``; ``errno`` is its number, 0 where it gave none."""

    def __init__(self, operation: str, object: str, errno: int = 0, reason: str = "") -> None:
        import os

        self.operation = operation
        self.object = object
        self.errno = errno
        words = reason or (os.strerror(errno) if errno else "refused")
        super().__init__(f"{operation} {object}: {words}")


class NotFound(KernelError):
    """The object is not there."""


class AlreadyExists(KernelError):
    """The object is there already."""


class LostEvents(KernelError):
    """The kernel dropped events (ENOBUFS): a full read must follow."""


class ProgramError(HitlessError):
    """A program that we ran failed."""

    def __init__(self, command: Sequence[str], returncode: int, stderr: str) -> None:
        self.command = tuple(command)
        self.returncode = returncode
        self.stderr = stderr
        lines = stderr.strip().splitlines() or ["no message"]
        # nft explains itself after its message, most others end with theirs
        last = next((line.strip() for line in lines if "Error:" in line), lines[-1])
        super().__init__(f"{' '.join(command[:4])}{' …' if len(command) > 4 else ''} ended with {returncode}: {last}")


class ApiError(HitlessError):
    """The Kubernetes API refused a call, or could not be reached; ``status`` is the HTTP status, 0 when unreachable."""

    def __init__(self, message: str, *, status: int = 0) -> None:
        self.status = status
        super().__init__(message)


class Displaced(HitlessError):
    """Somebody else took over what this process was doing; ``str()`` says who, and what that means."""


class CommandFailed(ApiError):
    """A command in a pod ended with ``code``."""

    def __init__(self, message: str, code: int) -> None:
        self.code = code
        super().__init__(message, status=500)


class Defect(HitlessError):
    """A ``part`` of hitless ended by an error that nobody expected: what it was, and where it came from."""

    def __init__(self, part: str, error: BaseException) -> None:
        self.part = part
        what = f"{type(error).__name__}: {str(error)[:200]}" if str(error) else type(error).__name__
        place, trace = "", error.__traceback__
        while trace is not None:  # the innermost; the file's name alone: where it is installed tells nobody anything
            place = f" ({trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno})"
            trace = trace.tb_next
        why = (
            "the memory ran out" if isinstance(error, MemoryError) else "this is a defect of hitless, please report it"
        )
        super().__init__(f"{part} ended by {what}{place}; {why}")


def ours(error: BaseException, part: str) -> HitlessError:
    """The error as one of the tree: itself, or the ``Defect`` that it is."""
    return error if isinstance(error, HitlessError) else Defect(part, error)
