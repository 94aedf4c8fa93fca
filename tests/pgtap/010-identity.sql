-- Errors, limits, the instance's key, agents and who may act for them.
begin;
\ir 010-helpers.psql
select no_plan();

-- errors and settings
select is(array_agg(e.code order by e.code), array(select 'KR' || lpad(n::text, 3, '0') from generate_series(1, 13) as n),
    'the table of errors has every code') from kerai.errors as e;
select is_empty($$select from kerai.errors where length(meaning) < 10 or length(hint) < 10 or condition !~ '^[a-z_]+$'$$,
    'each with a meaning and a hint');
select throws_ok($$select kerai_private.refuse('KR009', 'no')$$, 'KR009', 'no', 'a refusal has its code and message');
select is(s.value, kerai_private.setting('max_changeset_ops'), 'setting() reads kerai.settings')
from kerai.settings as s where s.name = 'max_changeset_ops';
select is(kerai_private.setting('max_changeset_bytes'), 8388608::bigint, 'by default a changeset has 8 MiB at most');
select is(kerai_private.setting('max_changeset_ops'), 50000::bigint, 'and 50,000 operations');
select pg_temp.refuses(format('update kerai.settings set value = %s where name = %L', value, 'max_nesting'), 'KR005',
    'a setting is a whole number from 1 to 1000000000', 'max_nesting: ' || value, 'SELECT value, description', 'a limit of ' || value)
from (values ('0'), ('-1'), ('1000000001'), ('null')) as v (value);
update kerai.settings set value = value + 1 where name in ('max_nesting', 'max_changeset_ops');
update kerai.settings set value = value + 1 where name = 'max_nesting';
select is(array_agg(kerai_private.setting(n) order by n), '{50001,34}', 'a limit is what an operator has last said')
from unnest('{max_nesting,max_changeset_ops}'::text[]) as n;
select is(kerai_private.setting('max_nesting'), s.value, 'and what the view shows')
from kerai.settings as s where s.name = 'max_nesting';
select throws_ok($$update kerai.settings set name = 'x' where name = 'max_nesting'$$, 'KR005',
    'of a setting only the value changes', 'its name stays');
delete from kerai_private.changed_settings;

-- the instance's key
select is(octet_length(kerai.instance_key()), 32, 'the instance has a key');
select is(kerai.instance_key(), kerai.instance_key(), 'and keeps it');
create function pg_temp.key_file(public_key bytea) returns text
language plpython3u as $$
import hashlib, os, stat
folder = os.path.join(plpy.execute("select current_setting('data_directory') as d")[0]["d"], "kerai")
name = hashlib.sha256(public_key).hexdigest()[:16] + ".key"
modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (folder, os.path.join(folder, name))]
with open(os.path.join(folder, name)) as file:
    from nacl.signing import SigningKey
    fits = bytes(SigningKey(bytes.fromhex(file.readline())).verify_key) == public_key
return "%o %o %s" % (modes[0], modes[1], fits)
$$;
select is(pg_temp.key_file(kerai.instance_key()), '700 600 True', 'its private half is a 0600 file in the data directory');

-- register_agent
select is((a.name, a.kind, a.model, a.public_key, a.hosted, a.owner_role, a.capabilities, a.config)::text,
    ('ann'::text, 'llm'::text, 'm-1'::text, pg_temp.key('ann'), false, session_user::text, '{a,b}'::text[], '{"k": 1}'::jsonb)::text,
    'an agent with a key of its own')
