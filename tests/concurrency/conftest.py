"""What several sessions are for, in more than one file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.merge.members import Member


@pytest.fixture
def members(connect: Any) -> Callable[..., list[Member]]:
    """Return a function that gives members of a swarm, a session each."""

    def make(count: int, swarm: str | None = None) -> list[Member]:
        made = []
        for n in range(count):
            each = Member(connect(), f"{'member' if swarm else 'author'}-{n}")
            made.append(each)
        for each in made if swarm else []:
            each.join(str(swarm))
        return made

    return make
