"""Inputs that somebody hostile might send: good ones, changed at random, the same ones for the same seed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Result", "Target", "attack", "mutated"]

_NUMBERS = (0, 1, 3, 4, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_WORDS = (
    *(b"\0", b"\n", b"\r\n", b"\x1b]0;x\7", b'"', b"\\", b"{", b"[" * 600, b"}", b"%", b"=", b",", b":", b"/", b" "),
    *("\u2028".encode(), "²".encode(), "٣".encode(), b"\xff\xfe", b"\xed\xa0\x80", b"-1", b"1e999", b"9" * 400, b"NaN"),
    *(b"null", b"true", b"::ffff:0:0/96", b"0.0.0.0/0", b"%eth0", b"__proto__", b"A" * 5000, b"\0" * 300),
)
_LONGEST = 1 << 16


@dataclass(frozen=True)
class Target:
    """Something that takes foreign bytes; ``allowed`` are the errors that it may raise."""

    name: str
    seeds: Sequence[bytes]
    take: Callable[[bytes], object]
    allowed: tuple[type[Exception], ...]


@dataclass
class Result:
    """What came of an attack; ``failures`` are (input, what it raised), at most a few."""

    inputs: int
    slowest_s: float
    slowest: bytes
    failures: list[tuple[bytes, str]]
    refused: int


def mutated(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A seed with some changes, now and then of two of them, or nothing but noise."""
    if chance.random() < 0.02:
        return chance.randbytes(chance.randrange(200))
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((1, 1, 2, 4, 8, 40)))
        kind = chance.randrange(9)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at:end] = chance.randbytes(end - at)
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = chance.choice(_WORDS)
        elif kind == 4:
            data[at:end] = chance.choice(_WORDS)
        elif kind == 5:
            width = chance.choice((1, 2, 2, 4, 8))
            number = chance.choice(_NUMBERS) & (1 << 8 * width) - 1
            data[at : at + width] = number.to_bytes(width, chance.choice(("little", "big")))
        elif kind == 6:
            del data[at:]
        elif kind == 7:
            data[at:at] = data[at:end] * chance.choice((1, 2, 50))
        else:
            other = chance.choice(seeds)
            cut = chance.randrange(len(other) + 1)
            data[at:] = other[cut:]
    return bytes(data[:_LONGEST])


def attack(target: Target, inputs: int, seed: object, *, most_failures: int = 3) -> Result:
    """Feed ``inputs`` of them."""
    chance = random.Random(f"{target.name} {seed}")
    result = Result(0, 0.0, b"", [], 0)
    for data in _inputs(chance, target.seeds, inputs):
        begin = time.thread_time()
        try:
            target.take(data)
        except target.allowed:
            result.refused += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            result.failures.append((data, f"{type(error).__name__}: {str(error)[:200]}"))
            if len(result.failures) >= most_failures:
                return result
        took = time.thread_time() - begin
        result.inputs += 1
        if took > result.slowest_s:
            result.slowest_s, result.slowest = took, data
    return result


def _inputs(chance: random.Random, seeds: Sequence[bytes], number: int) -> Iterator[bytes]:
    yield from seeds[:number]
    for _ in range(number - len(seeds)):
        yield mutated(chance, seeds)
