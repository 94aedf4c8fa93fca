"""In how many worlds a law is checked: a few that are always the same, or many that are new at every run.

``make test`` takes the profile ``default``, ``make test-long`` the profile ``long`` with KERAI_WORLDS worlds.
A test says by :func:`many` which share of them it takes, since some worlds take longer than others.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from hypothesis import HealthCheck, settings

LONG = "KERAI_WORLDS" in os.environ
FEW = 40

settings.register_profile(
    "default",
    max_examples=FEW,
    derandomize=True,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)
settings.register_profile(
    "long",
    settings.get_profile("default"),
    max_examples=int(os.environ.get("KERAI_WORLDS", "1000")),
    derandomize=False,
    print_blob=True,
)
settings.load_profile("long" if LONG else "default")


def many(share: float = 1.0) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Settings of a law that takes so many times the worlds of the profile, and five at least."""
    return settings(max_examples=max(5, round(settings.default.max_examples * share)))
