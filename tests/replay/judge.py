"""What to think of a merged file: compared with git's, with the person's, and by its grammar."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.replay.instance import Outcome
from tests.replay.repository import Case

from kerai_client.source import FileState, language_of, parse_file

Lines = Counter[bytes]
_SECOND = re.compile(r"~\d+$")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one file, in both orders of the authors together.

    ``classes`` where git merges the file: ``equal``, or some of ``lost``, ``doubled``, ``returned``,
    ``reordered``, ``twice`` and ``other``. Where git finds a conflict: ``human``, ``both``, ``silent``,
    ``recorded``, ``twice``, ``other``, and ``lost`` beside them. ``broken`` may come with any.
    docs/replay.md says what they mean.
    """

    path: str
    language: str | None
    conflict: bool
    classes: tuple[str, ...]
    human: bool

    def as_json(self) -> dict[str, Any]:
        """Return it for a report."""
        return {
            "path": self.path,
            "language": self.language,
            "conflict": self.conflict,
            "classes": list(self.classes),
            "human": self.human,
        }


def judge(case: Case, outcomes: Sequence[Outcome]) -> list[Verdict]:
    """Judge every file of a merge."""
    known = case.base.keys() | case.ours.keys() | case.theirs.keys() | case.git.keys()
    made = {path for outcome in outcomes for path in outcome.files} - known
    second = {path for path in made if _SECOND.sub("", path) in known}
    return [_judge(case, path, outcomes, second) for path in sorted(known | made - second)]


def _judge(case: Case, path: str, outcomes: Sequence[Outcome], second: set[str]) -> Verdict:
    """:param second: the paths of files that share a name, of which another has the name itself."""
    conflict = path in case.conflicted
    human = case.human.get(path)
    classes: set[str] = set()
    for outcome in outcomes:
        file = outcome.files.get(path)
        if any(_SECOND.sub("", other) == path for other in second & outcome.files.keys()):
            classes.add("twice")
        elif conflict:
            classes.add(against_sides(case, path, file, path in outcome.recorded))
            if file != human and loses_undisputed(case, path, file):
                classes.add("lost")
        else:
            classes |= against_git(case.base.get(path), case.git.get(path), file)
        if is_broken(case, path, file):
            classes.add("broken")
    if len(classes) > 1:
        classes.discard("equal")
    everywhere = "twice" not in classes and all(each.files.get(path) == human for each in outcomes)
    return Verdict(path, language_of(path), conflict, tuple(sorted(classes)), everywhere)


def against_git(base: FileState | None, git: FileState | None, file: FileState | None) -> set[str]:
    """Compare a merged file with what git makes of it. None: there is no such file."""
    if file == git:
        return {"equal"}
    here, there, before = lines(file), lines(git), lines(base)
    missing, extra = there - here, here - there
    # A lone bracket says nothing: it comes and goes with the lines around it.
    for telling in (_has_word, bool):
        found = {"lost"} if any(map(telling, missing)) else set()
        for line in filter(telling, extra):
            if line in there:
                found.add("doubled")
            elif line in before or git is None:
                found.add("returned")
        if found:
            return found
    return {"other"} if _in_order(file) == _in_order(git) else {"reordered"}


def _has_word(line: bytes) -> bool:
    return re.search(rb"\w", line) is not None


def against_sides(case: Case, path: str, file: FileState | None, recorded: bool) -> str:
    """Compare a merged file with what both sides wanted, where git finds a conflict."""
    if file == case.human.get(path):
        return "human"
    before, here = lines(case.base.get(path)), lines(file)
    sides = [lines(case.ours.get(path)), lines(case.theirs.get(path))]
    if any(line not in here for side in sides for line in side - before):
        return "recorded" if recorded else "silent"
    removed = [before - side for side in sides]
    if any(here[line] > before[line] - gone[line] for gone in removed for line in gone):
        return "other"
    return "both"


def loses_undisputed(case: Case, path: str, file: FileState | None) -> bool:
    """Say whether a line is missing that a side added and that git merges, outside of its conflicts."""
    before, here = lines(case.base.get(path)), lines(file)
    disputed = False
    for line in _in_order(case.git.get(path)):
        if line.startswith((b"<<<<<<< ", b">>>>>>> ")):
            disputed = line.startswith(b"<")
        elif not disputed and line not in before and line not in here and _has_word(line):
            return True
    return False


def is_broken(case: Case, path: str, file: FileState | None) -> bool:
    """Say whether both sides of a file parse and the merged one does not."""
    if file is None or language_of(path) is None:
        return False
    sides = [case.ours.get(path), case.theirs.get(path)]
    if file in (*sides, case.git.get(path), case.human.get(path)):
        return False
    return parse_file(path, file).broken and not any(
        side is not None and parse_file(path, side).broken for side in sides
    )


def lines(file: FileState | None) -> Lines:
    """Return how often each line stands in a file. Blank lines do not count."""
    return Counter(_in_order(file))


def _in_order(file: FileState | None) -> list[bytes]:
    return [] if file is None else [line for line in file.data.split(b"\n") if line.strip()]
