"""The search for an edit that makes fewer tests fail and breaks none."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count, islice, takewhile

from kerai_client.solve.expressions import EXPRESSION_OPERATORS
from kerai_client.solve.matrix import Located, Matrix
from kerai_client.solve.mutations import Mutation, place_of, propose
from kerai_client.solve.names import NAME_OPERATORS
from kerai_client.solve.rewriting import STATEMENT_OPERATORS
from kerai_client.solve.runner import Edit, Outcome, TestRunner
from kerai_client.solve.statements import SourceFile
from kerai_client.solve.vocabulary import Vocabulary, read_vocabulary

FIRST_ROUND = 600  # candidates tried for each group of failing tests before those of the next group
SECOND_ROUND = 6000  # and after all groups have had their first
MORE_AFTER_PARTIAL = 150  # candidates to look at for a better repair once one mends a part of the group
BATCH = 25  # candidates that share a process at first
MOST_STATEMENTS = 80  # of one group
MOST_TARGETS = 12  # failing tests that are run for a candidate
COLD_DISCOUNT = 0.4  # an edit that needs a new import costs ten times one that does not


@dataclass(frozen=True, slots=True)
class Candidate:
    """An edit to try; `reimport`: whether everything has to be imported anew for it."""

    file: SourceFile
    located: Located
    mutation: Mutation
    reimport: bool

    @property
    def data(self) -> bytes:
        """The bytes of the edited file."""
        return self.file.edited(self.mutation.start, self.mutation.end, self.mutation.text)

    @property
    def edit(self) -> Edit:
        """The edit as the runner takes it."""
        change = self.mutation
        return Edit(self.file.path, change.start, change.end, change.text, self.located.statement.node.lineno)


@dataclass(frozen=True, slots=True)
class Fix:
    """An edit that is a repair, and the tests that it mends."""

    path: str
    line: int
    operator: str
    before: bytes
    after: bytes
    mended: list[str]


class Search:
    """One search in one state of the files.

    `steady` is what tests do when run by themselves, `spawning` are those that start processes; `deadline` is
    on the clock of time.monotonic.
    """

    def __init__(
        self,
        runner: TestRunner,
        matrix: Matrix,
        steady: Outcome,
        *,
        spawning: Collection[str],
        seed: int,
        deadline: float,
    ) -> None:
        self.runner = runner
        self.matrix = matrix
        self.seed = seed
        self.deadline = deadline
        self.tried = 0
        self.words: dict[str, Vocabulary] = {}
        known = set(runner.files)
        # a test whose outcome depends on the tests before it cannot judge a candidate alone
        self.targets = {name for name in matrix.failed if name in steady.failed or name not in known}
        # one that starts processes sees no edit of a live function
        self.guards = [name for name in matrix.passed if name in steady.passed and name not in spawning]
        self.guards.sort(key=lambda name: (round(steady.seconds.get(name, 0.0), 1), matrix.numbers[name]))

    def run(self) -> Fix | None:
        """The first repair found, or None when candidates or time are used up.

        Which one it is depends on the files, the tests and the seed alone; time only ends the search.
        """
        groups = [group for group in self.matrix.groups() if self.targets.intersection(group)]
        if not groups:
            return None
        first = self.seed % len(groups)
        groups = groups[first:] + groups[:first]
        queues = [self.candidates(group) for group in groups]
        for limit in (FIRST_ROUND, SECOND_ROUND):
            for group, queue in zip(groups, queues, strict=True):
                fix = self._try_some(group, queue, limit)
                if fix or self.is_late():
                    return fix
        return None

    def is_late(self) -> bool:
        """Whether the time is used up."""
        return time.monotonic() > self.deadline

    def candidates(self, group: Sequence[str]) -> Iterator[Candidate]:
        """Edits for a group of failing tests, best first: suspicion times likelihood, shaken by the seed.

        The shaking makes several agents at one group try the candidates in different orders.
        """
        chance = random.Random(self.seed)
        failing = self.matrix.mask(group)
        ranked = [(self.matrix.suspicion(located, failing), located) for located in self.matrix.located]
        ranked = sorted((pair for pair in ranked if pair[0] > 0), key=lambda pair: -pair[0])[:MOST_STATEMENTS]
        waiting: list[tuple[float, int, Candidate]] = []
        counter = count()
        for suspicion, located in ranked:
            # no edit of this statement or a later one has a priority above its suspicion
            while waiting and -waiting[0][0] >= suspicion:
                yield heappop(waiting)[2]
            file = located.file
            words = self.words.setdefault(file.path, read_vocabulary(file))
            place = place_of(file, words, located.statement)
            for mutation in propose(place, EXPRESSION_OPERATORS + NAME_OPERATORS, STATEMENT_OPERATORS):
                priority = suspicion * mutation.weight * chance.uniform(0.6, 1.0)
                if not located.statement.at_import:
                    candidate = Candidate(file, located, mutation, reimport=False)
                    heappush(waiting, (-priority, next(counter), candidate))
                if located.at_import:
                    candidate = Candidate(file, located, mutation, reimport=True)
                    heappush(waiting, (-priority * COLD_DISCOUNT, next(counter), candidate))
        while waiting:
            yield heappop(waiting)[2]

    def _try_some(self, group: Sequence[str], queue: Iterator[Candidate], limit: int) -> Fix | None:
        """Try up to `limit` candidates of a group's queue."""
        wanted = self.targets.intersection(group)
        partial: list[tuple[int, Candidate]] = []
        last = limit
        for number, candidate in self.promising(islice(queue, limit), group):
            if number > last:
                break
            mended = self.mended_by(candidate, group)
            if not mended:
                continue
            reachable = set(self.matrix.names(candidate.located.tests)) & wanted
            if mended >= reachable:
                fix = self.confirmed(candidate, mended)
                if fix:
                    return fix
            else:
                if not partial:
                    last = number + MORE_AFTER_PARTIAL
                partial.append((len(mended), candidate))
        for _, candidate in sorted(partial, key=lambda pair: -pair[0]):
            fix = self.confirmed(candidate, set())
            if fix:
                return fix
        return None

    def promising(self, queue: Iterator[Candidate], group: Sequence[str]) -> Iterator[tuple[int, Candidate]]:
        """The candidates, each with its number, that seem to make a failing test pass."""
        number = 0
        while not self.is_late():
            batch = list(islice(queue, BATCH))
            if not batch:
                return
            start = 0
            while start < len(batch):
                live = list(takewhile(lambda candidate: not candidate.reimport, batch[start:]))
                end = "reimport"
                if live:
                    tests = [self.targets_of(candidate, group) for candidate in live]
                    at, end = self.runner.first_hit([candidate.edit for candidate in live], tests)
                    self.tried += at + 1
                    start += at
                else:
                    self.tried += 1
                if end in ("hit", "reimport"):
                    yield number + start, batch[start]
                start += 1
            number += len(batch)

    def targets_of(self, candidate: Candidate, group: Sequence[str]) -> list[str]:
        """The failing tests that a candidate is judged by first, those of the group before others."""
        targets = [name for name in self.matrix.names(candidate.located.tests) if name in self.targets]
        return sorted(targets, key=lambda name: name not in group)[:MOST_TARGETS]

    def mended_by(self, candidate: Candidate, group: Sequence[str]) -> set[str]:
        """The failing tests that pass with a candidate, or none when a test that passed does not any more."""
        targets = self.targets_of(candidate, group)
        covered = set(self.matrix.names(candidate.located.tests))
        guards = [name for name in self.guards if name in covered]
        outcome = self.outcome_of(candidate, targets, guards)
        if outcome.end != "done" or not outcome.passed.issuperset(guards):
            return set()
        return outcome.passed.intersection(targets)

    def outcome_of(self, candidate: Candidate, targets: list[str], guards: list[str]) -> Outcome:
        """Run the tests that a candidate concerns, in the cheapest way that shows its effect."""
        data, path = candidate.data, candidate.file.path
        if not candidate.reimport:
            outcome = self.runner.try_in_session(candidate.edit, targets, guards)
            if outcome.end != "reimport":
                return outcome
        try:
            compile(data, path, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError):
            return Outcome(end="invalid")
        return self.runner.try_reimported(path, data, targets, guards)

    def confirmed(self, candidate: Candidate, mended: set[str]) -> Fix | None:
        """Run the whole suite on the edited files, imported anew, and the mended tests on the old ones."""
        runner, matrix = self.runner, self.matrix
        outcome = runner.try_reimported(
            candidate.file.path, candidate.data, [*matrix.failed, *matrix.passed], [], everything=True
        )
        mended = outcome.passed.intersection(matrix.failed)
        if outcome.end != "done" or not mended or not outcome.passed.issuperset(matrix.passed):
            return None
        if len(outcome.failed) >= len(matrix.failed):
            return None
        again = runner.run([name for name in matrix.failed if name in mended & set(runner.files)])
        if again.passed:
            return None  # it comes and goes by itself
        file, mutation = candidate.file, candidate.mutation
        return Fix(
            path=file.path,
            line=file.line_of(mutation.start),
            operator=mutation.operator,
            before=file.data,
            after=candidate.data,
            mended=[name for name in matrix.failed if name in mended],
        )
