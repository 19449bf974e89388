"""How long the agent stays out of a reload's way."""

from __future__ import annotations

from hitless.agent.reloads import Reload


def test_a_reload_is_over_after_a_quiet_second() -> None:
    reload = Reload()
    assert not reload.goes_on(0.0)
    reload.begin(10.0)
    assert reload.goes_on(10.9) and not reload.goes_on(11.0)
    reload.touched(10.9)
    assert reload.goes_on(11.8) and not reload.goes_on(11.9)


def test_who_never_rests_is_not_waited_for_longer_than_ten_seconds() -> None:
    reload = Reload()
    reload.begin(0.0)
    for tenth in range(200):
        reload.touched(tenth / 10)
    assert reload.goes_on(9.9) and not reload.goes_on(10.0)


def test_what_comes_after_the_end_does_not_begin_it_again() -> None:
    reload = Reload()
    reload.begin(0.0)
    reload.end()
    reload.touched(0.1)
    assert not reload.goes_on(0.2)
