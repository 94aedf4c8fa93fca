-- Privileges, after all objects are made: nobody has any. Then each domain's grants.sql gives what its objects are for.
--   kerai_reader < kerai_agent < kerai_operator
--   kerai_reader < kerai_peer  < kerai_operator    another instance's login at this one
-- A new object of PostgreSQL is PUBLIC's in part, and an upgrade may take from a role what an older version gave it.

do $$
declare
    ours constant regnamespace [] = '{kerai, kerai_sync, kerai_private}';
    nobody constant text = 'from public, kerai_reader, kerai_agent, kerai_peer, kerai_operator';
    member record;
begin
    execute format('revoke all on schema kerai, kerai_sync, kerai_private %s', nobody);

    for member in
        select p.oid::regprocedure as signature
        from pg_proc as p
        where p.pronamespace = any(ours)
    loop
        execute format('revoke all on routine %s %s', member.signature, nobody);
    end loop;

    -- A table's own type goes with the table.
    for member in
        select t.oid::regtype as name
        from pg_type as t
        left join pg_class as c on c.oid = t.typrelid
        where t.typnamespace = any(ours) and t.typelem = 0 and coalesce(c.relkind, 'c') = 'c'
    loop
        execute format('revoke all on type %s %s', member.name, nobody);
    end loop;

    -- Grants on single columns go with it.
    for member in
        select c.oid::regclass as relation
        from pg_class as c
        where c.relnamespace = any(ours) and c.relkind in ('r', 'p', 'v', 'm')
    loop
        execute format('revoke all on table %s %s', member.relation, nobody);
    end loop;
end
$$;
