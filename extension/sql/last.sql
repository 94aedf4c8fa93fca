-- The end of every script: what holds for all functions. Was everything granted on purpose, and does the server have
-- the Python package?

-- No function that is called from outside compiles its queries, whatever the server's default is. A plan that turns
-- something off has a cost of 10,000,000,000, so it is always compiled: a push of ten operations then takes a second in
-- place of 7 ms.
do $$
declare
    routine record;
begin
    for routine in
        select p.oid::regprocedure as signature
        from pg_proc as p
        inner join pg_language as l on l.oid = p.prolang
        where p.pronamespace = any('{kerai, kerai_sync}'::regnamespace []) and p.prokind = 'f'
            and l.lanname in ('plpgsql', 'sql') and p.proconfig is not null
    loop
        execute format('alter function %s set jit = off', routine.signature);
    end loop;
end
$$;

do $$
declare
    roles constant regrole [] = '{kerai_reader, kerai_agent, kerai_peer, kerai_operator}';
    ours constant regnamespace [] = '{kerai, kerai_sync, kerai_private}';
    partition record;
    forgotten text;
begin
    -- A reader of a partitioned table may read its partitions by themselves.
    for partition in
        select i.inhrelid::regclass as name
        from pg_inherits as i
        inner join pg_class as c on c.oid = i.inhrelid and c.relkind = 'r'
        where c.relnamespace = 'kerai'::regnamespace
    loop
        execute format('grant select on table %s to kerai_reader', partition.name);
    end loop;

    select string_agg(o.name, ', ' order by o.name)
    into forgotten
    from (
        select p.oid::regprocedure::text as name, (p.pronamespace <> 'kerai_private'::regnamespace)::int as wanted, (
            select count(distinct a.grantee) from aclexplode(p.proacl) as a where a.grantee = any(roles)) as given
        from pg_proc as p
        where p.pronamespace = any(ours)
        union all
        select c.oid::regclass::text, (c.relnamespace <> 'kerai_private'::regnamespace)::int, (
            select count(distinct a.grantee) from aclexplode(c.relacl) as a
            where a.grantee = any(roles) and a.privilege_type = 'SELECT')
        from pg_class as c
        where c.relnamespace = any(ours) and c.relkind in ('r', 'p', 'v', 'm')
    ) as o
    where o.given <> o.wanted;

    if forgotten is not null then
        raise exception using
            errcode = 'KR013',
            message = 'exactly one role must be granted each object of kerai and kerai_sync, and none those of kerai_private',
            detail = format('Granted to another number of roles: %s.', forgotten),
            hint = 'Name each in the grants.sql of its domain once: a higher role has what a lower one has.';
    end if;
end
$$;

-- A server without the Python package, or with another version of it, is told now and not at the first push.
select kerai_private.load_python();
