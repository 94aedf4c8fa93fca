"""A few seconds of the mix that ``make chaos`` runs for as long as is wanted."""

from __future__ import annotations

from tests.chaos.run import run


def test_nothing_is_lost_whatever_goes_on_at_the_same_time() -> None:
    told: list[str] = []
    mix = run(5, seed=1, tell=told.append)
    assert mix.findings == []
    assert mix.counts["merged"] > 0
    assert mix.counts["operations folded"] > 0
