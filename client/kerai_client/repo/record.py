"""What a directory was made from: kept with the user's state, for the directory holds the tree's files alone.

A record is the state of the tree that a directory shows. It is a version vector, and the changesets that were
imported from the directory since: a vector cannot name them without others of their author. A record holds at
every database that has these changesets: a directory may be checked out from one and imported into another
that is synced. Databases that know nothing of each other have a record each.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from kerai_client.agent.pages import Signed
from kerai_client.agent.registration import instance_of
from kerai_client.agent.state import State, Vector, read_state, read_vector
from kerai_client.db.connection import Connection, Database, queries
from kerai_client.errors import KeraiError
from kerai_client.source import FileState, Snapshot, apply_operations

Digests = Mapping[str, str]
DIRECTORY = "directory"
MOST_RECORDS = 8  # of databases that know nothing of each other
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.1
COMPACTED = "KR011"


@dataclass(frozen=True, slots=True)
class Record:
    """The state that a directory shows: that of ``vector``, followed by ``own``.

    :param database: the instance where it was last used; ``""`` when that is not known.
    :param files: the digests of the files by path, None while the directory's first import is under way.
    :param scope: the part of the tree that the directory shows; ``""`` for all.
    :param pending: changesets that were signed, and ``pending_files`` what the directory held then. When the
        import was cut off, the database says whether they were merged.
    """

    database: str
    vector: Vector
    files: Digests | None
    scope: str = ""
    own: tuple[Signed, ...] = ()
    pending: tuple[Signed, ...] = ()
    pending_files: Digests | None = None

    @property
    def base(self) -> Vector:
        """The least vector that covers the state."""
        covered = dict(self.vector)
        for changeset in self.own:
            covered[changeset.author] = max(covered.get(changeset.author, 0), changeset.last)
        return covered

    def merged(self) -> Record:
        """Return the record after what was pending has been merged."""
        vector, own = dict(self.vector), [*self.own, *self.pending]
        while own and vector.get(own[0].author, 0) + 1 == own[0].first:
            vector[own[0].author] = own[0].last
            del own[0]
        return Record(self.database, vector, self.pending_files, self.scope, tuple(own))

    def dropped(self) -> Record | None:
        """Return the record after what was pending has come to nothing."""
        return None if self.files is None else replace(self, pending=(), pending_files=None)


@dataclass(frozen=True, slots=True)
class Place:
    """A directory that records are kept of, and the path in the tree that it stands for.

    ``inside`` is where in it the directory lies that is imported, ``""`` for itself.
    """

    directory: Path
    into: str
    inside: str = ""

    def relative(self, path: str) -> str:
        """Return a path below the imported directory as one below this one."""
        return f"{self.inside}/{path}" if self.inside else path

    @property
    def file(self) -> Path:
        """Where the records are."""
        name = os.fsencode(self.directory.resolve())
        if self.into:
            name += b"\0" + self.into.encode()
        return records_directory() / f"{hashlib.sha256(name).hexdigest()}.json"

    def read(self, *, lenient: bool = False) -> list[Record]:
        """Return the records of this directory, the latest first.

        :param lenient: take a file that cannot be understood for none.
        :raises KeraiError: when the file cannot be understood.
        """
        try:
            found = json.loads(self.file.read_text("utf-8"))
            if found["directory"] != _identity(self.directory):
                return []  # another directory stands there now
            return [_record(each) for each in reversed(found["records"])]
        except (OSError, RuntimeError):  # there is none, or no home to have one in
            return []
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if lenient:
                return []
            raise KeraiError(
                f"cannot read {self.file}",
                detail=f"{type(error).__name__}: {error}",
                hint="remove it: then a checkout needs --force, and an import --replace",
            ) from error

    def write(self, record: Record, former: Record | None) -> None:
        """Keep a record, whole or not at all, in place of a former one.

        :raises OSError: when that is not possible.
        """
        others = [
            each
            for each in reversed(self.read(lenient=True))
            if each.database != record.database and (former is None or each.database != former.database)
        ]
        kept = [*others, record][-MOST_RECORDS:]
        content = {"directory": _identity(self.directory), "records": [asdict(each) for each in kept]}
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.file.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(content, stream)
            Path(temporary).replace(self.file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory: two imports of it at a time would both push what has changed in it.

        :raises KeraiError: when another process holds it, and is not done in a minute.
        """
        try:
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            yield  # a checkout is going to make it, or to say what is wrong
            return
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while not _try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise KeraiError(
                        f"another process imports {self.directory}, or checks it out",
                        hint="try again when it has ended",
                    )
                time.sleep(POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)


