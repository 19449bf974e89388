"""A failed test's report with what the kubelets said meanwhile."""

from __future__ import annotations

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and "stage" in getattr(item, "fixturenames", ()):
        from tests.cluster import ground

        report.sections.append(("the cluster", ground.report()))
    return report
