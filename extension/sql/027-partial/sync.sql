-- Sync: the calls. exchange.sql has the conversation.

create or replace function kerai.pull(peer text, max_ops int default null) returns kerai.sync_result
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select * from kerai_sync.exchange(pull.peer, pulling => true, pushing => false, max_ops => pull.max_ops)
$$;

comment on function kerai.pull(text, int) is
'Brings over what a peer has and this instance has not, byte for byte, each changeset verified. An error on the way is in problem, not raised: everything merged before it stays, and the next call goes on from there. It ends after about max_ops operations, and complete says whether everything is here. Pushes wait until the transaction ends: on a busy instance pull in steps of 100,000 operations, as the command kerai pull does.';

create or replace function kerai.push(peer text, max_ops int default null) returns kerai.sync_result
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select * from kerai_sync.exchange(push.peer, pulling => false, pushing => true, max_ops => push.max_ops)
$$;

comment on function kerai.push(text, int) is
'Brings to a peer what this instance has and the peer has not. Otherwise like kerai.pull.';

create or replace function kerai.sync(peer text, max_ops int default null) returns kerai.sync_result
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select * from kerai_sync.exchange(sync.peer, pulling => true, pushing => true, max_ops => sync.max_ops)
$$;

comment on function kerai.sync(text, int) is
'Makes this instance and a peer equal: compares the heads of all authors (a fork shows there, and is kept in kerai.forks on both sides), pushes, then pulls. Otherwise like kerai.pull; max_ops counts in each direction.';

comment on type kerai.sync_result is
'What kerai.pull, push and sync answer: changesets and operations merged here (pulled) and at the peer (pushed), and bytes of changesets carried. Then changesets refused (see kerai.refusals) and forks found. If complete, nothing is left to bring; problem says what ended it early.';
