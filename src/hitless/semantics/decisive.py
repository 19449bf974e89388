"""Which rule's unknown condition makes the answer "cannot tell"?

Problem: a packet passes many rules with conditions that are not known, and most of them do not affect the result.
Promise: ``find_decisive`` names the visit on which the result depends: assuming that its condition holds, or that it
does not, gives different endings. Candidates are where the paths to two different endings part; each is confirmed by
walking the rules again with the assumption. Next stage: ``reasons``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hitless.semantics.outcome import Ending, Visit

__all__ = ["find_decisive"]

_MOST_ENDINGS = 24  # whose paths are compared
_MOST_TRIED = 6  # conditions that are tried, each with both assumptions

_FATES = {
    "translated": "carried",
    "untranslated": "lost",
    "dropped": "lost",
    "unknown": "unknown",
    "arrived": "carried",
}

Kinds = Callable[[tuple[str, str, bool, str, int, bool]], set[str]]
"""The kinds of endings under the assumption that a rule's unknown condition holds, or that it does not."""


def find_decisive(endings: Sequence[Ending], ask: Kinds) -> tuple[Ending, Visit | None]:
    """An ending to explain, and the visit with the decisive condition; ``None`` where no single condition decides."""
    plain = next((ending for ending in endings if ending.kind == "unknown"), endings[0])
    doubtful: tuple[Ending, Visit] | None = None
    for ending, visit in _partings(endings):
        fates = [frozenset(_FATES[kind] for kind in ask((*visit.place, way))) for way in (True, False)]
        if fates[0] == fates[1]:
            continue
        if any(len(fate) == 1 and "unknown" not in fate for fate in fates):
            return ending, visit
        doubtful = doubtful or (ending, visit)
    if doubtful is not None:
        return doubtful
    return plain, None


def _partings(endings: Sequence[Ending]) -> list[tuple[Ending, Visit]]:
    """The last unknown condition before two paths with different results part, longest common path first."""
    some = list(endings)[:_MOST_ENDINGS]
    found: dict[tuple[str, str, bool, str, int], tuple[int, Ending, Visit]] = {}
    for number, one in enumerate(some):
        for other in some[number + 1 :]:
            if _FATES[one.kind] == _FATES[other.kind]:
                continue
            length, last = 0, None
            for mine, theirs in zip(one.path, other.path, strict=False):
                if mine[:5] != theirs[:5]:
                    break
                length += 1
                last = mine if mine.kind == "unknown" else last
            if last is not None and length > found.get(last.place, (0,))[0]:
                found[last.place] = (length, one if _FATES[one.kind] != "carried" else other, last)
    ranked = sorted(found.values(), key=lambda each: -each[0])
    ranked += [  # of paths that merged again only one is kept: any unknown condition on it may be decisive
        (0, ending, visit)
        for ending in some
        for visit in ending.path
        if visit.kind == "unknown" and visit.place not in found
    ]
    return list({visit.place: (ending, visit) for _, ending, visit in ranked}.values())[:_MOST_TRIED]
