-- Submissions: changesets that wait to be merged. Each is signed by its author, and so many wait at most that
-- nobody fills the disk or another author's batch with them.

create or replace function kerai.submit_push(changeset json, signature bytea, public_key bytea default null)
returns uuid
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_variable
declare
    size constant int := octet_length(changeset::text);
    wrote text;
    key bytea;
    known kerai_private.outcome;
    ticket uuid;
begin
    -- The limit itself is looked up for what is not small: what exceeds a lower one is refused when it is merged.
    if changeset is null or size > 65536 then
        perform kerai_private.require_size(changeset);
    end if;
    begin
        wrote := changeset ->> 'author';
    exception when data_exception or statement_too_complex or program_limit_exceeded then
        wrote := null;
    end;
    key := kerai_private.key_of_signer(changeset, wrote, signature, public_key);
    known := kerai_private.known_outcome(changeset);
    if known.n is null then
        perform kerai_private.require_no_evidence(wrote, changeset);
        perform kerai_private.require_room(wrote, size);
    end if;
    ticket := (lpad(to_hex(nextval('kerai_private.arrivals')), 16, '0')
        || right(replace(gen_random_uuid()::text, '-', ''), 16))::uuid;
    if known.n is not null then
        insert into kerai_private.push_outcomes (ticket, outcome) values (ticket, known);
        return ticket;
    end if;
    -- Nobody else waits for a large one, which gains nothing from a batch.
    insert into kerai_private.submissions (ticket, author, document, signature, public_key, bytes, submitted_by, apart)
    values (ticket, wrote, changeset, signature, key, size, to_regrole(quote_ident(session_user)), size > 262144);
    return ticket;
end
$$;

comment on function kerai.submit_push(json, bytea, bytea) is
'Verifies and stores a signed changeset, or the draft of a grouped swarm''s member, to be merged together with others, and returns a ticket. Commit, then ask kerai.await_push(ticket) for the result. All but the signature is looked at when it is merged. KR003: it is kept in kerai.forks. KR009: too much of this author, or of your role, waits already; kerai.waiting_pushes() shows it and kerai.withdraw takes it back.';

-- The outcome of a changeset or draft that is merged already, NULL for any other. Everybody can read what is merged,
-- and submit it again: it takes no room from its author.
create or replace function kerai_private.known_outcome(document json) returns kerai_private.outcome
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    id constant bytea := sha256(convert_to(document::text, 'UTF8'));
    known kerai_private.outcome;
begin
    select 1, k.id, 'duplicate', 0, k.first_seq, k.last_seq, null, null, null, null into known
    from (
        select c.id, c.first_seq, c.last_seq from kerai.changesets as c where c.id = id
        union all
        select c.id, c.first_seq, c.last_seq
        from (select d.* from kerai.changesets as d where d.draft_id = id offset 0) as c
        inner join kerai_private.writers as l on l.author = c.author
        limit 1
    ) as k;
    return known;
end
$$;

-- Refuses KR003 what is kept as evidence of a fork and is not merged here. Everybody can read it, and submit it: it
-- would take the room of its author.
create or replace function kerai_private.require_no_evidence(author text, document json) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    id constant bytea := sha256(convert_to(document::text, 'UTF8'));
begin
    if exists (select from kerai.forks as f where f.author = author and id in (f.first_id, f.second_id)) then
        perform kerai_private.refuse('KR003', 'fork: this author has signed another changeset at the same place',
            format('author: %s, refused: %s; both are kept in kerai.forks', author, encode(id, 'hex')));
    end if;
end
$$;

-- The key with which the author has signed the changeset; refuses KR001, KR002, KR005 or KR006 when nobody has.
create or replace function kerai_private.key_of_signer(document json, author text, signature bytea, public_key bytea)
returns bytea
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    key bytea;
begin
    if length(author) <= 220 then
        select a.public_key into key from kerai_private.authors as a where a.author = author;
        if key is null and right(author, 16) = left(encode(sha256(public_key), 'hex'), 16) then
            key := public_key;
        end if;
        if key = coalesce(public_key, key) and kerai_private.verify_signature(document::text, signature, key) then
            return key;
        end if;
    end if;
    perform kerai_private.require_envelope(kerai_private.parse_changeset(document));
    return kerai_private.require_signature(document::text, author, signature, public_key);
end
$$;

