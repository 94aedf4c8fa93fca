"""The commands peer, pull, push, sync and ops."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.instances.conftest import assert_same
from tests.merge.live import LiveAuthor, insert, update
from tests.merge.observe import scalar

from kerai_client.errors import KeraiError
from kerai_client.repo.exchange import read_lines


def test_peers_and_syncs(instances: Any, connect: Any, kerai: Any, ok: Any, rows: Any) -> None:
    a, b = instances(2)
    here, there = connect(a.dsn), connect(b.dsn)
    here.execute("select kerai.remove_peer(%s)", [b.name])
    LiveAuthor(here, "ann").push(insert(str(uuid4())))
    LiveAuthor(there, "bob").push(insert(str(uuid4())))

    empty = kerai("sync", "--dsn", a.dsn)
    assert empty.returncode == 1 and "kerai peer add" in empty.stderr
    added = ok("peer", "add", "b", "-", "--dsn", a.dsn, "--json", input=b.dsn + "\n")
    assert json.loads(added.stdout)["name"] == "b" and b.dsn not in added.stdout
    assert rows("pull", "b", "--dsn", a.dsn)[0]["pulled_operations"] == 1
    assert rows("push", "b", "--dsn", a.dsn)[0]["pushed_operations"] == 1
    assert_same(here, there)
    LiveAuthor(here, "cid").push(insert(str(uuid4())))
    (result,) = rows("sync", "--dsn", a.dsn)
    assert result["complete"] and result["pushed_changesets"] == 1
    (peer,) = rows("peer", "list", "--dsn", a.dsn)
    assert peer["name"] == "b" and peer["acknowledged"] == scalar(here, "select kerai.version_vector()")
    assert "connection" not in peer

    ok("peer", "add", "gone", "dbname=there_is_no_such", "--dsn", a.dsn)
    failed = kerai("sync", "--dsn", a.dsn, "--json")
    assert failed.returncode == 1
    assert [row["complete"] for row in json.loads(failed.stdout)] == [True, False]
    assert "could not establish connection" in json.loads(failed.stderr)["error"]["detail"]
    ok("peer", "remove", "gone", "--dsn", a.dsn)
    again = kerai("peer", "remove", "gone", "--dsn", a.dsn)
    assert again.returncode == 1 and "KR006" in again.stderr


def test_what_is_refused_does_not_keep_back_the_rest(instances: Any, connect: Any, kerai: Any) -> None:
    a, b = instances(2)
    here, there = connect(a.dsn), connect(b.dsn)
    here.execute("update kerai.settings set value = 1 where name = 'max_changeset_ops'")
    LiveAuthor(there, "ann").push(insert(str(uuid4())), insert(str(uuid4())))
    LiveAuthor(there, "bob").push(insert(str(uuid4())), seen={})
    failed = kerai("pull", b.name, "--dsn", a.dsn, "--json")
    (row,) = json.loads(failed.stdout)
    assert failed.returncode == 1 and row["pulled_changesets"] == 1
    assert "KR005" in json.loads(failed.stderr)["error"]["detail"]


def test_the_log_goes_out_and_in_byte_for_byte(
    instances: Any, connect: Any, ok: Any, rows: Any, tmp_path: Path
) -> None:
    a, b, c = instances(3)
    here, there, third = connect(a.dsn), connect(b.dsn), connect(c.dsn)
    ann = LiveAuthor(here, "änn")
    ann.push(insert(root := str(uuid4()), name="é\u2028\"'\\"))
    ann.push(update(root, content="a\n\tb\x7f"))
    file = tmp_path / "log.jsonl"
    told = rows("ops", "export", file, "--dsn", a.dsn)
    assert (told["changesets"], told["operations"]) == (2, 2)
    assert told["vector"] == scalar(here, "select kerai.version_vector()")
    assert {"changeset", "signature", "public_key"} == set(json.loads(file.read_text("utf-8").split("\n")[0]))
    assert rows("ops", "import", file, "--dsn", b.dsn)["merged"] == 2
    ann.push(update(root, content="c"))
    told = rows("ops", "export", file, "--since", json.dumps(told["vector"]), "--dsn", a.dsn)
    assert told["changesets"] == 1
    assert rows("ops", "import", file, "--dsn", b.dsn)["merged"] == 1
    again = rows("ops", "import", file, "--dsn", b.dsn)
    assert (again["duplicate"], again["refused"]) == (1, 0)
    assert_same(here, there)

    text = ok("ops", "export", "--dsn", a.dsn).stdout
    first = ok("ops", "import", "-", "--dsn", c.dsn, "--json", input=text.split("\n")[0] + "\n")
    assert json.loads(first.stdout)["merged"] == 1
    rest = ok("ops", "import", "-", "--dsn", c.dsn, "--json", input=text)
    assert [json.loads(rest.stdout)[name] for name in ("merged", "duplicate")] == [2, 1]
    assert_same(here, third)


GOOD = '{"changeset": "{}", "signature": "", "public_key": ""}'


WRONG_LINES = [
    ("\n{", "line 2"),
    ("[]", "not an object"),
    ('{"changeset": "{}", "signature": ""}', "public_key"),
    (GOOD.replace('"{}"', "{}"), "not a string"),
    (GOOD.replace('"{}"', '"\\ud800"'), "surrogates"),
    (GOOD.replace('"{}"', '"{"'), "Expecting"),
    (GOOD.replace('"{}"', '"[NaN]"'), "NaN"),
    (GOOD.replace('""', '"zz"'), "hexadecimal"),
]


def test_lines_that_are_no_changesets(module_database: Any, kerai: Any) -> None:
    for text, why in WRONG_LINES:
        with pytest.raises(KeraiError) as refused:
            list(read_lines(io.StringIO(text), "a file"))
        assert why in f"{refused.value.message} {refused.value.detail}"
    failed = kerai("ops", "import", "-", "--dsn", module_database.dsn, input=GOOD)
    assert failed.returncode == 1 and "KR005" in failed.stderr and "line 1" in failed.stderr
    failed = kerai("ops", "import", "-", "--dsn", module_database.dsn, input="{")
    assert failed.returncode == 1 and "line 1 of standard input" in failed.stderr


def test_a_vector_that_is_none(module_database: Any, kerai: Any) -> None:
    for vector in ("x", "[]", '{"a": -1}'):
        failed = kerai("ops", "export", "--since", vector, "--dsn", module_database.dsn)
        assert failed.returncode == 1 and "Traceback" not in failed.stderr and "error" in failed.stderr


def test_what_came_before_a_bad_line_is_told_as_it_is(
    instances: Any, connect: Any, ok: Any, kerai: Any
) -> None:
    a, b = instances(2)
    here, there = connect(a.dsn), connect(b.dsn)
    ann = LiveAuthor(here, "ann")
    ann.push(insert(root := str(uuid4())))
    ann.push(update(root, content="x"))
    text = ok("ops", "export", "--dsn", a.dsn).stdout
    failed = kerai("ops", "import", "-", "--dsn", b.dsn, input=f"{{\n{text}")
    assert failed.returncode == 1 and "line 1 of standard input" in failed.stderr
    assert "; nothing was merged\n" in failed.stderr
    assert scalar(there, "select count(*) from kerai.changesets") == 0
    failed = kerai("ops", "import", "-", "--dsn", b.dsn, input=f"{text}{{\n")
    assert "line 3 of standard input" in failed.stderr
    assert "of the 2 changesets before it 2 were merged, 0 were there already" in failed.stderr
    assert scalar(there, "select count(*) from kerai.changesets") == 2
    failed = kerai("ops", "import", "-", "--dsn", b.dsn, input=f"{text}{{\n")
    assert "0 were merged, 2 were there already, 0 were refused" in failed.stderr
