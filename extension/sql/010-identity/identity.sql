-- Identity: refusals, limits, keys, agents.

create or replace function kerai_private.refuse(
    code text, message text, detail text default null, hint text default null
) returns void
language plpgsql volatile parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception using
        errcode = code,
        message = left(message, 500),
        detail = left(coalesce(detail, (select e.meaning from kerai.errors as e where e.code = refuse.code)), 2000),
        hint = left(coalesce(hint, (select e.hint from kerai.errors as e where e.code = refuse.code)), 1000);
end
$$;

-- A time in messages, the same in every session's datestyle and time zone.
create or replace function kerai_private.utc(at timestamptz) returns text
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select to_char(utc.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
$$;

-- GD outlives the call, and is shared by all PL/Python of the session: only the module is kept in it.
create or replace function kerai_private.load_python() returns void
language plpython3u volatile
set search_path = pg_catalog, pg_temp
as $$
import sys

def fail(detail, hint):
    plpy.error("kerai's Python package @version@ is not usable on this server",
               detail=detail, hint=hint, sqlstate="KR011")

loaded = sys.modules.get("kerai")
if loaded is not None and getattr(loaded, "__version__", None) != "@version@":
    fail("This session has loaded version %s." % getattr(loaded, "__version__", "unknown"),
         "Start a new session: an interpreter keeps what it has imported.")
if "@python_path@" not in sys.path:
    sys.path.insert(0, "@python_path@")
try:
    import kerai
    import kerai.changeset
    import kerai.moves
    import kerai.results
    import kerai.server
except ImportError as problem:
    for name in [name for name in sys.modules if name == "kerai" or name.startswith("kerai.")]:
        del sys.modules[name]
    fail("%s (looked in @python_path@ and in the path of %s)" % (problem, sys.executable or "the server's Python"),
         "Run make install of kerai @version@ on this server, and apt-get install python3-nacl.")
if kerai.__version__ != "@version@":
    fail("The package in @python_path@ is version %s." % kerai.__version__,
         "Run make install of kerai @version@ on this server, then start a new session.")
GD["kerai @version@"] = kerai
$$;

create or replace function kerai_private.verify_signature(document text, signature bytea, public_key bytea)
returns boolean
language plpython3u volatile
set search_path = pg_catalog, pg_temp
as $$
if "kerai @version@" not in GD:
    plpy.execute("select kerai_private.load_python()")
return GD["kerai @version@"].changeset.verify(document, signature, public_key)
$$;

-- Of each text, whether its signature verifies; a missing signature or key does not.
create or replace function kerai_private.verify_signatures(documents text[], signatures bytea[], public_keys bytea[])
returns boolean[]
language plpython3u volatile
set search_path = pg_catalog, pg_temp
as $$
if "kerai @version@" not in GD:
    plpy.execute("select kerai_private.load_python()")
return GD["kerai @version@"].server.verify_all(
    documents, signatures, public_keys, pause=lambda: plpy.execute("select"))
$$;

create or replace function kerai_private.create_instance_key(data_directory text, instance text) returns bytea
language plpython3u volatile
set search_path = pg_catalog, pg_temp
as $$
if "kerai @version@" not in GD:
    plpy.execute("select kerai_private.load_python()")
return GD["kerai @version@"].server.create_instance_key(data_directory, instance)
$$;

create or replace function kerai_private.sign_as_instance(document text, data_directory text, public_key bytea)
returns bytea
language plpython3u volatile
set search_path = pg_catalog, pg_temp
as $$
if "kerai @version@" not in GD:
    plpy.execute("select kerai_private.load_python()")
return GD["kerai @version@"].server.sign_as_instance(document, data_directory, public_key)
$$;

create or replace function kerai_private.author_id(name text, public_key bytea) returns text
language sql immutable parallel safe strict
set search_path = pg_catalog, pg_temp
as $$
    select author_id.name || '.' || left(encode(sha256(author_id.public_key), 'hex'), 16)
$$;

-- Makes the instance's key at its first use. Two first uses at once: the table lock lets one make it. Where the first
-- was rolled back the second finds its file.
create or replace function kerai_private.instance_public_key() returns bytea
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    found_key bytea;
begin
    select i.public_key into found_key from kerai_private.instance as i;
    if found_key is null and pg_is_in_recovery() then
        perform kerai_private.refuse('KR011', 'this instance has no key yet', 'A standby makes none.',
            'SELECT kerai.instance_key(); on the primary.');
    end if;
    if found_key is null then
        lock table kerai_private.instance in exclusive mode;
        select i.public_key into found_key from kerai_private.instance as i;
        if found_key is null then
            -- CREATE EXTENSION gives the table another oid each time.
            found_key := kerai_private.create_instance_key(current_setting('data_directory'), format(
                'database %s, table %s', (select d.oid from pg_database as d where d.datname = current_database()),
                'kerai_private.instance'::regclass::oid));
            -- One that was inserted since the one snapshot of REPEATABLE READ is in the way: 40001, not 23505.
            insert into kerai_private.instance (public_key) values (found_key) on conflict do nothing;
        end if;
    end if;
    return found_key;
end
$$;

create or replace function kerai.instance_key() returns bytea
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return kerai_private.instance_public_key();
end
$$;

comment on function kerai.instance_key() is
'This instance''s Ed25519 public key, 32 bytes. Hosted agents are signed for with it; made at the first call.';

create or replace function kerai_private.require_agent(agent uuid) returns kerai.agents
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    found_agent kerai.agents;
begin
    select a.* into found_agent from kerai.agents as a where a.id = agent;
    if found_agent.id is null then
        perform kerai_private.refuse('KR006', 'no such agent', format('agent: %s', coalesce(agent::text, 'null')),
            'SELECT id, name FROM kerai.agents; or register one with kerai.register_agent(name, kind).');
    end if;
    if not kerai_private.acts_for(found_agent.owner) then
        perform kerai_private.refuse('KR013', 'this agent belongs to another role',
            format('agent %s (%s) belongs to %s, the caller is %s', found_agent.name, found_agent.id,
                kerai_private.owner_name(found_agent.owner), session_user),
            'Connect as the role that owns the agent, or as a member of kerai_operator; kerai.give_agent changes the owner.');
    end if;
    return found_agent;
end
$$;

-- Notes an author and its key. The caller has checked that they belong together.
create or replace function kerai_private.introduce_author(author text, public_key bytea) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    known_key bytea;
begin
    -- To write needs a lock that a rebuild or a compaction has, so it is tried only where there is something to write.
    select a.public_key into known_key from kerai_private.authors as a where a.author = introduce_author.author;
    if known_key is null then
        insert into kerai_private.authors (author, public_key)
        values (introduce_author.author, introduce_author.public_key)
        on conflict do nothing;
        select a.public_key into known_key from kerai_private.authors as a where a.author = introduce_author.author;
    end if;
    if known_key <> introduce_author.public_key then
        perform kerai_private.refuse_key(introduce_author.author, known_key, introduce_author.public_key);
    end if;
end
$$;

create or replace function kerai_private.refuse_key(author text, known_key bytea, given_key bytea) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform kerai_private.refuse('KR002', 'this author is known with another key',
        format('author: %s, known key: %s, given key: %s', author, encode(known_key, 'hex'), encode(given_key, 'hex')));
end
$$;