-- Refuses KR009 when too much waits already. What waits of a role is only counted for what is not small, and when there
-- is much.
create or replace function kerai_private.require_room(author text, bytes int) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    waiting record;
begin
    select count(*) as number, coalesce(sum(s.bytes), 0) + bytes as bytes into waiting
    from kerai_private.submissions as s where s.author = author;
    -- One always has room.
    if waiting.number > 0 and (waiting.number >= kerai_private.setting('max_author_submissions')
        or waiting.bytes > kerai_private.setting('max_author_submission_bytes')) then
        perform kerai_private.refuse_room('author', author, waiting.number, waiting.bytes);
    end if;
    if bytes <= 8192 and pg_relation_size('kerai_private.submissions') < 8388608 then
        return;
    end if;
    select count(*) as number, coalesce(sum(s.bytes), 0) + bytes as bytes into waiting
    from kerai_private.submissions as s
    where s.submitted_by = to_regrole(quote_ident(session_user));
    if waiting.number > 0 and (waiting.number >= kerai_private.setting('max_role_submissions')
        or waiting.bytes > kerai_private.setting('max_role_submission_bytes')) then
        perform kerai_private.refuse_room('role', session_user, waiting.number, waiting.bytes);
    end if;
end
$$;

create or replace function kerai_private.refuse_room(kind text, name text, number bigint, bytes bigint) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    perform kerai_private.refuse('KR009', format('too much of this %s waits to be merged', kind),
        format('%s: %s, %s changesets wait; %s bytes with this one; at most %s and %s', kind, name, number, bytes,
            kerai_private.setting(format('max_%s_submissions', kind)),
            kerai_private.setting(format('max_%s_submission_bytes', kind))),
        'Settle them, or take them back with kerai.withdraw; kerai.waiting_pushes() shows them.');
end
$$;