def records_directory() -> Path:
    """Return the folder of all records.

    :raises RuntimeError: when there is no home.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    state = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return state / "kerai" / "checkouts"


def places_of(directory: Path, into: str) -> list[Place]:
    """Return where a directory may have records: those of the directories that it lies in, for it is part of
    what they show, the outermost first, and its own."""
    top = directory.resolve()
    found = []
    for above in reversed(top.parents):
        inside = top.relative_to(above).as_posix()
        if into == inside or into.endswith(f"/{inside}"):
            found.append(Place(above, into[: -len(inside)].rstrip("/"), inside))
    return [*found, Place(directory, into)]


def enclosing(directory: Path) -> Place | None:
    """Return the checkout that a directory lies in, None when it does in none that is known."""
    top = directory.resolve()
    for above in top.parents:
        place = Place(above, "", top.relative_to(above).as_posix())
        if place.read(lenient=True):
            return place
    return None


def known_record(place: Place, database: Database, *, lenient: bool = False) -> Record | None:
    """Return the record of a directory that a database knows: it has all changesets of that state.

    :param lenient: see :meth:`Place.read`.
    """
    records = place.read(lenient=lenient)
    if not records:
        return None
    instance, now = instance_or_none(database), read_vector(database)
    for record in records:
        found: Record | None = record
        if record.pending:
            if _has(database, record.pending[-1].changeset):
                found = record.merged()
            elif record.database == instance:
                found = record.dropped()
            else:
                found = None
        # The state before all changesets is everywhere, and means nothing where it does not come from.
        if (
            found is not None
            and all(seq <= now.get(author, 0) for author, seq in found.base.items())
            and (found.base or found.database == instance)
        ):
            return found
    return None


def instance_or_none(database: Database) -> str:
    """Return what names a database, ``""`` when the role may not ask for it."""
    try:
        return instance_of(database)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction):
        return ""


def recorded_state(database: Database, record: Record) -> State:
    """Return the state that a directory shows, by its record.

    :raises psycopg.Error: KR011 when the history up to there has been compacted.
    """
    state = read_state(database, None if read_vector(database) == record.vector else record.vector)
    if state.vector != record.vector:  # somebody has pushed meanwhile
        state = read_state(database, record.vector)
    if not record.own:
        return state
    rows = database.run(
        lambda connection: connection.execute(
            queries()["changeset_operations"],
            {"changesets": [bytes.fromhex(each.changeset) for each in record.own]},
        ).fetchall()
    )
    operations = [operation for row in rows for operation in row["ops"]]
    return State(apply_operations(state.tree, operations), record.base)


def digest(file: FileState) -> str:
    """Return what a record keeps of a file."""
    kind = b"l" if file.symlink else b"x" if file.executable else b"f"
    return hashlib.sha256(kind + file.data).hexdigest()


def digests(snapshot: Snapshot) -> dict[str, str]:
    """Return what a record keeps of files, by path."""
    return {path: digest(file) for path, file in snapshot.items()}


def found_digest(directory: Path, path: str) -> str | None:
    """Return the digest of what is at a path of the directory, None when nothing is.

    What cannot be read, or is neither file nor symlink, has a digest that no file has.
    """
    place = directory / path
    try:
        mode = place.lstat().st_mode
        if stat.S_ISLNK(mode):
            # not by pathlib, which drops "./" and a slash at the end
            return digest(FileState(os.readlink(os.fsencode(place)), False, True))  # noqa: PTH115
        if stat.S_ISREG(mode):
            return digest(FileState(place.read_bytes(), bool(mode & stat.S_IXUSR), False))
        return DIRECTORY if stat.S_ISDIR(mode) else "other"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        return "unreadable"


def _has(database: Database, changeset: str) -> bool:
    def call(connection: Connection) -> bool:
        known = connection.execute(queries()["has_changeset"], {"changeset": bytes.fromhex(changeset)})
        return known.fetchone() is not None

    return database.run(call)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.ENOLCK, errno.ENOTSUP):
            raise
        # A network file system that locks no directories.
    return True


def _identity(directory: Path) -> list[int]:
    found = directory.stat()
    return [found.st_dev, found.st_ino]


def _record(found: Mapping[str, Any]) -> Record:
    own, pending = (tuple(Signed(**each) for each in found[name]) for name in ("own", "pending"))
    files, pending_files = (
        None if found[name] is None else {str(path): str(value) for path, value in found[name].items()}
        for name in ("files", "pending_files")
    )
    vector = {str(author): int(seq) for author, seq in found["vector"].items()}
    return Record(str(found["database"]), vector, files, str(found["scope"]), own, pending, pending_files)
