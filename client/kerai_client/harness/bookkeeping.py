"""What a worker keeps count of, and what makes it stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from kerai_client.agent.state import State
from kerai_client.harness.process import Finished
from kerai_client.harness.results import Outcome


class Stopped(Exception):
    """Ends the work; the message says why."""


@dataclass(slots=True)
class Limits:
    """What one agent may use. Times are in seconds, the cost in nKoi."""

    attempts: int | None = None
    attempt_seconds: float = 600.0
    test_seconds: float = 600.0
    cost_per_second: int = 0


@dataclass(slots=True)
class Spent:
    """What the work since the last report has taken."""

    seconds: float = 0.0
    milliseconds: int = 0

    def add(self, finished: Finished) -> None:
        """Add a run of the solver or of the tests."""
        self.seconds += finished.seconds
        self.milliseconds += finished.milliseconds


@dataclass(slots=True)
class Candidate:
    """Operations on a state, tested: ``vector`` is what the state was read at."""

    state: State
    ops: Sequence[Mapping[str, Any]]
    outcome: Outcome
    output: str
    milliseconds: int


@dataclass(slots=True)
class Counters:
    """What an agent has done."""

    attempts: int = 0
    merged: int = 0
    stale: int = 0
    failed: int = 0


class StopRequest:
    """Set by SIGTERM, SIGHUP and SIGINT, and by the end of the process that has launched this one.

    It is asked at every step that takes time.

    :param parent: the process that has launched this one; killed with -9, it can tell nobody that it ends.
    """

    def __init__(self, parent: int | None = None) -> None:
        self.signal: int | None = None
        self.parent = parent

    def reason(self) -> str | None:
        """Return why the work is to end, None when it is not."""
        if self.signal is not None:
            return f"{signal.Signals(self.signal).name} received"
        if self.parent is not None and os.getppid() != self.parent:
            return "the launch that started this agent is gone"
        return None

    def check(self) -> None:
        """:raises Stopped: when there is a reason to stop."""
        reason = self.reason()
        if reason is not None:
            raise Stopped(reason)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take these signals as a wish to stop, for as long as this lasts; `nohup` is respected."""

        def note(number: int, frame: FrameType | None) -> None:
            self.signal = number

        before = {
            number: signal.signal(number, note)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