-- What a batch merges, no more than is looked at together. First, `own` of them, what the ticket's author has
-- submitted, up to the ticket's. It stays locked. The settings: rows that come and go this fast leave more dead ones
-- than live ones, and only the indexes pass over them.
create or replace function kerai_private.take_waiting(
    ticket uuid, out tickets uuid[], out given kerai_private.incoming[], out own int
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
#variable_conflict use_variable
declare
    -- Of others: what is merged for them keeps one's own waiting. All of one's own, which is bounded where it is
    -- submitted: one that is left out would be a gap in the sequence.
    most constant bigint := kerai_private.setting('max_batch_submissions');
    most_bytes constant int := 1048576;
    mine text;
    held_up text[];
begin
    select s.author into mine from kerai_private.submissions as s where s.ticket = ticket;
    -- What an author has submitted after what others do not merge waits for it, unless it was set aside.
    held_up := array(
        select s.author from kerai_private.submissions as s
        where s.apart and coalesce(kerai_private.is_transient((s.failure).code), true));

    with own as materialized (
        select s.ticket from kerai_private.submissions as s
        where s.author = mine and s.ticket <= ticket
            and (s.failure is null or s.ticket = ticket or kerai_private.is_transient((s.failure).code))
    ),

    waiting as materialized (
        select s.ticket, s.bytes from kerai_private.submissions as s
        where not s.apart and s.author <> all(held_up)
            and s.ticket not in (select o.ticket from own as o)
        order by s.ticket
        limit most
    ),

    chosen as (
        select o.ticket, true as is_own from own as o
        union all
        select w.ticket, false as is_own
        from (select u.ticket, u.bytes, sum(u.bytes) over (order by u.ticket) as running from waiting as u) as w
        where w.running <= most_bytes
    ),

    locked as (
        select s.*, c.is_own
        from chosen as c
        inner join kerai_private.submissions as s on s.ticket = c.ticket
        for update of s
    )

    select array_agg(l.ticket order by l.is_own desc, l.ticket),
        array_agg(row(l.document, l.signature, l.public_key)::kerai_private.incoming order by l.is_own desc, l.ticket),
        count(*) filter (where l.is_own)
    into tickets, given, own
    from locked as l;
end
$$;

-- Keeps what became of submissions, by their places in the batch. One that has raised an error stays where its author
-- and operators see it; when the error may be gone the next time, its ticket's session tries it again.
create or replace function kerai_private.keep_outcomes(tickets uuid[], outcomes kerai_private.outcome[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    insert into kerai_private.push_outcomes (ticket, outcome)
    select tickets[o.n], o from unnest(outcomes) as o
    where not kerai_private.is_transient(coalesce(o.code, ''))
    on conflict on constraint push_outcomes_pkey do update set outcome = excluded.outcome, decided_at = excluded.decided_at;
    delete from kerai_private.submissions as s
    using unnest(outcomes) as o
    where s.ticket = tickets[o.n] and coalesce(o.code, 'KR') like 'KR%';
    if exists (select from unnest(outcomes) as o where o.code not like 'KR%') then
        update kerai_private.submissions as s set failure = o, apart = true
        from unnest(outcomes) as o
        where s.ticket = tickets[o.n] and o.code not like 'KR%';
        delete from kerai_private.submissions as s
        where s.apart and (s.failure).code is not null and s.submitted_at < now() - interval '1 day';
    end if;
    -- What nobody came for.
    delete from kerai_private.push_outcomes as s where s.decided_at < now() - interval '10 minutes';
end
$$;

create or replace function kerai.waiting_pushes()
returns table (
    ticket uuid, author text, submitted_by name, submitted_at timestamptz, bytes int, changeset_id bytea,
    code text, message text, detail text, hint text
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    -- There is none on a standby, where the table cannot be read.
    if pg_is_in_recovery() then
        return;
    end if;
    return query
    select s.ticket, s.author, r.rolname, s.submitted_at, s.bytes, sha256(convert_to(s.document::text, 'UTF8')),
        (s.failure).code, (s.failure).message, (s.failure).detail, (s.failure).hint
    from kerai_private.submissions as s
    left join pg_roles as r on r.oid = s.submitted_by
    where kerai_private.may_withdraw(s.author, s.submitted_by)
    order by s.ticket;
end
$$;

comment on function kerai.waiting_pushes() is
'The submitted changesets that are not merged: all for operators, for others those of their own agents and those that they have submitted. With a code: it raised this error (a SQLSTATE) when it was merged by itself, and was set aside for a day; kerai.await_push(ticket) tries it again. kerai.withdraw removes it.';

-- Is it the caller's own, or is he an operator?
create or replace function kerai_private.may_withdraw(author text, submitted_by oid) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select may_withdraw.submitted_by = to_regrole(quote_ident(session_user))
        or pg_has_role(session_user, 'kerai_operator', 'member')
        or exists (
            select from kerai.agents as a
            where a.author = may_withdraw.author and kerai_private.acts_for(a.owner))
$$;

create or replace function kerai.withdraw(agent uuid default null, author text default null, ticket uuid default null)
returns int
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '30s'
as $$
#variable_conflict use_variable
declare
    tickets uuid[];
    foreign_author text;
    withdrawn int;
begin
    perform kerai_private.bound_lock_waits();
    if num_nonnulls(agent, author, ticket) <> 1 then
        if author is null and ticket is null then
            perform kerai_private.require_agent(agent);
        end if;
        perform kerai_private.refuse('KR005', 'one of agent, author and ticket is needed',
            format('agent: %s, author: %s, ticket: %s', agent, author, ticket),
            'kerai.withdraw(agent), kerai.withdraw(author => text) or kerai.withdraw(ticket => uuid).');
    end if;
    if agent is not null then
        author := (kerai_private.require_agent(agent)).author;
    end if;
    select array_agg(s.ticket), min(s.author) filter (where not kerai_private.may_withdraw(s.author, s.submitted_by))
    into tickets, foreign_author
    from kerai_private.submissions as s
    where s.author = author or s.ticket = ticket;
    if agent is null and foreign_author is not null then
        perform kerai_private.refuse('KR013', 'this is another''s submission',
            format('author: %s, the caller is %s', foreign_author, session_user),
            'Connect as the role that submitted it or that owns the author''s agent, or as a member of kerai_operator.');
    end if;
    -- A leader that merges one of them now has locked it: this waits for the leader, and leaves it then. Only what was looked at above:
    -- another's may have come since.
    delete from kerai_private.submissions as s
    where s.ticket = any(tickets);
    get diagnostics withdrawn = row_count;
    return withdrawn;
exception when lock_not_available or deadlock_detected then
    perform kerai_private.refuse('KR009', 'other pushes are in the way', sqlerrm, 'Call it again in a second.');
end
$$;

comment on function kerai.withdraw(uuid, text, uuid) is
'Takes back what your agent has submitted and what is not merged, and returns how many changesets that were. After a crash or a refusal something may still wait and be merged by another session: withdraw before the agent signs its next changeset, and ask kerai.next_changeset after that. By author or ticket instead, as in kerai.waiting_pushes(): what your role has submitted; a member of kerai_operator takes back anything.';
