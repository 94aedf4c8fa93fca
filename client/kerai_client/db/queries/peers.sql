-- Other instances, and the log as it travels.

-- name: add_peer
select * from kerai.add_peer(%(name)s, %(connection)s, %(scope)s);

-- name: remove_peer
select kerai.remove_peer(%(name)s);

-- name: peers
select * from kerai.peers
order by name;

-- name: peer_names
select name from kerai.peers
order by name;

-- name: pull
select * from kerai.pull(%(peer)s, %(max_ops)s::int);

-- name: push
select * from kerai.push(%(peer)s, %(max_ops)s::int);

-- name: sync
select * from kerai.sync(%(peer)s, %(max_ops)s::int);

-- name: changesets_since
select
    p.changeset::text as changeset,
    encode(p.signature, 'hex') as signature,
    encode(p.public_key, 'hex') as public_key,
    c.author,
    c.first_seq,
    c.last_seq
from
    kerai.changesets_since(%(vector)s, %(max_ops)s::int) with ordinality
        as p (changeset, signature, public_key, n)
inner join kerai.changesets as c on c.id = sha256(convert_to(p.changeset::text, 'UTF8'))
order by p.n;

-- name: accept
select
    a.n,
    a.status,
    a.applied,
    a.code,
    a.message,
    a.detail,
    a.hint
from
    kerai.accept(%(changesets)s::text[]::json[], %(signatures)s::bytea[], %(public_keys)s::bytea[]) with ordinality
        as a (changeset_id, status, applied, author, last_seq, code, message, detail, hint, n)
order by a.n;
