"""Only exceptions of this project leave a port, whichever the kernel, a library or a malformed message raised.

Promise: ``only_ours`` makes a ``KernelError`` of every ``OSError``, and of any exception of a decoder at bytes that it
does not understand; exceptions of ours pass unchanged, and everything else (no memory) becomes a ``Defect``. For
``with``, and as a decorator of functions that are not generators.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

from hitless.errors import Defect, HitlessError, KernelError

__all__ = ["UNREADABLE", "only_ours"]

UNREADABLE = (struct.error, LookupError, ValueError, TypeError, OverflowError, RecursionError)
"""What decoders raise at bytes that they do not understand."""


@contextmanager
def only_ours(operation: str, subject: str) -> Iterator[None]:
    """Everything in the block is ``operation`` on ``subject``."""
    try:
        yield
    except HitlessError:
        raise
    except OSError as error:
        reason = "" if error.errno else str(error) or type(error).__name__
        raise KernelError(operation, subject, error.errno or 0, reason) from error
    except UNREADABLE as error:
        problem = f"what the kernel says is not understood ({type(error).__name__}: {error})"
        raise KernelError(operation, subject, reason=problem) from error
    except Exception as error:
        raise Defect(f"{operation} {subject}", error) from error
