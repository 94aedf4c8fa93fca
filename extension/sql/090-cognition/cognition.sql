-- Cognition: what the authors think of the code. A view is a perspective (a weight that an author gives a node) or
-- an association (a weight that an author gives a relation between two nodes). Only views of visible nodes count.

-- The one place where an argument becomes an author: an author id, else the name or the id of an agent known here.
create or replace function kerai_private.require_author(who text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    found_author text;
begin
    select u.author into found_author
    from (
        select a.author, 1 as place from kerai_private.authors as a where a.author = who
        union all
        select g.author, 2 from kerai.agents as g where g.name = who
        union all
        select g.author, 3 from kerai.agents as g where g.id::text = lower(who)
    ) as u
    order by u.place
    limit 1;
    if found_author is null then
        perform kerai_private.refuse('KR006', 'no such author',
            format('author: %s', coalesce(quote_literal(left(who, 240)), 'null')),
            'Name an agent, its id, or an author id: SELECT name, id, author FROM kerai.agents.');
    end if;
    return found_author;
end
$$;

create or replace function kerai_private.is_visible(node uuid) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with recursive climb (parent_id, deleted) as (
        select n.parent_id, n.deleted from kerai.nodes as n where n.id = is_visible.node
        union all
        select n.parent_id, n.deleted from climb as c inner join kerai.nodes as n on n.id = c.parent_id
    )

    select not bool_or(c.deleted) from climb as c
$$;

-- The scope and all that is visible below it.
create or replace function kerai_private.visible_below(scope uuid) returns table (id uuid)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with recursive walk (id) as (
        select visible_below.scope where kerai_private.is_visible(visible_below.scope)
        union all
        select n.id from walk as w inner join kerai.nodes as n on n.parent_id = w.id where not n.deleted
    )

    select w.id from walk as w
$$;

-- What is tombstoned, and what lies below that.
create or replace function kerai_private.hidden_nodes() returns table (id uuid)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    with recursive hidden (id) as (
        select n.id from kerai.nodes as n where n.deleted
        union
        select n.id from hidden as h inner join kerai.nodes as n on n.parent_id = h.id
    )

    select h.id from hidden as h
$$;

-- The next two are not pinned but parsed here and now, so that they become a part of the query that they stand in.
-- A scope is read node by node, from the indexes; the whole tree in one pass.
create or replace function kerai_private.perspectives_in(scope uuid, context uuid)
returns table (author text, node_id uuid, context_id uuid, weight double precision, reasoning text)
language sql stable
begin atomic
    select p.author, p.node_id, p.context_id, p.weight, p.reasoning
    from kerai_private.visible_below(scope) as s
    cross join lateral (select v.* from kerai.perspectives as v where v.node_id = s.id offset 0) as p
    where scope is not null and not p.deleted and (context is null or p.context_id = context)
    union all
    select p.author, p.node_id, p.context_id, p.weight, p.reasoning
    from kerai.perspectives as p
    where scope is null and not p.deleted and (context is null or p.context_id = context)
        and p.node_id not in (select h.id from kerai_private.hidden_nodes() as h);
end;

-- Associations that begin or end in the scope.
create or replace function kerai_private.associations_in(scope uuid, relation text)
returns table (author text, source uuid, target uuid, relation text, weight double precision, reasoning text)
language sql stable
begin atomic
    select a.author, a.source, a.target, a.relation, a.weight, a.reasoning
    from kerai_private.visible_below($1) as s
    cross join lateral (
        select v.* from kerai.associations as v where v.source = s.id
        union all
        select v.* from kerai.associations as v
        where v.target = s.id and v.source not in (select i.id from kerai_private.visible_below($1) as i)
        offset 0
    ) as a
    where $1 is not null and not a.deleted and ($2 is null or a.relation = $2)
        and kerai_private.is_visible(a.source) and kerai_private.is_visible(a.target)
    union all
    select a.author, a.source, a.target, a.relation, a.weight, a.reasoning
    from kerai.associations as a
    where $1 is null and not a.deleted and ($2 is null or a.relation = $2)
        and a.source not in (select h.id from kerai_private.hidden_nodes() as h)
        and a.target not in (select h.id from kerai_private.hidden_nodes() as h);
end;

-- Refuses unless scope and context are nodes, where they are given.
create or replace function kerai_private.require_places(scope uuid, context uuid default null) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if scope is not null then
        perform kerai_private.require_node(scope);
    end if;
    if context is not null then
        perform kerai_private.require_node(context);
    end if;
end
$$;

create or replace function kerai_private.require_min_count(min_count int) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if min_count is null or min_count < 1 then
        perform kerai_private.refuse('KR005', 'min_count is at least 1',
            format('min_count: %s', coalesce(min_count::text, 'null')),
            'Leave it out for what at least two authors have a view of; 1 is everything.');
    end if;
end
$$;

create or replace function kerai.list_perspectives(
    author text default null, scope uuid default null, context uuid default null
)
returns table (
    author_id text, agent text, node_id uuid, path text, kind text, name text, context_id uuid,
    weight double precision, reasoning text
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    wanted constant text := case when $1 is not null then kerai_private.require_author($1) end;
begin
    perform kerai_private.require_places($2, $3);
    return query
    select p.author, g.name, p.node_id, n.path::text, n.kind, n.name, p.context_id, p.weight, p.reasoning
    from kerai_private.perspectives_in($2, $3) as p
    inner join kerai.nodes as n on n.id = p.node_id
    left join kerai.agents as g on g.author = p.author
    where wanted is null or p.author = wanted
    order by abs(p.weight) desc, n.path::text collate "C", p.node_id, p.context_id nulls first, p.author;
end
$$;

comment on function kerai.list_perspectives(text, uuid, uuid) is
'The weights that authors give to visible nodes, and why, the strongest first. Of one author (an author id, or an agent''s name or id) or of all; at or below scope; in one context or in any. The agent is the author''s name where it is known here.';

create or replace function kerai.list_associations(
    author text default null, scope uuid default null, relation text default null
)
returns table (
    author_id text, agent text, source uuid, source_path text, target uuid, target_path text, relation_name text,
    weight double precision, reasoning text
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    wanted constant text := case when $1 is not null then kerai_private.require_author($1) end;
begin
    perform kerai_private.require_places($2);
    return query
    select a.author, g.name, a.source, s.path::text, a.target, t.path::text, a.relation, a.weight, a.reasoning
    from kerai_private.associations_in($2, $3) as a
    inner join kerai.nodes as s on s.id = a.source
    inner join kerai.nodes as t on t.id = a.target
    left join kerai.agents as g on g.author = a.author
    where wanted is null or a.author = wanted
    order by abs(a.weight) desc, s.path::text collate "C", t.path::text collate "C", a.source, a.target, a.relation,
        a.author;
end
$$;

comment on function kerai.list_associations(text, uuid, text) is
'The weights that authors give to relations between visible nodes, and why, the strongest first. Of one author (an author id, or an agent''s name or id) or of all; that begin or end at or below scope; of one relation or of any.';
