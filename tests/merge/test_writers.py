"""Swarms that group their members: one entry a writer in the vectors, each member's signature kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from nacl.signing import SigningKey
from psycopg import Connection
from tests.merge.batches import Parcel, push_each, receive_all
from tests.merge.live import insert, move, update
from tests.merge.members import Member, launch, status, verified, writer_of
from tests.merge.observe import digest, scalar
from tests.settings.odd import connect as connect_to

from kerai import changeset

CHANGESETS = """
select author, first_seq, last_seq, first_lamport, encode(prev, 'hex') as prev, encode(id, 'hex') as id,
    member, member_signature, draft_id, document::text as document, signature
from kerai.changesets where member is not null order by arrival"""


@pytest.fixture
def crew(connect: Any) -> Callable[..., tuple[Connection[Any], str, list[Member]]]:
    """Return a function that launches a grouped swarm: connection, swarm and its members."""

    def make(members: int = 2, **task: Any) -> tuple[Connection[Any], str, list[Member]]:
        connection = connect()
        _, swarm = launch(connection, **task)
        joined = [Member(connection, f"member-{n}") for n in range(members)]
        for each in joined:
            each.join(swarm)
        return connection, swarm, joined

    return make


def told(connection: Connection[Any]) -> list[Parcel]:
    """Return everything that is merged here, as another instance gets it."""
    rows = connection.execute(
        "select changeset::text as c, signature, public_key from kerai.changesets_since('{}')"
    )
    return [Parcel(row["c"], row["signature"], row["public_key"]) for row in rows]


def assert_replicates(connection: Connection[Any], second: Any) -> None:
    """Check that another instance takes everything byte for byte, one by one and in a batch."""
    parcels = told(connection)
    with connect_to(second.dsn) as other:
        for take in (push_each, receive_all):
            with other.transaction(force_rollback=True):
                outcomes = take(other, parcels)
                assert [each["code"] for each in outcomes] == [None] * len(parcels), outcomes
                assert digest(other) == digest(connection)
                assert told(other) == parcels


@pytest.mark.parametrize("way", ["push", "await"])
def test_members_write_under_the_swarms_author_id(crew: Any, second_database: Any, way: str) -> None:
    connection, swarm, members = crew(6)
    root = str(uuid4())
    assert status(members[0].send(members[0].draft(swarm, insert(root)))) == "merged"
    drafts = [
        (each, each.draft(swarm, insert(str(uuid4()), root), update(root, content=each.author)))
        for _ in range(2)
        for each in members
    ]
    if way == "push":
        results = [each.send(draft) for each, draft in drafts]
    else:
        tickets = [(each, each.submit(draft)) for each, draft in drafts]
        results = [each.answer(ticket) for each, ticket in tickets]
    assert [(each["status"], each["applied"]) for each in results] == [("merged", 2)] * len(drafts)

    writer = writer_of(connection, swarm)
    assert scalar(connection, "select kerai.version_vector()") == {writer: 1 + 2 * len(drafts)}
    rows = connection.execute(CHANGESETS).fetchall()
    keys = {each.author: each.public_key for each in members}
    instance_key = scalar(connection, "select kerai.instance_key()")
    heads: dict[str, tuple[int, str | None]] = {}
    texts = []
    for row in rows:
        draft = verified(row, keys[row["member"]])
        texts.append(json.dumps(draft, ensure_ascii=False, separators=(",", ":")))
        assert draft["author"] == row["member"]
        assert changeset.verify(row["document"], row["signature"], instance_key)
        seq, prev = heads.get(row["author"], (0, None))
        assert (row["first_seq"], row["prev"]) == (seq + 1, prev)
        heads[row["author"]] = row["last_seq"], row["id"]
    assert sorted(texts[1:]) == sorted(draft for _, draft in drafts)
    assert {row["member"]: row["author"] for row in rows}.items() == {
        (r["member"], r["author"]) for r in rows
    }
    assert_replicates(connection, second_database)


def test_a_draft_is_merged_once(crew: Any, second_database: Any) -> None:
    connection, swarm, (ann, bob) = crew()
    draft = ann.draft(swarm, insert(str(uuid4())))
    first = ann.send(draft)
    again = [ann.send(draft), ann.answer(ann.submit(draft)), bob.answer(ann.submit(draft))]
    assert first["status"] == "merged"
    assert again == [first | {"status": "duplicate", "applied": 0}] * 3
    assert_replicates(connection, second_database)


def test_a_draft_that_waits_twice_is_merged_once(crew: Any) -> None:
    connection, swarm, (ann, bob) = crew()
    draft = ann.draft(swarm, insert(str(uuid4())))
    tickets = [ann.submit(draft), bob.submit(bob.draft(swarm, insert(str(uuid4())))), ann.submit(draft)]
    results = [bob.answer(tickets[n]) for n in (1, 0, 2)]
    assert [each["status"] for each in results] == ["merged", "merged", "duplicate"], results
    assert results[2]["changeset_id"] == results[1]["changeset_id"]
    assert scalar(connection, "select count(*) from kerai.changesets") == 2


def test_who_may_not_push_drafts(crew: Any) -> None:
    connection, swarm, (ann, _) = crew()
    _, other = launch(connection, grouped=False)
    ann.join(other)
    stranger = Member(connection, "stranger")
    change = insert(str(uuid4()))

    assert status(stranger.send(stranger.draft(swarm, change))) == "KR013"
    assert status(ann.send(ann.draft(other, change))) == "KR011"
    assert status(ann.send(ann.draft(str(uuid4()), change))) == "KR006"
    document = ann.draft(swarm, change)
    for key, code in ((stranger.public_key, "KR002"), (None, "KR001")):
        signature = changeset.sign(document, stranger.key)
        with pytest.raises(Exception) as refused:
            connection.execute("select kerai.push_ops(%s::json, %s, %s)", [document, signature, key])
        assert refused.value.sqlstate == code  # type: ignore[attr-defined]
    connection.execute("select kerai.stop_swarm(%s)", [swarm])
    assert status(ann.send(document)) == "KR011"
    assert scalar(connection, "select count(*) from kerai.changesets") == 0


def test_what_was_merged_before_the_swarm_stopped_is_a_duplicate_after(crew: Any) -> None:
    connection, swarm, (ann, bob) = crew()
    draft = ann.draft(swarm, insert(str(uuid4())))
    late = ann.submit(bob_draft := ann.draft(swarm, insert(str(uuid4()))))
    merged = ann.send(draft)
    connection.execute("select kerai.stop_swarm(%s)", [swarm])
    assert ann.send(draft) == merged | {"status": "duplicate", "applied": 0}
    assert ann.answer(ann.submit(draft)) == merged | {"status": "duplicate", "applied": 0}
    assert status(bob.answer(late)) == "KR011"
    assert status(ann.send(bob_draft)) == "KR011"


def test_a_draft_of_a_stopped_swarm_takes_nothing_else_of_its_page_with_it(crew: Any) -> None:
    connection, swarm, (ann, bob) = crew()
    node = str(uuid4())
    documents = [(ann, ann.own(insert(node))), (bob, bob.draft(swarm, insert(str(uuid4())), seen={}))]
    connection.execute("select kerai.stop_swarm(%s)", [swarm])
    page = [Parcel(text, changeset.sign(text, each.key), each.public_key) for each, text in documents]
    outcomes = receive_all(connection, page, judge=True)
    assert [each["status"] or each["code"] for each in outcomes] == ["merged", "KR011"]


def test_malformed_drafts(crew: Any) -> None:
    connection, swarm, (ann, _) = crew()
    good = json.loads(ann.draft(swarm, insert(str(uuid4()))))
    for changes in (
        {"swarm": None},
        {"swarm": "x"},
        {"seq": 1},
        {"lamport": 1},
        {"prev": None},
        {"draft": good},
        {"v": 2},
        {"base": None},
        {"base": {"x": -1}},
        {"ops": []},
        {"ops": [{"op": "node_insert"}]},
        {"guard": "x"},
        {"author": "x"},
        {"message": 1},
    ):
        assert status(ann.send(json.dumps(good | changes))) == "KR005", changes
    assert scalar(connection, "select count(*) from kerai.changesets") == 0


@pytest.mark.parametrize("around", ["{}\n", " {}", "{} \t"])
def test_a_draft_is_written_so_that_other_instances_read_the_same_text(
    crew: Any, second_database: Any, around: str
) -> None:
    """White space around a draft is no part of it once it stands in a changeset: nobody could verify it."""
    connection, swarm, (ann, _) = crew()
    text = around.format(ann.draft(swarm, insert(str(uuid4()))))
    assert status(ann.send(text)) == "KR005"
    spread = json.dumps(json.loads(ann.draft(swarm, insert(str(uuid4()), name='é \\ "{}'))), indent=1)
    assert status(ann.send(spread)) == "merged"
    assert_replicates(connection, second_database)


def test_a_draft_leaves_room_for_what_is_put_around_it(crew: Any, second_database: Any) -> None:
    connection, swarm, (ann, _) = crew()
    most = 20_000
    for dsn in (None, second_database.dsn):
        with connect_to(dsn or connection.info.dsn) as each:
            each.execute("update kerai.settings set value = %s where name = 'max_changeset_bytes'", [most])
    text = ann.draft(swarm, insert(str(uuid4())))
    wide = ann.draft(swarm, insert(str(uuid4())), message="x" * (most - len(text)))
    assert len(wide) == most
    assert status(ann.send(wide)) == "KR005"
    merged = [ann.send(ann.draft(swarm, insert(str(uuid4())), message="x" * n)) for n in range(0, most, 997)]
    assert [each for each in merged if status(each) == "merged"]
    assert {status(each) for each in merged} == {"merged", "KR005"}
    assert_replicates(connection, second_database)


@pytest.mark.parametrize("name", ["n" * 200, "ü" * 200, '"' * 200])
def test_a_long_name_of_a_swarm_does_not_keep_its_changesets_here(
    connect: Any, second_database: Any, name: str
) -> None:
    connection = connect()
    _, swarm = launch(connection, name=name)
    for n in range(4):
        member = Member(connection, f"member-{n}")
        member.join(swarm)
        assert status(member.send(member.draft(swarm, insert(str(uuid4()))))) == "merged"
    assert_replicates(connection, second_database)


def test_nobody_else_writes_under_a_writers_author_id(crew: Any) -> None:
    connection, swarm, _ = crew()
    name = writer_of(connection, swarm).rpartition(".")[0]
    with pytest.raises(Exception) as refused:
        connection.execute("select kerai.register_agent(%s, 'human')", [name])
    assert refused.value.sqlstate == "KR002"  # type: ignore[attr-defined]


def test_what_was_changed_on_the_way_does_not_verify(second_database: Any) -> None:
    """Not even when the instance that signs the envelope has changed it."""
    instance, member, other = (SigningKey.generate() for _ in range(3))
    key, member_key = bytes(instance.verify_key), bytes(member.verify_key)
    # The id of a swarm ends in its instance's fingerprint.
    swarm = str(UUID(hex="0" * 16 + changeset.author_id("", key).removeprefix(".")))
    ops = [insert(str(uuid4()), name='é \\ "{}')]
    draft = changeset.draft(changeset.author_id("ann", member_key), swarm, ops, message="true")
    signature = changeset.sign(draft, member)
    writer = changeset.author_id("crew", key)
    text = changeset.wrap(writer, 1, 1, draft, member_key=member_key, member_signature=signature, prev=None)
    whole = json.loads(text)

    def wrapped(text: str) -> Parcel:
        return Parcel(text, changeset.sign(text, instance), key)

    wrong = {
        "KR001": [
            wrapped(text.replace('"true"', '"false"')),
            wrapped(text.replace(draft, draft.replace(":", ": ", 1))),
            wrapped(json.dumps(whole | {"member_signature": "0" * 128})),
            Parcel(text.replace('"seq":1', '"seq": 1'), changeset.sign(text, instance), key),
        ],
        "KR002": [
            wrapped(json.dumps(whole | {"member_key": bytes(other.verify_key).hex()})),
            Parcel(text, changeset.sign(text, instance), bytes(other.verify_key)),
        ],
        "KR005": [
            wrapped(json.dumps({k: v for k, v in whole.items() if k != dropped}))
            for dropped in ("member_key", "member_signature", "seq", "prev", "lamport")
        ]
        + [wrapped(json.dumps(whole | {"ops": []})), wrapped(json.dumps(whole | {"base": {}}))]
        + [wrapped(json.dumps(whole | {"draft": changeset.build(whole["draft"]["author"], 1, 1, ops)}))]
        + [
            wrapped(
                json.dumps(
                    whole | {"draft": json.loads(changeset.build(whole["draft"]["author"], 1, 1, ops))}
                )
            )
        ]
        + [
            wrapped(text.replace('"lamport":1', '"lamport":2')),
            wrapped(json.dumps(whole | {"member_key": None})),
        ],
    }
    with connect_to(second_database.dsn) as second:
        for code, parcels in wrong.items():
            for take in (push_each, receive_all):
                assert [each["code"] for each in take(second, parcels)] == [code] * len(parcels), code
        assert scalar(second, "select kerai.version_vector()") == {}
        assert push_each(second, [wrapped(text)])[0]["status"] == "merged"
        (row,) = second.execute(CHANGESETS).fetchall()
        assert verified(row, member_key)["author"] == row["member"]


def test_a_stolen_draft_does_not_cut_its_writer_off(crew: Any, second_database: Any) -> None:
    """A thief wraps a member's draft in a changeset of its own; the writer's is merged all the same."""
    connection, swarm, (ann, _) = crew()
    node = str(uuid4())
    ann.send(ann.draft(swarm, insert(node)))
    ann.send(ann.draft(swarm, update(node, content="2")))
    thief = SigningKey.generate()
    key = bytes(thief.verify_key)
    whole = told(connection)[0]
    text = whole.document.replace(
        f'"author":"{writer_of(connection, swarm)}"',
        f'"author":"{changeset.author_id("eve", key)}"',
        1,
    )
    stolen = Parcel(text, changeset.sign(text, thief), key)
    states = []
    with connect_to(second_database.dsn) as second:
        for order in ([stolen, *told(connection)], [*told(connection), stolen]):
            with second.transaction(force_rollback=True):
                outcomes = receive_all(second, order)
                assert sorted(status(each) for each in outcomes) == ["KR013", "merged", "merged"]
                states.append(digest(second))
    assert states == [digest(connection)] * 2


def test_a_guard_sees_other_members_of_the_swarm_and_not_oneself(crew: Any) -> None:
    _, swarm, (ann, bob) = crew()
    root, leaf = str(uuid4()), str(uuid4())
    assert status(ann.send(ann.draft(swarm, insert(root), insert(leaf, root)))) == "merged"
    seen = scalar(ann.connection, "select kerai.version_vector()")
    assert status(ann.send(ann.draft(swarm, update(leaf, content="1"), seen=seen))) == "merged"
    own = ann.draft(swarm, update(leaf, content="2"), seen=seen, guard=root)
    others = bob.draft(swarm, update(leaf, content="3"), seen=seen, guard=root)
    assert status(bob.send(others)) == "stale"
    assert status(bob.answer(bob.submit(others))) == "stale"
    assert status(ann.answer(ann.submit(own))) == "merged"
    assert status(bob.send(bob.draft(swarm, update(leaf, content="3"), guard=root))) == "merged"


def test_views_and_wallets_are_the_members_own(crew: Any) -> None:
    connection, swarm, (ann, bob) = crew()
    node = str(uuid4())
    ann.send(ann.draft(swarm, insert(node), insert(other := str(uuid4()))))
    for each, weight in ((ann, 0.5), (bob, -0.5)):
        view = {"op": "perspective_set", "node": node, "weight": weight, "reasoning": None}
        link = {"op": "association_set", "source": node, "target": other, "relation": "r", "weight": weight}
        assert status(each.send(each.draft(swarm, view, link))) == "merged"
    gone = {"op": "perspective_delete", "node": node}
    assert status(bob.send(bob.draft(swarm, gone))) == "merged"
    wanted = {ann.author: 0.5, bob.author: -0.5}
    for table in ("perspectives", "associations"):
        rows = connection.execute(f"select author, weight, deleted from kerai.{table}").fetchall()
        assert {row["author"]: row["weight"] for row in rows if not row["deleted"]} == (
            {ann.author: 0.5} if table == "perspectives" else wanted
        )
    assert scalar(connection, "select count(*) from kerai.wallets where label like 'crew%'") == 0


def test_budgets_and_rewards_are_the_members_own(connect: Any) -> None:
    connection = connect()
    task, swarm = launch(connection, budget_ops=3)
    members = [Member(connection, f"member-{n}") for n in range(2)]
    root = str(uuid4())
    for each in members:
        each.join(swarm)
    ann, bob = members
    assert status(ann.send(ann.draft(swarm, insert(root), insert(str(uuid4()), root), task=task))) == "merged"
    tickets = [
        each.submit(each.draft(swarm, *(insert(str(uuid4()), root) for _ in range(count)), task=task))
        for each, count in ((ann, 2), (bob, 1), (ann, 1), (bob, 3), (bob, 1))
    ]
    results = [
        status(each.answer(ticket)) for each, ticket in zip([bob, ann, ann, bob, bob], tickets, strict=True)
    ]
    assert results == ["KR008", "merged", "merged", "KR008", "merged"]
    vector = json.dumps(scalar(connection, "select kerai.version_vector()"))
    connection.execute("select kerai.record_test_result(%s, %s, %s::jsonb, true)", [task, ann.id, vector])
    assert scalar(connection, "select status from kerai.tasks where id = %s", [task]) == "succeeded"
    balances = [scalar(connection, "select kerai.balance(%s)", [each.wallet]) for each in members]
    minted = scalar(connection, "select sum(amount)::bigint from kerai.mints")
    assert sum(balances) == minted
    assert balances == [minted - minted * 2 // 5, minted * 2 // 5]


def test_grouped_and_ungrouped_agents_mix(crew: Any, second_database: Any) -> None:
    connection, swarm, (ann, bob) = crew()
    connection.execute("select kerai.register_agent('shell', 'human')")
    root, x, y = (str(uuid4()) for _ in range(3))
    assert status(ann.send(ann.draft(swarm, insert(root), insert(x), insert(y)))) == "merged"
    assert status(bob.send(bob.own(move(x, y)))) == "merged"
    assert status(ann.answer(ann.submit(ann.draft(swarm, move(y, root))))) == "merged"
    assert status(bob.answer(bob.submit(bob.draft(swarm, move(root, x))))) == "merged"
    assert (
        scalar(connection, "select status from kerai.push_ops(%s::json)", [json.dumps([update(x, name="x")])])
        == "merged"
    )
    assert status(bob.answer(bob.submit(bob.own(update(x, content="bob"))))) == "merged"
    assert_replicates(connection, second_database)


@pytest.mark.parametrize("first", ["draft", "own"])
def test_a_restored_key_is_named_when_it_is_missing_and_keeps_nobody_else_waiting(
    crew: Any, first: str
) -> None:
    connection, swarm, (ann, bob) = crew()
    writer = writer_of(connection, swarm)
    key = scalar(connection, "select public_key from kerai_private.authors where author = %s", [writer])
    setting = "update kerai_private.authors set public_key = %s where author = %s"
    connection.execute(setting, [bytes(SigningKey.generate().verify_key), writer])

    result = ann.send(ann.draft(swarm, insert(str(uuid4()))))
    assert result["code"] == "KR011"
    assert "key file" in result["detail"]
    tickets = {
        "draft": ann.submit(ann.draft(swarm, insert(str(uuid4())))),
        "another": ann.submit(ann.draft(swarm, insert(str(uuid4())))),
        "own": bob.submit(bob.own(insert(str(uuid4())))),
    }
    connection.execute("set statement_timeout = '20s'")  # nobody's turn takes so long
    assert status(ann.answer(tickets[first])) == {"draft": "KR011", "own": "merged"}[first]
    assert status(bob.answer(tickets["own"])) == "merged"
    assert status(ann.answer(tickets["another"])) == "KR011"

    connection.execute(setting, [key, writer])
    assert status(ann.send(ann.draft(swarm, insert(str(uuid4()))))) == "merged"
