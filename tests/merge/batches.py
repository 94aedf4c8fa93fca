"""Changesets as they come in pages, wrong ones among them, and what the database made of each."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection
from tests.merge.worlds import KEYS, Signed, World

from kerai import changeset

STATE = """
select
    (select json_agg(n order by n.id) from kerai.nodes as n) as nodes,
    (select json_agg(m order by m.stamp) from kerai_private.moves as m) as moves,
    (select json_agg(o order by o.author, o.author_seq) from kerai.operations as o) as operations,
    (select json_agg(e order by e.source, e.target, e.relation) from kerai.edges as e) as edges,
    (select json_agg(p order by p.node_id, p.author, p.context_id) from kerai.perspectives as p)
        as perspectives,
    (select json_agg(a order by a.source, a.target, a.relation, a.author) from kerai.associations as a)
        as associations,
    (select json_agg(a order by a.author) from kerai_private.authors as a where a.seq > 0) as authors,
    (select json_agg(encode(c.id, 'hex') order by c.arrival) from kerai.changesets as c) as arrivals,
    kerai.version_vector() as vector, kerai.state_digest() as digest"""
RECEIVE = """
select nullif(o.status, 'refused') as status, case when o.code is null then o.applied end as applied,
    o.first_seq, o.last_seq, case when o.code is null then encode(o.changeset_id, 'hex') end as id,
    o.code, o.message, o.detail, o.hint
from kerai_private.receive_all(array(
    select row(u.document, u.signature, u.key)::kerai_private.incoming
    from unnest(%s::text[]::json[], %s::bytea[], %s::bytea[]) with ordinality
        as u (document, signature, key, n)
    order by u.n
), %s) as o
order by o.n"""
PUSH = """
select p.status, p.applied, p.first_seq, p.last_seq, encode(p.changeset_id, 'hex') as id,
    null as code, null as message, null as detail, null as hint
from kerai.push_ops(%s::json, %s, %s) as p"""
Outcome = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parcel:
    """A changeset on its way, right or wrong; ``why`` is what a failing test shows."""

    document: str
    signature: bytes
    public_key: bytes
    why: str = "right"


def parcel(signed: Signed) -> Parcel:
    """Return a world's changeset as it travels."""
    return Parcel(signed.document, signed.signature, signed.public_key)


def everything(connection: Connection[Any]) -> dict[str, Any]:
    """Return all that is replicated, and how each move was judged."""
    found = connection.execute(STATE).fetchone()
    assert found is not None
    for row in [*(found["operations"] or []), *(found["authors"] or [])]:
        row.pop("created_at", None)
        row.pop("introduced_at", None)
    for row in found["nodes"] or []:
        if row["placed_stamp"] is None:
            # Left from moves that are void by now; parent_id and position say the same.
            del row["created_parent_id"], row["created_position"]
    return found


def receive_all(connection: Connection[Any], page: Sequence[Parcel], judge: bool = False) -> list[Outcome]:
    """Take a page in one batch."""
    columns = [
        list(column) for column in zip(*((p.document, p.signature, p.public_key) for p in page), strict=True)
    ]
    return connection.execute(RECEIVE, [*(columns or [[], [], []]), judge]).fetchall()


def push_each(connection: Connection[Any], parcels: Sequence[Parcel]) -> list[Outcome]:
    """Push one by one."""
    outcomes: list[Outcome] = []
    for each in parcels:
        try:
            with connection.transaction():
                found = connection.execute(PUSH, [each.document, each.signature, each.public_key]).fetchone()
                assert found is not None
                outcomes.append(found)
        except psycopg.Error as error:
            about = error.diag
            outcomes.append(
                dict.fromkeys(["status", "applied", "first_seq", "last_seq", "id"])
                | {"code": about.sqlstate, "message": about.message_primary}
                | {"detail": about.message_detail, "hint": about.message_hint}
            )
    return outcomes


def in_pages(
    connection: Connection[Any], parcels: Sequence[Parcel], size: int, judge: bool = False
) -> list[Outcome]:
    """Take everything in pages of so many."""
    return [
        outcome
        for start in range(0, len(parcels), size)
        for outcome in receive_all(connection, parcels[start : start + size], judge)
    ]


def resigned(signed: Signed, why: str, **changes: Any) -> Parcel:
    """Return a changeset with some keys changed, signed by its author."""
    document = json.dumps(json.loads(signed.document) | changes, ensure_ascii=False)
    name = signed.author.rpartition(".")[0]
    return Parcel(document, changeset.sign(document, KEYS[name]), signed.public_key, why)


def spoiled(signed: Signed, chance: random.Random, world: World) -> Parcel:
    """Return something that looks like a changeset of a world and is not."""
    whole = json.loads(signed.document)
    ops, seq, base = whole["ops"], whole["seq"], whole["base"]
    named = chance.choice([o.body["node"] for o in world.operations if o.body["op"] == "node_insert"])
    stranger = "00000000-0000-4000-8000-00000000dead"
    other = chance.choice(world.authors).author
    keys = [bytes(key.verify_key) for key in KEYS.values()]
    broken = [{"op": "node_delete", "node": "0" * 36}, {"op": "x"}, {}, None]

    def writing(node: str) -> dict[str, Any]:
        return {"op": "node_update", "node": node, "set": {"content": "wrong"}}

    forged = [
        ("not his signature", signed.document, bytes(64), signed.public_key),
        ("another text", signed.document + " ", signed.signature, signed.public_key),
        ("another's key", signed.document, signed.signature, chance.choice(keys)),
    ]
    changes: list[tuple[str, dict[str, Any]]] = [
        ("a gap", {"seq": seq + chance.randint(1, 3)}),
        ("a fork", {"message": "fork"}),
        ("a prev that is not here", {"prev": "0" * 64}),
        ("a clock", {"lamport": whole["lamport"] + chance.choice([-1, 1, 2**40]) or 1}),
        ("an unknown node", {"ops": [*ops, writing(stranger)]}),
        ("a base too far", {"base": base | {other: base.get(other, 0) + chance.randint(1, 99)}}),
        ("a guard", {"guard": chance.choice([stranger, named])}),
        ("a base that has seen nothing", {"base": {}}),
        ("malformed", {"ops": [*ops, chance.choice(broken)]}),
        # All else is right: only who has seen the node says whether it may be named.
        *[("a node that he may not have seen", {"ops": [writing(named)]})] * 4,
    ]
    n = chance.randrange(len(forged) + len(changes))
    if n < len(forged):
        why, *rest = forged[n]
        return Parcel(*rest, why)
    why, changed = changes[n - len(forged)]
    return resigned(signed, why, **changed)


def with_wrong_ones(world: World, seed: int) -> list[Parcel]:
    """Return a world's changesets in a causal order, with wrong, early, late and repeated ones among them."""
    chance = random.Random(seed)
    parcels: list[Parcel] = []
    order = world.shuffled(seed)
    for n, signed in enumerate(order):
        if chance.random() < 0.3:
            parcels.append(spoiled(signed, chance, world))
        if chance.random() < 0.1:
            parcels.append(parcel(chance.choice(order[n:])))
        parcels.append(parcel(signed))
        if chance.random() < 0.15:
            parcels.append(spoiled(signed, chance, world))
        if chance.random() < 0.1:
            parcels.append(parcel(chance.choice(order[: n + 1])))
        if len(parcels) > 1 and chance.random() < 0.15:
            parcels[-2:] = parcels[:-3:-1]
    return parcels
