-- 030 log: what was pushed, for another instance and for a reader.

create or replace function kerai.changesets_since(vector jsonb, max_ops int default 10000)
returns table (changeset json, signature bytea, public_key bytea)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    if max_ops is null or max_ops < 1 then
        perform kerai_private.refuse('KR005', 'max_ops is at least 1', format('max_ops: %s', coalesce(max_ops::text, 'null')),
            'Leave it out for pages of 10,000 operations.');
    end if;
    -- A join would not look at it while there are no changesets.
    perform from kerai_private.vector_entries($1);
    -- The order of arrival is a causal order: nothing is merged before what it is based on.
    return query
    select p.document, p.signature, a.public_key
    from (
        select c.document, c.signature, c.author, c.arrival,
            sum(c.last_seq - c.first_seq + 1) over (order by c.arrival) as running,
            row_number() over (order by c.arrival) as n
        from kerai.changesets as c
        left join kerai_private.vector_entries($1) as e on e.author = c.author
        where c.last_seq > coalesce(e.seq, 0)
    ) as p
    inner join kerai_private.authors as a on a.author = p.author
    where p.running <= max_ops or p.n = 1
    order by p.arrival;
end
$$;

comment on function kerai.changesets_since(jsonb, int) is
'The changesets that a vector has not seen, byte for byte and in a causal order: push them one by one into another instance with kerai.push_ops(changeset, signature, public_key). At most max_ops operations, at least one changeset; call again with the new vector until nothing comes.';
