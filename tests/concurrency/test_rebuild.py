"""kerai.rebuild() and kerai.compact() beside sessions that push: all wait for each other, nothing is lost."""

from __future__ import annotations

import threading
from typing import Any
from uuid import uuid4

from tests.merge.live import LiveAuthor, insert, move, update
from tests.merge.observe import digest, scalar


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
