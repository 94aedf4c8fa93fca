-- Forks: an author who has signed two histories is frozen, and nobody else is.
--
-- What others have merged of him stays, on each instance the branch that it met first. Changesets of others that
-- have seen the other branch are merged all the same: what they say of his sequence cannot be checked here.

create or replace function kerai_private.is_frozen(author text) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return exists (select from kerai.forks as f where f.author = is_frozen.author and f.merged_elsewhere);
end
$$;

-- Refuses KR003 a changeset of an author who has forked. A peer (follows) may bring what is of the branch that is
-- followed here; the author himself pushes nothing more.
create or replace function kerai_private.require_unfrozen(author text, last_seq bigint, follows boolean) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    if kerai_private.is_frozen(author) and not (follows and exists (
        select from kerai_private.followed_branches as b
        where b.author = require_unfrozen.author and b.last_seq >= require_unfrozen.last_seq
    )) then
        perform kerai_private.refuse('KR003', 'this author is frozen: two of its changesets cannot both be in one history',
            format('author: %s, up to seq: %s', author, last_seq),
            'The evidence is in kerai.forks. Register a new agent to go on.');
    end if;
end
$$;

-- Refuses KR005 unless the timestamp is the one that follows from base and the author's previous changeset. Of frozen
-- authors in base it is only known how many operations they have: each adds at most 1 to what is known without them.
create or replace function kerai_private.require_lamport(lamport bigint, base jsonb, own_lamport bigint) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    frozen constant text[] := array(
        select e.author from kerai_private.vector_entries(base) as e
        where e.author in (select f.author from kerai.forks as f where f.merged_elsewhere));
    least_lamport constant bigint := kerai_private.next_lamport(base - frozen, own_lamport);
    most_lamport bigint := least_lamport;
begin
    if frozen <> '{}' then
        select greatest(least_lamport, 1 + max(a.lamport))
            + (select sum((base ->> f.author)::bigint) from unnest(frozen) as f (author))
        into most_lamport
        from kerai_private.authors as a;
    end if;
    if lamport not between least_lamport and most_lamport then
        perform kerai_private.refuse('KR005', 'the lamport timestamp is out of bounds',
            format('lamport: %s, must be: %s', lamport, case when frozen = '{}' then least_lamport::text
                else format('%s to %s', least_lamport, most_lamport) end),
            'It is 1 + the highest lamport among the operations that base and the author''s previous changeset name.');
    end if;
end
$$;

-- The changeset that is here and cannot be in one history with this one; NULL when none is.
create or replace function kerai_private.rival_of(author text, seq bigint, last_seq bigint, prev bytea, id bytea)
returns bytea
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    (select c.id from kerai.changesets as c
    where c.author = rival_of.author and c.first_seq <= rival_of.last_seq and c.last_seq >= rival_of.seq
        and c.id <> rival_of.id
    order by c.first_seq limit 1)
    union all
    (select c.id from kerai.changesets as c
    where c.author = rival_of.author and c.prev is not distinct from rival_of.prev and c.id <> rival_of.id
    order by c.first_seq limit 1)
    limit 1
$$;
