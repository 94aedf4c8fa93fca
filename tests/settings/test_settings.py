"""Nothing depends on settings that a DBA or a user is free to choose.

The connections are raw: the client pins what it needs, other harnesses do not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from psycopg import Connection
from tests.merge.live import LiveAuthor, insert, update
from tests.merge.observe import scalar
from tests.settings.odd import connect_raw

# What a role, a database, postgresql.conf or a client's environment may say.
ODD = {
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "backslash_quote": "off",
}

Raw = Callable[[str], Connection[Any]]

# All that is made once and stays: what CREATE EXTENSION has parsed under the settings of its session.
MADE = """
select format('function %s', p.oid::regprocedure) as what, pg_get_functiondef(p.oid) as text
from pg_proc as p where p.pronamespace in ('kerai'::regnamespace, 'kerai_private'::regnamespace)
union all
select format('constraint %s of %s %s', c.conname, c.conrelid::regclass, c.contypid::regtype),
    pg_get_constraintdef(c.oid)
from pg_constraint as c where c.connamespace in ('kerai'::regnamespace, 'kerai_private'::regnamespace)
union all
select format('view %s', v.oid::regclass), pg_get_viewdef(v.oid) from pg_class as v
where v.relnamespace in ('kerai'::regnamespace, 'kerai_private'::regnamespace) and v.relkind = 'v'
union all
select format('index %s', i.indexrelid::regclass), pg_get_indexdef(i.indexrelid)
from pg_index as i inner join pg_class as c on c.oid = i.indrelid
where c.relnamespace in ('kerai'::regnamespace, 'kerai_private'::regnamespace)
union all
select format('default of %s.%s', d.adrelid::regclass, d.adnum), pg_get_expr(d.adbin, d.adrelid)
from pg_attrdef as d inner join pg_class as c on c.oid = d.adrelid
where c.relnamespace in ('kerai'::regnamespace, 'kerai_private'::regnamespace)
union all
select format('comment on %s', pg_describe_object(d.classoid, d.objoid, d.objsubid)), d.description
from pg_description as d
inner join pg_depend as e on e.classid = d.classoid and e.objid = d.objoid and e.deptype = 'e'
inner join pg_extension as x on x.oid = e.refobjid and e.refclassid = 'pg_extension'::regclass
where x.extname = 'kerai'
union all
select 'errors', json_agg(e order by e.code collate "C")::text from kerai.errors as e
union all
select 'settings', json_agg(s order by s.name collate "C")::text from kerai.settings as s
"""


@pytest.fixture(scope="module")
def odd_database(make_database: Any) -> Iterator[Any]:
    """An instance that was made, and is used, under odd settings."""
    with make_database(template=None, settings=ODD) as made:
        yield made


@pytest.fixture
def raw() -> Iterator[Raw]:
    """Return a factory of connections that pin nothing."""
    opened: list[Connection[Any]] = []

    def open_one(dsn: str) -> Connection[Any]:
        opened.append(connect_raw(dsn))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


@pytest.fixture
def odd(odd_database: Any, raw: Raw) -> Connection[Any]:
    """A session with the odd settings."""
    connection = raw(odd_database.dsn)
    for name, value in ODD.items():
        assert scalar(connection, "select current_setting(%s)", [name]) == value
    return connection


def test_create_extension_makes_the_same(odd: Connection[Any], database: Any, raw: Raw) -> None:
    def made(connection: Connection[Any]) -> dict[str, str]:
        return {row["what"]: row["text"] for row in connection.execute(MADE)}

    ordinary = made(raw(database.dsn))
    assert len(ordinary) > 500
    assert made(odd) == ordinary


def test_a_hosted_agent_pushes(odd: Connection[Any]) -> None:
    scalar(odd, "select (kerai.register_agent('gardener', 'human')).id")
    node = str(uuid4())
    operation = insert(node, name="back\\slash", content="it's a \\n, a \\\\ and a \"\n")
    pushed = odd.execute("select * from kerai.push_ops(%s)", [json.dumps([operation])]).fetchone()
    assert pushed is not None
    assert pushed["status"] == "merged"
    assert scalar(odd, "select kerai.source(%s)", [node]) == operation["content"]


def test_what_is_pushed_can_be_read_in_every_way(odd: Connection[Any]) -> None:
    author = LiveAuthor(odd, "a_n%n\\")
    before = scalar(odd, "select kerai.version_vector()")
    node = str(uuid4())
    assert author.push(insert(node, name="one.py", content="1\n"), update(node, content="2\\\n")) == "merged"
    after = scalar(odd, "select kerai.version_vector()")
    vectors = [json.dumps(before), json.dumps(after)]
    assert scalar(odd, "select kerai.vector_compare(%s, %s)", vectors) == "before"
    assert scalar(odd, "select kerai.vector_merge(%s, %s)", vectors) == after
    log = odd.execute("select * from kerai.log(author => %s)", ["a_n%n\\"]).fetchall()
    assert [row["operations"] for row in log] == [2]
    assert odd.execute("select * from kerai.log(author => 'axn%n\\\\')").fetchall() == []
    assert odd.execute("select * from kerai.diff(%s, %s)", vectors).fetchall()
    assert odd.execute("select * from kerai.verify()").fetchall() == []
