-- Consensus: what authors think together, and where they differ.

create or replace function kerai.consensus(
    scope uuid default null, context uuid default null, min_count int default 2
)
returns table (
    node_id uuid, path text, kind text, name text, context_id uuid, count bigint, mean double precision,
    spread double precision, lowest double precision, highest double precision
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform kerai_private.require_places($1, $2);
    perform kerai_private.require_min_count($3);
    return query
    select v.node_id, n.path::text, n.kind, n.name, v.context_id, v.count, v.mean, v.spread, v.lowest, v.highest
    from (
        select p.node_id, p.context_id, count(*) as count, avg(p.weight) as mean, stddev_pop(p.weight) as spread,
            min(p.weight) as lowest, max(p.weight) as highest
        from kerai_private.perspectives_in($1, $2) as p
        group by p.node_id, p.context_id
        having count(*) >= $3
    ) as v
    inner join kerai.nodes as n on n.id = v.node_id
    order by v.spread, v.count desc, abs(v.mean) desc, n.path::text collate "C", v.node_id, v.context_id nulls first;
end
$$;

comment on function kerai.consensus(uuid, uuid, int) is
'What authors together think of each visible node at or below scope (NULL: the whole tree), for each context (NULL: of all) by itself. How many weigh it (count, at least min_count), the mean of their weights, lowest and highest. The spread is the population standard deviation: 0 when all say the same, at most 1. The strongest agreement comes first: the least spread, then the most authors, then the mean that is farthest from 0.';

create or replace function kerai.association_consensus(
    scope uuid default null, relation text default null, min_count int default 2
)
returns table (
    source uuid, source_path text, target uuid, target_path text, relation_name text, count bigint,
    mean double precision, spread double precision, lowest double precision, highest double precision
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform kerai_private.require_places($1);
    perform kerai_private.require_min_count($3);
    return query
    select v.source, s.path::text, v.target, t.path::text, v.relation, v.count, v.mean, v.spread, v.lowest, v.highest
    from (
        select a.source, a.target, a.relation, count(*) as count, avg(a.weight) as mean,
            stddev_pop(a.weight) as spread, min(a.weight) as lowest, max(a.weight) as highest
        from kerai_private.associations_in($1, $2) as a
        group by a.source, a.target, a.relation
        having count(*) >= $3
    ) as v
    inner join kerai.nodes as s on s.id = v.source
    inner join kerai.nodes as t on t.id = v.target
    order by v.spread, v.count desc, abs(v.mean) desc, s.path::text collate "C", t.path::text collate "C", v.source,
        v.target, v.relation;
end
$$;

comment on function kerai.association_consensus(uuid, text, int) is
'What authors together think of each relation between visible nodes that begins or ends at or below scope (NULL: anywhere). How many weigh it (count, at least min_count), mean, spread (population standard deviation), lowest and highest. The strongest agreement comes first, as in kerai.consensus.';

create or replace function kerai.unique_insights(
    author text default null, scope uuid default null, context uuid default null
)
returns table (
    author_id text, agent text, node_id uuid, path text, kind text, name text, context_id uuid, relation text,
    target_id uuid, target_path text, weight double precision, reasoning text
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
    select v.author, g.name, v.node_id, n.path::text, n.kind, n.name, v.context_id, v.relation, v.target, t.path::text,
        v.weight, v.reasoning
    from (
        select p.author, p.node_id, p.context_id, null as relation, null::uuid as target, p.weight, p.reasoning
        from kerai_private.perspectives_in($2, $3) as p
        where (wanted is null or p.author = wanted) and not exists (
            select from kerai.perspectives as o
            where o.node_id = p.node_id and o.author <> p.author and not o.deleted
                and ($3 is null or o.context_id = $3))
        union all
        select a.author, a.source, null, a.relation, a.target, a.weight, a.reasoning
        from kerai_private.associations_in($2, null) as a
        where $3 is null and (wanted is null or a.author = wanted) and not exists (
            select from kerai.associations as o
            where o.source = a.source and o.target = a.target and o.relation = a.relation and o.author <> a.author
                and not o.deleted)
    ) as v
    inner join kerai.nodes as n on n.id = v.node_id
    left join kerai.nodes as t on t.id = v.target
    left join kerai.agents as g on g.author = v.author
    order by abs(v.weight) desc, n.path::text collate "C", v.node_id, v.relation nulls first, v.target,
        v.context_id nulls first;
end
$$;

comment on function kerai.unique_insights(text, uuid, uuid) is
'Views that nobody else has: of nodes that one author alone weighs (relation is NULL), and of relations (from node_id to target_id) that one author alone weighs; the strongest first. Of one author (an author id, or an agent''s name or id) or of all, at or below scope. With a context only what is said in that context is looked at, and no relations, which have none.';

create or replace function kerai.view_diff(a text, b text, scope uuid default null, context uuid default null)
returns table (
    node_id uuid, path text, kind text, name text, context_id uuid, relation text, target_id uuid, target_path text,
    weight_a double precision, weight_b double precision, difference double precision
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    author_a constant text := kerai_private.require_author(a);
    author_b constant text := kerai_private.require_author(b);
begin
    perform kerai_private.require_places($3, $4);
    return query
    select d.node_id, n.path::text, n.kind, n.name, d.context_id, d.relation, d.target, t.path::text, d.weight_a,
        d.weight_b, d.weight_b - d.weight_a
    from (
        select v.node_id, v.context_id, v.relation, v.target,
            max(v.weight) filter (where v.author = author_a) as weight_a,
            max(v.weight) filter (where v.author = author_b) as weight_b
        from (
            select p.author, p.node_id, p.context_id, null as relation, null::uuid as target, p.weight
            from kerai_private.perspectives_in($3, $4) as p
            where p.author = any(array[author_a, author_b])
            union all
            select r.author, r.source, null, r.relation, r.target, r.weight
            from kerai_private.associations_in($3, null) as r
            where $4 is null and r.author = any(array[author_a, author_b])
        ) as v
        group by v.node_id, v.context_id, v.relation, v.target
    ) as d
    inner join kerai.nodes as n on n.id = d.node_id
    left join kerai.nodes as t on t.id = d.target
    where d.weight_a is distinct from d.weight_b
    order by abs(d.weight_b - d.weight_a) desc nulls last, n.path::text collate "C", d.node_id,
        d.relation nulls first, d.target, d.context_id nulls first;
end
$$;

comment on function kerai.view_diff(text, text, uuid, uuid) is
'Where two authors (author ids, or agents'' names or ids) see things differently: visible nodes, and relations from node_id to target_id, that both weigh, with difference = weight_b - weight_a, the largest first; then those that only one of them weighs, the other''s weight being NULL. Where they agree there is no row. With a context only what is said in that context is looked at, and no relations.';
