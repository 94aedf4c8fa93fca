"""What several sessions are for, in more than one file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.merge.crew import Member
from tests.merge.observe import scalar


@pytest.fixture
def members(connect: Any) -> Callable[..., list[Member]]:
    """Return a function that gives members of a swarm, each on the partitions asked for, a session each."""

    def make(count: int, swarm: str | None = None, partitions: str = "") -> list[Member]:
        made = []
        for n in range(count):
            each = Member(connect(), f"{'member' if swarm else 'author'}-{n}")
            while partitions and scalar(
                each.connection, "select kerai_private.partition_of(%s)", [each.author]
            ) != int(partitions[n]):
                each = Member(each.connection, f"{each.author.rpartition('.')[0]}-")
            made.append(each)
        for each in made if swarm else []:
            each.join(str(swarm))
        return made

    return make
