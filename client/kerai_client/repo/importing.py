"""Bring a directory into the tree: what has changed in it since it was made from a state of the tree."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

import psycopg

from kerai_client.agent.keys import keys_directory
from kerai_client.agent.pages import PAGE_OPS, Operation, Signed
from kerai_client.agent.session import Session
from kerai_client.agent.state import State, read_state, read_vector
from kerai_client.db.connection import queries
from kerai_client.errors import KeraiError, reason_of
from kerai_client.repo.fitting import fit
from kerai_client.repo.record import (
    COMPACTED,
    Place,
    Record,
    digests,
    enclosing,
    known_record,
    places_of,
    recorded_state,
    records_directory,
)
from kerai_client.source import Problem, diff, read_directory, reshaping_late, snapshot_of

# stage, how much is done, of how much (None: not known)
Progress = Callable[[str, int, int | None], None]
SHOWN_PATHS = 5
KEPT = "deleted here, but changed by others since, so they stay"
HIDDEN = "changed here, but deleted by others since, so that does not show"
MET = "changed at the same places by others since, of which the later shows"


@dataclass(frozen=True, slots=True)
class Report:
    """What an import did. ``nodes`` counts the tree's nodes that the operations made or touched.

    ``conflicts``: the files where others have worked on the same places, by what came of it.
    ``not_remembered``: why the next import will not know what this one read, None when it will.
    """

    files: int
    nodes: int
    operations: int
    problems: list[Problem]
    conflicts: dict[str, list[str]] = field(default_factory=dict)
    not_remembered: str | None = None


def import_directory(
    session: Session,
    directory: Path,
    *,
    into: str = "",
    message: str = "",
    replace: bool = False,
    remember: bool = True,
    server: Path | None = None,
    notice: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Report:
    """Push what has changed in a directory since it was checked out or imported, all of it or nothing.

    A directory with a record is compared with the state that it was made from: what others have done since
    stays. One without is compared with the present state.

    :param replace: also when there is no record and the tree has files there already, and when most of them
        would be deleted.
    :param remember: keep a record of what the directory holds now.
    :param server: the private server's directory, which is not read.
    :param notice: told what of others is taken back.
    :raises KeraiError: when ``replace`` is needed and not given.
    """
    into = "/".join(part for part in into.split("/") if part not in ("", "."))
    own = [server, keys_directory(), *_records()]
    without = [path for place in own for path in _within(directory, place)]
    with _origin(session, directory, into, lenient=replace) as (place, record):
        work = _Import(session, directory, into, place, record)
        work.on_progress = progress or work.on_progress
        work.read(without)
        work.check(replace, notice or (lambda line: None))
        return work.push(message, remember)


@contextmanager
def _origin(
    session: Session, directory: Path, into: str, *, lenient: bool
) -> Iterator[tuple[Place, Record | None]]:
    """Find what a directory was made from, and hold it meanwhile."""
    places = places_of(directory, into)
    for place in places:
        pending = any(record.pending for record in place.read(lenient=lenient))
        if pending or known_record(place, session.database, lenient=lenient) is not None:
            break
    with place.locked():
        for record in place.read(lenient=lenient):
            if record.pending:  # an import was cut off, and its push may be under way
                session.wait_for_last_push(record.pending[-1].author)
        found = known_record(place, session.database, lenient=lenient)
        yield (place if found is not None else places[-1]), found


class _Import:
    def __init__(
        self,
        session: Session,
        directory: Path,
        into: str,
        place: Place,
        record: Record | None,
    ) -> None:
        self.session = session
        self.directory = directory
        self.into = into
        self.place = place
        self.record = record
        self.on_progress: Progress = lambda stage, done, total: None

    def read(self, without: Collection[str]) -> None:
        """Read the state that the directory was made from, and the directory; compare them."""
        state = self.state = self.origin()
        prefix = f"{self.into}/" if self.into else ""
        there = {
            path[len(prefix) :]: file
            for path, file in snapshot_of(state.tree).items()
            if path.startswith(prefix)
        }
        self.snapshot, self.problems = read_directory(
            self.directory,
            progress=lambda done: self.on_progress("reading", done, None),
            tracked=there.keys(),
            without=without,
            git=True,
        )
        self.unread = {problem.path for problem in self.problems} - self.snapshot.keys()
        outside = {path for path in there if not _covers(self.record, prefix + path)} - self.snapshot.keys()
        self.there = {path: file for path, file in there.items() if path not in outside}
        self.on_progress("comparing", 0, None)
        self.operations: Sequence[Operation] = diff(
            state.tree,
            self.snapshot,
            author=self.session.author,
            into=self.into,
            unread=self.unread | outside,
        )

    def origin(self) -> State:
        """Return the state that the directory was made from, the present one when that is not known."""
        if self.record is None:
            return read_state(self.session.database)
        try:
            return recorded_state(self.session.database, self.record)
        except psycopg.Error as error:
            if error.sqlstate != COMPACTED:
                raise
            raise self.compacted() from error

    def compacted(self) -> KeraiError:
        """Return what to say when the history up to the recorded state has been dropped."""
        assert self.record is not None and self.record.files is not None
        before = {path: value for path, value in self.record.files.items() if self.holds(path)}
        tracked = {path.removeprefix(self.place.relative("")) for path in before}
        now, _ = read_directory(self.directory, tracked=tracked, git=True)
        found = {self.place.relative(path): value for path, value in digests(now).items()}
        edited = sorted(path for path in found.keys() | before.keys() if found.get(path) != before.get(path))
        return KeraiError(
            f"the state that {self.directory} was made from has been compacted away",
            detail=f"edited in it since: {_some(edited) or 'nothing'}",
            hint="check out into a new directory, bring your edits there, and import that"
            if edited
            else "`kerai checkout` brings it up to date",
        )

    def holds(self, path: str) -> bool:
        """Whether a path of the record belongs to the directory."""
        return path.startswith(self.place.relative(""))

    def check(self, replace: bool, notice: Callable[[str], None]) -> None:
        """Refuse what rather is a mistake, unless it is meant."""
        if not replace:
            self.refuse_mass_deletion()
        if self.record is not None or not self.there or not self.operations:
            return
        told = self.taken_back()
        if replace:
            notice(f"compared with the present state: {told}")
            return
        hint = "import a checkout that you have edited (`kerai checkout DIR`), or say --replace: {}"
        hint = hint.format("the tree is to hold what this directory holds, whatever others have done")
        message = f"it is not known what state of the tree {self.directory} was made from"
        if self.place.read(lenient=True):
            message = f"this database does not have the state that {self.directory} was made from"
            hint = f"`kerai sync` it with the one that has, or {hint}"
        elif elsewhere := self.lies_elsewhere():
            hint = f"{elsewhere}; else {hint}"
        raise KeraiError(message, detail=f"against the present state, {told}", hint=hint)

    def refuse_mass_deletion(self) -> None:
        """Refuse to delete more than half of the files. One that was only renamed is not lost."""
        kept = {state.data for state in self.snapshot.values()}
        lost = sorted(
            path
            for path, state in self.there.items()
            if path not in self.snapshot and path not in self.unread and state.data not in kept
        )
        if 2 * len(lost) > len(self.there):
            raise KeraiError(
                f"this would delete {len(lost)} of the {len(self.there)} files in the tree",
                detail=f"{self.directory} does not have {_some(lost)}",
                hint=self.lies_elsewhere()
                or "import another directory beside them with --into PATH, or say --replace",
            )

    def lies_elsewhere(self) -> str | None:
        """Return what to do when the directory is a part of a checkout, and was taken for the whole."""
        outer = None if self.record is not None else enclosing(self.directory)
        if outer is None or outer.inside == self.into:
            return None
        return f"it lies in {outer.directory}: import that, or say --into '{outer.inside}'"

    def taken_back(self) -> str:
        """Return in words what the operations would change of what is there, and whose it is."""
        tree = self.state.tree
        nodes: set[UUID] = set()
        for operation in self.operations:
            if operation["op"] != "node_insert" and (node := UUID(str(operation["node"]))) in tree:
                nodes.update(
                    [below.id for below in tree.subtree(node)] if operation["op"] == "node_delete" else [node]
                )
        old = {path: file for path, file in self.there.items() if path not in self.unread}
        gone = [path for path in old if path not in self.snapshot]
        changed = [path for path, file in old.items() if self.snapshot.get(path, file) != file]
        new = [path for path in self.snapshot if path not in old]
        words = [
            f"{len(paths)} files {verb} ({_some(sorted(paths))})"
            for paths, verb in ((changed, "change"), (gone, "go"), (new, "come"))
            if paths
        ]
        others = self.session.database.run(
            lambda connection: connection.execute(
                queries()["work_of_others"], {"nodes": list(nodes), "author": self.session.author}
            ).fetchall()
        )
        by = _some([f"{row['author']} ({row['nodes']} nodes)" for row in others])
        return ", ".join(words) + f"; work of others that is taken back: {by or 'none'}"

    def push(self, message: str, remember: bool) -> Report:
        """Push the operations, all or none, and keep what the directory holds now."""
        conflicts = self.fit() if self.record is not None and self.operations else {}
        files = self.files()
        former = self.record or Record(self.session.instance, self.state.vector, None)
        pending = replace(former, database=self.session.instance, pending=(), pending_files=files)
        problem: str | None = None

        def signed(changesets: Sequence[Signed]) -> None:
            # Kept before anything is sent: should this process die, the next import asks what became of them.
            nonlocal pending, problem
            pending = replace(pending, pending=tuple(changesets))
            problem = self.keep(pending, remember)

        self.on_progress("pushing", 0, len(self.operations))
        self.session.push(
            reshaping_late(self.operations) if len(self.operations) > PAGE_OPS else self.operations,
            self.state.vector,
            message=message,
            whole=True,
            progress=lambda done: self.on_progress("pushing", done, len(self.operations)),
            signed=signed,
        )
        problem = problem or self.keep(pending.merged(), remember)
        nodes = len({operation["node"] for operation in self.operations if "node" in operation})
        return Report(len(self.snapshot), nodes, len(self.operations), self.problems, conflicts, problem)

    def keep(self, record: Record, remember: bool) -> str | None:
        """Write the record; return why not, None when it is kept.

        :raises KeraiError: when an earlier record stays, by which the next import would repeat this one.
        """
        if not remember:
            return None
        try:
            self.place.write(record, self.record)
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
            if self.record is not None:
                raise KeraiError(
                    "cannot keep what was imported, so nothing was"
                    if record.pending
                    else "cannot keep the record",
                    detail=reason_of(error),
                ) from error
            return reason_of(error)
        return None

    def files(self) -> dict[str, str]:
        """Return the digests of what the directory holds now, of all that the record is about."""
        before = {} if self.record is None else self.record.files or {}
        now = {self.place.relative(path): value for path, value in digests(self.snapshot).items()}
        unread = {self.place.relative(path) for path in self.unread}
        kept = {path: value for path, value in before.items() if not self.holds(path) or path in unread}
        return kept | now

    def fit(self) -> dict[str, list[str]]:
        """Fit the operations to what others have done since the recorded state; return what is to be told."""
        database = self.session.database
        if all(seq <= self.state.vector.get(author, 0) for author, seq in read_vector(database).items()):
            return {}
        old, new = self.state.tree, read_state(database).tree
        fitted = fit(old, new, self.operations)
        self.operations = fitted.operations
        prefix = f"{self.into}/" if self.into else ""
        added = new.layout().files.keys() - old.layout().files.keys()
        fitted.met |= added & {prefix + path for path in self.snapshot}
        told = {KEPT: fitted.kept, HIDDEN: fitted.hidden, MET: fitted.met}
        return {words: sorted(paths - {""}) for words, paths in told.items() if paths - {""}}


def _covers(record: Record | None, path: str) -> bool:
    """Whether a directory shows a path of the tree."""
    scope = "" if record is None else record.scope
    return scope in ("", path) or path.startswith(f"{scope}/")


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:SHOWN_PATHS]) + (" …" if len(words) > SHOWN_PATHS else "")


def _records() -> list[Path]:
    try:
        return [records_directory()]
    except RuntimeError:  # there is no home
        return []


def _within(directory: Path, private: Path | None) -> list[str]:
    """Return the path of a directory that is never read within another one, when it is there.

    :raises KeraiError: when they are the same.
    """
    if private is None:
        return []
    top, place = directory.resolve(), private.resolve()
    if top == place:
        what = "the private server's directory" if (private / "data").is_dir() else "not for importing"
        raise KeraiError(f"{directory} is {what}", hint="import another one")
    return [place.relative_to(top).as_posix()] if place.is_relative_to(top) else []