from kerai.register_agent('ann', 'llm', pg_temp.key('ann'), 'm-1', '{a,b}', '{"k": 1}') as a;
select is(a.author, pg_temp.author('ann'), 'its author id is its name and the fingerprint of its key')
from kerai.agents as a where a.name = 'ann';
select is(kerai.register_agent('ann', 'llm', pg_temp.key('ann')), a, 'the same name and key again are the same row')
from kerai.agents as a where a.name = 'ann';
select is(kerai.balance(a.wallet_id), 0::bigint, 'it has a wallet') from kerai.agents as a where a.name = 'ann';
select is((a.public_key = kerai.instance_key() and a.hosted)::text, 'true', 'an agent without a key is the instance''s')
from kerai.register_agent('shell', 'human') as a;
select is(kerai.register_agent('shell', 'human'), a, 'and is the same row again') from kerai.agents as a where a.name = 'shell';
select is(a.name, n, format('a name may be %L', n))
from unnest(array['é.ü 1', $q$'; drop table kerai.agents; --$q$, 'x', repeat('n', 200), '😀', '"q"', '%s']) as n,
    kerai.register_agent(n, 'tool', pg_temp.key(n)) as a;
select is(count(*), 4::bigint, 'all four kinds') from unnest('{human,llm,tool,swarm}'::text[]) as k,
    kerai.register_agent('kind-' || k, k) as a where a.kind = k;

select pg_temp.refuses($$select kerai.register_agent('ann', 'llm', pg_temp.key('bob'))$$, 'KR002',
    'this name is taken with another key', 'name: ann, registered key: [0-9a-f]{64}', 'another name', 'another key');
select pg_temp.refuses($$select kerai.register_agent('ann', 'llm')$$, 'KR002', 'this name is taken with another key',
    'the agent''s own', 'another name', 'a name that has a key of its own, hosted');
select pg_temp.refuses($$select kerai.register_agent('shell', 'human', pg_temp.key('ann'))$$, 'KR002',
    'this name is taken with another key', 'hosted, for role', 'another name', 'a hosted name with a key');
select pg_temp.refuses(format('select kerai.register_agent(%L, %L)', n, 'llm'), 'KR005',
    'an agent''s name is 1 to 200 printable characters', 'name: ', 'solver-1', format('the name %L', left(n, 20)))
from unnest(array[null, '', ' ', ' ann', 'ann ', E'a\nb', E'a\tb', E'a\x7f', repeat('n', 201)]) as n;
select pg_temp.refuses(format('select kerai.register_agent(%L, %L)', 'new', k), 'KR005', 'unknown kind of agent',
    'kind: ', 'human, llm, tool or swarm', format('the kind %L', k))
from unnest(array[null, '', 'LLM', $q$'; drop table kerai.agents; --$q$]) as k;
select pg_temp.refuses(format('select kerai.register_agent(%L, %L, %L)', 'new', 'llm', k), 'KR005',
    'an Ed25519 public key has 32 bytes', format('given: %s bytes', octet_length(k)), 'raw public key',
    format('a key of %s bytes', octet_length(k)))
from unnest(array['', substr(pg_temp.key('ann'), 1, 31), pg_temp.key('ann') || E'\\x00', pg_temp.key('ann') || pg_temp.key('ann')]) as k;
select pg_temp.refuses('select kerai.register_agent(''new'', ''llm'', ' || arguments || ')', 'KR005',
    'too large, or config is not an object', 'at most', 'Shorten', arguments)
from unnest(array[
    $$null, repeat('m', 201)$$,
    $$null, null, array_fill('c'::text, array[101])$$,
    $$null, null, array[repeat('c', 20001)]$$,
    $$null, null, '{}', '[]'$$,
    $$null, null, '{}', '1'$$,
    $$null, null, '{}', 'null'$$,
    $$null, null, '{}', jsonb_build_object('k', repeat('c', 65536))$$]) as arguments;
select pg_temp.refuses('select kerai.register_agent(''new'', ''llm'', null, null, ' || c || ')', 'KR005',
    'capabilities are a plain list of words', 'capabilities', 'array', c)
from unnest(array[$$array[null]$$, $$array['a', null]$$, $$'{{a,b},{c,d}}'$$]) as c;
select is((a.capabilities, a.config)::text, '({},{})', 'capabilities and config of NULL are empty')
from kerai.register_agent('nulls', 'llm', null, null, null, null) as a;

-- who may act
select is((kerai_private.require_agent(a.id)).name, 'ann', 'the owner acts for an agent') from kerai.agents as a where a.name = 'ann';
select pg_temp.refuses('select kerai_private.require_agent(null)', 'KR006', 'no such agent', 'agent: null', 'register',
    'no agent');
select pg_temp.refuses('select kerai_private.require_agent(pg_temp.node(99))', 'KR006', 'no such agent',
    '000000000099', 'register', 'unknown agent');
create role tap_other in role kerai_agent;
create role tap_operator in role kerai_operator;
grant usage on schema kerai_private to kerai_agent;
grant execute on function kerai_private.require_agent(uuid) to kerai_agent;
grant select on kerai.agents, kerai_private.owners, kerai_private.owner_roles to kerai_agent;
grant execute on function kerai_private.acts_for(uuid), kerai_private.own_owners(), kerai_private.owner_name(uuid),
    kerai_private.refuse(text, text, text, text) to kerai_agent;
select set_config('test.ann', a.id::text, true) from kerai.agents as a where a.name = 'ann' \g /dev/null
set local session authorization tap_other;
select throws_ok($$select kerai_private.require_agent(current_setting('test.ann')::uuid)$$, 'KR013',
    'this agent belongs to another role', 'another role does not act for it');
select throws_ok($$select kerai.register_agent('shell', 'human')$$, 'KR002', 'this name is taken with another key',
    'nor gets its hosted agent by registering the name');
select throws_ok($$select kerai.push_ops('[{"op": "node_delete", "node": "00000000-0000-4000-8000-000000000001"}]')$$,
    'KR006', 'you have no hosted agent to act for you', 'nor pushes as it');
select is((kerai.register_agent('other-shell', 'human')).owner_role, 'tap_other', 'it has its own');
reset session authorization;
set local session authorization tap_operator;
select is((kerai_private.require_agent(current_setting('test.ann')::uuid)).name, 'ann', 'an operator acts for any');
reset session authorization;

select * from finish();
rollback;
