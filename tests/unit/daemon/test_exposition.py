"""One text form of metrics for the daemons and for a drill's report."""

from __future__ import annotations

import pytest

from hitless.daemon.exposition import LONGEST_LABEL, Sample, exposition

KNOWN = {"a_total": ("counter", "Of a."), "b": ("gauge", "Of b.")}


def test_names_come_in_their_order_with_type_and_help_and_with_or_without_samples() -> None:
    page = exposition(KNOWN, [Sample("b", 1.5), Sample("a_total", 3, {"writer": "x"})])
    assert page == (
        '# HELP a_total Of a.\n# TYPE a_total counter\na_total{writer="x"} 3\n# HELP b Of b.\n# TYPE b gauge\nb 1.5\n'
    )


@pytest.mark.parametrize(
    ("value", "text"), [(True, "1"), (0.0, "0"), (2e9, "2000000000"), (0.1234567890123, "0.123456789")]
)
def test_numbers_are_plain(value: float, text: str) -> None:
    assert f"\nb {text}\n" in exposition(KNOWN, [Sample("b", value)])


def test_label_values_are_escaped_cleaned_and_bounded() -> None:
    page = exposition(KNOWN, [Sample("b", 1, {"writer": 'a"b\\c\n' + "x" * 1000})])
    line = page.splitlines()[-1]
    assert '\\"b\\\\c' in line and len(line) < LONGEST_LABEL + 40
    assert len(page.splitlines()) == 5


def test_a_series_never_comes_twice() -> None:
    samples = [Sample("b", number, {"writer": "x" * (LONGEST_LABEL + number)}) for number in (1, 2)]
    assert exposition(KNOWN, samples).count("\nb{") == 1


def test_a_metric_that_is_not_in_the_catalogue_is_refused() -> None:
    with pytest.raises(KeyError):
        exposition(KNOWN, [Sample("c", 1)])
