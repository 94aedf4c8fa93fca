"""kerai.rebuild() and kerai.compact() beside sessions that push: all wait for each other, nothing is lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from tests.concurrency.test_push import until_blocked
from tests.merge.live import LiveAuthor, insert, move, update
from tests.merge.members import called
from tests.merge.observe import digest, scalar
from tests.support.locks import set_lock_wait

from kerai import changeset


@pytest.mark.read_committed
def test_pushes_go_on_while_the_tree_is_rebuilt_and_history_dropped(connect: Any) -> None:
    first = connect()
    roots = [str(uuid4()) for _ in range(3)]
    LiveAuthor(first, "root").push(*(insert(root) for root in roots))
    # What is pushed from here on has a base that names all that came before, so dropping that refuses nobody.
    begin = scalar(first, "select clock_timestamp()")
    problems: list[BaseException] = []
    connections = [connect() for _ in roots]

    def push(number: int) -> None:
        try:
            author = LiveAuthor(connections[number], f"author-{number}")
            for turn in range(12):
                node = str(uuid4())
                assert author.push(insert(node, roots[number])) == "merged"
                author.push(update(node, name=f"n{turn}"), move(node, roots[turn % len(roots)]))
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(len(roots))]
    for thread in threads:
        thread.start()
    first.execute("select kerai.rebuild()")
    first.execute("select kerai.compact(%s)", [begin])
    first.execute("select kerai.rebuild()")
    for thread in threads:
        thread.join()
    assert not problems
    assert scalar(first, "select changesets from kerai.compactions") == 1
    assert scalar(first, "select count(*) from kerai.nodes") == 3 + 3 * 12
    before = digest(first)
    assert first.execute("select * from kerai.verify()").fetchall() == []
    assert scalar(first, "select changed from kerai.rebuild()") is False
    assert digest(first) == before


def grown(connection: Any) -> LiveAuthor:
    """Push a small tree with a move; return its author."""
    author = LiveAuthor(connection, "author")
    root, a, b = (str(uuid4()) for _ in range(3))
    author.push(insert(root, name="root"), insert(a, root, name="a"), insert(b, root))
    author.push(move(b, a), update(a, content="x"))
    author.push(update(a, content="y"))
    return author


@pytest.mark.read_committed
def test_a_rebuild_that_waits_for_a_compaction_goes_by_what_that_has_left(connect: Any) -> None:
    author = grown(connect())
    compactor, observer = connect(), connect()
    before = digest(observer)
    rebuilding = LiveAuthor(connect(), "rebuilder")
    with ThreadPoolExecutor(1) as pool:
        with compactor.transaction():
            compactor.execute("select kerai.compact(now())")
            answer = pool.submit(scalar, rebuilding.connection, "select changed from kerai.rebuild()")
            until_blocked(observer, rebuilding, LiveAuthor(compactor, "compactor"))
        assert answer.result(timeout=30) is False
    assert digest(observer) == before
    assert observer.execute("select * from kerai.verify()").fetchall() == []
    assert author.push(insert(str(uuid4()))) == "merged"
    assert observer.execute("select * from kerai.verify()").fetchall() == []


@pytest.mark.parametrize("call", ["kerai.rebuild()", "kerai.compact(now())"])
def test_readers_and_dumps_are_not_in_the_way_and_see_what_was_there(connect: Any, call: str) -> None:
    """pg_dump locks every table like this, and reads them one after the other."""
    author = grown(connect())
    reader, operator = connect(), connect()
    operator.execute("set statement_timeout = '20s'")
    before = digest(operator)
    tables = """
        select quote_ident(n.nspname) || '.' || quote_ident(c.relname) as name
        from pg_class as c inner join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname in ('kerai', 'kerai_private') and c.relkind in ('r', 'p')"""
    with reader.transaction():
        reader.execute("set transaction isolation level repeatable read")
        for row in reader.execute(tables).fetchall():
            reader.execute(f"lock table {row['name']} in access share mode".encode())
        operator.execute(f"select {call}".encode())
        assert author.push(insert(str(uuid4()))) == "merged"
        assert digest(reader) == before
        assert reader.execute("select * from kerai.verify()").fetchall() == []
        assert scalar(reader, "select count(*) from kerai.changesets where document is null") == 0
    assert reader.execute("select * from kerai.verify()").fetchall() == []


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("call", ["kerai.rebuild()", "kerai.compact(now())"])
def test_what_waits_for_pushes_has_to_see_what_they_have_merged(connect: Any, call: str, level: str) -> None:
    author = grown(connect())
    operator = connect()
    with pytest.raises(psycopg.Error) as refused, operator.transaction():
        operator.execute(f"set transaction isolation level {level}".encode())
        # A snapshot from before what is merged next.
        operator.execute("select 1 from kerai.nodes limit 1")
        author.push(insert(str(uuid4())))
        operator.execute(f"select {call}".encode())
    assert refused.value.sqlstate == "40001"
    assert refused.value.diag.message_detail == f"transaction isolation: {level}"
    assert operator.execute("select * from kerai.verify()").fetchall() == []


def test_a_fork_is_reported_beside_a_rebuild_or_is_refused(connect: Any) -> None:
    """Only the first report of an author who is not known here has to wait for it."""
    operator, peer = connect(), connect()
    set_lock_wait(operator, 100)
    known = grown(connect())
    stranger = LiveAuthor(connect(), "stranger")
    report = "select kerai.report_fork(%s, %s::json, %s, %s::json, %s) as status"

    def both(author: LiveAuthor) -> list[Any]:
        documents = [
            changeset.build(author.author, 1, 1, [insert(str(uuid4()))], message=text) for text in "12"
        ]
        signed = [part for each in documents for part in (each, changeset.sign(each, author.key))]
        return [author.public_key, *signed]

    with operator.transaction():
        operator.execute("select kerai.rebuild()")
        assert called(peer, report, both(known)) == {"status": True}
        refusal = called(peer, report, both(stranger))
    assert refusal["code"] == "KR009"
    assert "lock timeout" in refusal["detail"]
    assert called(peer, report, both(stranger)) == {"status": True}
