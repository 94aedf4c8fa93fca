"""The table of a run, the cases behind it, and one merge in full."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from tests.replay.instance import Outcome
from tests.replay.judge import judge
from tests.replay.repository import Case
from tests.replay.run import Replayed, Run

from kerai_client.source import FileState

MOST_CASES = 20
CLEAN = ("lost", "doubled", "returned", "reordered", "twice", "other", "broken")
CONFLICT = ("silent", "recorded", "twice", "other", "lost", "broken")


def classes(merge: Replayed, *, conflict: bool) -> set[str]:
    """Return the classes of a merge's files: of those with a conflict, or of the others."""
    return {each for verdict in merge.verdicts if verdict.conflict == conflict for each in verdict.classes}


def figures(run: Run) -> dict[str, Any]:
    """Return the table's row as numbers; shares are of 0 to 1, None where there is nothing to share."""
    taken = [merge for merge in run.merges if merge.refused is None]
    clean = [merge for merge in taken if merge.clean]
    stuck = [merge for merge in taken if any(verdict.conflict for verdict in merge.verdicts)]
    found = [classes(merge, conflict=False) for merge in clean]
    sides = [classes(merge, conflict=True) for merge in stuck]

    def share(count: int, total: int) -> float | None:
        return count / total if total else None

    row: dict[str, Any] = {
        "repository": run.repository,
        "merge commits": run.found.merges,
        "criss-cross": run.found.criss_cross,
        "no common file": run.found.apart,
        "unrelated": run.found.unrelated,
        "unreadable": len(run.found.unreadable),
        "replayed": len(run.merges),
        "refused": len(run.merges) - len(taken),
        "clean": len(clean),
        "clean equal": share(sum(each <= {"equal"} for each in found), len(clean)),
        "clean human": share(sum(all(v.human for v in merge.verdicts) for merge in clean), len(clean)),
        "git human": share(sum(merge.git_is_human for merge in clean), len(clean)),
    }
    row |= {f"clean {name}": sum(name in each for each in found) for name in CLEAN}
    row |= {
        "conflict": len(stuck),
        "conflict human": share(sum(each == {"human"} for each in sides), len(stuck)),
        "conflict both": share(sum(_both(each) for each in sides), len(stuck)),
        "conflict silent": share(sum("silent" in each for each in sides), len(stuck)),
        "conflict recorded": share(sum("recorded" in each for each in sides), len(stuck)),
        "conflict twice": sum("twice" in each for each in sides),
        "conflict lost": sum("lost" in each for each in sides),
        "conflict broken": sum("broken" in each for each in sides),
        "beside a conflict": sum(bool(classes(merge, conflict=False) - {"equal"}) for merge in stuck),
        "orders differ": sum(merge.orders_differ for merge in taken),
        "orders differ, uncontested": sum(merge.orders_differ and not merge.contested for merge in taken),
        "operations a line": share(
            sum(merge.operations for merge in taken), sum(merge.changed_lines for merge in taken)
        ),
        "seconds": run.seconds,
    }
    row |= {
        f"{whom} seconds": sum(merge.seconds.get(whom, 0.0) for merge in run.merges)
        for whom in ("git", "client", "server")
    }
    return row


def _both(found: set[str]) -> bool:
    return "both" in found and found <= {"both", "human", "broken"}


def tables(runs: Sequence[Run]) -> Iterator[Table]:
    """Yield two tables, a row a repository each: where git merges, and where it finds a conflict."""
    rows = [figures(run) for run in runs]
    clean = Table(title="git merges without a conflict")
    stuck = Table(title="git finds a conflict")
    shown = (
        (clean, ("clean", "clean equal", "clean human", "git human", *(f"clean {name}" for name in CLEAN))),
        (
            stuck,
            (
                "conflict",
                *(
                    f"conflict {name}"
                    for name in ("human", "both", "silent", "recorded", "twice", "lost", "broken")
                ),
                "beside a conflict",
                "orders differ",
                "orders differ, uncontested",
                "refused",
                "operations a line",
                "seconds",
            ),
        ),
    )
    for table, columns in shown:
        table.add_column("repository")
        for column in columns:
            words = column.removeprefix("clean ").removeprefix("conflict ")
            table.add_column("merges" if words in ("clean", "conflict") else words, justify="right")
        for row in rows:
            table.add_row(row["repository"], *(_cell(row[column]) for column in columns))
        yield table


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.0%}" if value <= 1 else f"{value:.1f}"


def cases(run: Run) -> Iterator[str]:
    """Yield the first cases of each failing class: commit and file."""
    kinds = [(False, name) for name in CLEAN] + [(True, name) for name in CONFLICT]
    for conflict, name in kinds:
        hits = [
            f"{merge.commit[:12]} {verdict.path}"
            for merge in run.merges
            for verdict in merge.verdicts
            if verdict.conflict == conflict and name in verdict.classes
        ]
        yield from _listed(f"{'conflict' if conflict else 'clean'}, {name}", hits)
    yield from _listed(
        "orders differ, and nothing is contested",
        [merge.commit[:12] for merge in run.merges if merge.orders_differ and not merge.contested],
    )
    yield from _listed("refused", [f"{m.commit[:12]} {m.refused}" for m in run.merges if m.refused])
    yield from _listed("unreadable", [f"{c[:12]} {why}" for c, why in run.found.unreadable.items()])


def _listed(title: str, hits: Sequence[str]) -> Iterator[str]:
    if hits:
        yield f"{title}: {len(hits)}"
        yield from (f"  {hit}" for hit in hits[:MOST_CASES])


def shown(case: Case, outcomes: Sequence[Outcome], *, everything: bool = False) -> Iterator[str]:
    """Yield what there is to say about a merge: the files that are not as git's, or all of them, as diffs."""
    for verdict in judge(case, outcomes):
        if not everything and not verdict.conflict and verdict.classes == ("equal",):
            continue
        path = verdict.path
        human = " as the person's" if verdict.human else ""
        yield f"==== {path}: {', '.join(verdict.classes)}{human}"
        versions = {"ours": case.ours, "theirs": case.theirs}
        for name, version in versions.items():
            yield from _diff(f"base → {name}", case.base.get(path), version.get(path))
        before, reference = ("human", case.human) if verdict.conflict else ("git", case.git)
        first, second = (outcome.files.get(path) for outcome in outcomes)
        yield from _diff(f"{before} → kerai", reference.get(path), first)
        if first != second:
            yield from _diff(f"{before} → kerai, other order", reference.get(path), second)
        if case.human.get(path) != reference.get(path):
            yield from _diff("git → human", reference.get(path), case.human.get(path))


def _diff(title: str, before: FileState | None, after: FileState | None) -> Iterator[str]:
    yield f"---- {title}"
    if before == after:
        yield "(the same)"
        return
    if before is None or after is None:
        yield "(no such file before)" if before is None else "(no such file after)"
        return
    texts = [each.data.decode("utf-8", "backslashreplace") for each in (before, after)]
    found = difflib.unified_diff(*(text.splitlines() for text in texts), lineterm="", n=3)
    yield from list(found)[2:]
