"""JSON and YAML of strangers: a size, a depth, a time and one error."""

from __future__ import annotations

import time

import pytest

from hitless.model.documents import DocumentTooLarge, decoded, from_json, from_yaml, shallow

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: v}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join(['*' + old] * 10)}]}}\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 70 + "]" * 70, '{"x":' * 70 + "1" + "}" * 70, "9" * 5000, "{", "", "nul", "\ud800"]
)
def test_json_that_is_none_or_too_much_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(text)


def test_json_within_the_bounds_is_read() -> None:
    assert from_json('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    with pytest.raises(DocumentTooLarge, match="longer than 3 bytes"):
        from_json('"abc"', most=3)


@pytest.mark.slow
@pytest.mark.parametrize("text", [BOMB, MERGES, "a: &a [*a]", "a: " + "[" * 2000, "a: " + "[" * 100 + "]" * 100])
def test_yaml_that_multiplies_or_nests_is_refused_at_once(text: str) -> None:
    begin = time.thread_time()
    with pytest.raises(DocumentTooLarge):
        from_yaml(text)
    assert time.thread_time() - begin < 10


def test_yaml_with_aliases_and_merges_of_the_usual_kind_is_read() -> None:
    text = "base: &base {server: x}\none: {<<: *base, name: y}\nlist: [*base, *base]\n"
    assert from_yaml(text)["one"] == {"server": "x", "name": "y"}
    with pytest.raises(DocumentTooLarge, match="longer than"):
        from_yaml("x" * (1 << 20) + "x")


def test_every_error_of_a_decoder_is_a_value_error() -> None:
    for error in (RecursionError("x"), OverflowError("x"), MemoryError(), ValueError("x"), UnicodeError("x")):

        def fails(error: Exception = error) -> None:
            raise error

        with pytest.raises(ValueError, match=r"."):
            decoded(fails)


@pytest.mark.slow
def test_depth_is_counted_without_recursion() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert not shallow(deep)
    assert shallow([[], {"x": ()}])
