-- Owners: which role an agent belongs to. Roles are known by their oids; a name counts only where a dump was
-- restored and the oids are another cluster's. See docs/decisions/005-owners-are-roles.md.

-- The owners that the calling role is: one, and more where a database was restored into one with agents of its own. An
-- owner without a role was restored before a role of its name was made.
create or replace function kerai_private.own_owners() returns uuid[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return array(
        select r.owner from kerai_private.owner_roles as r
        where r.role = (select p.oid from pg_roles as p where p.rolname = session_user)
        union all
        select o.id from kerai_private.owners as o
        where o.name = session_user
            and not exists (select from kerai_private.owner_roles as r where r.owner = o.id));
end
$$;

-- May the caller act for what belongs to this owner?
create or replace function kerai_private.acts_for(owner uuid) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return acts_for.owner = any(kerai_private.own_owners()) or pg_has_role(session_user, 'kerai_operator', 'member');
end
$$;

-- The name that an owner's role has now.
create or replace function kerai_private.owner_name(owner uuid) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce(
        (select p.rolname from kerai_private.owner_roles as r inner join pg_roles as p on p.oid = r.role
        where r.owner = owner_name.owner),
        (select o.name from kerai_private.owners as o
        where o.id = owner_name.owner
            and not exists (select from kerai_private.owner_roles as r where r.owner = o.id)),
        'nobody: its role was dropped');
end
$$;

-- The owner that a role is, made when it is none yet. Two sessions at once may make two, and a role may be both: so
-- nobody waits for another's transaction.
create or replace function kerai_private.owner_of(role name) returns uuid
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    role_id constant oid := (select p.oid from pg_roles as p where p.rolname = role);
    found_owner uuid;
begin
    select r.owner into found_owner from kerai_private.owner_roles as r where r.role = role_id order by r.owner limit 1;
    if found_owner is null then
        insert into kerai_private.owner_roles (owner, role)
        select o.id, role_id from kerai_private.owners as o
        where o.name = role and not exists (select from kerai_private.owner_roles as r where r.owner = o.id)
        on conflict do nothing;
        select r.owner into found_owner from kerai_private.owner_roles as r where r.role = role_id order by r.owner limit 1;
    end if;
    if found_owner is null then
        -- kerai_private.find_owner_role notes the role.
        insert into kerai_private.owners (name) values (role) returning id into found_owner;
    end if;
    return found_owner;
end
$$;

-- Brings the notes on owners up to the roles that exist. Renamed roles get their new names, which the next dump takes.
-- Agents of a dropped role get no owner, since its oid may be given to another role. Owners that were restored before
-- their roles get them. Not while somebody registers: there is a next time.
create or replace function kerai_private.refresh_owners() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    lock table kerai_private.owners, kerai_private.owner_roles in share row exclusive mode nowait;

    with gone as (
        delete from kerai_private.owner_roles as r
        where not exists (select from pg_roles as p where p.oid = r.role)
        returning r.owner
    )

    delete from kerai_private.owners as o where o.id in (select g.owner from gone as g);

    update kerai_private.owners as o set name = p.rolname
    from kerai_private.owner_roles as r
    inner join pg_roles as p on p.oid = r.role
    where r.owner = o.id and o.name <> p.rolname;

    insert into kerai_private.owner_roles (owner, role)
    select o.id, p.oid
    from kerai_private.owners as o
    inner join pg_roles as p on p.rolname = o.name
    where not exists (select from kerai_private.owner_roles as r where r.owner = o.id)
    on conflict do nothing;
exception when lock_not_available then
    null;
end
$$;

create or replace function kerai.give_agent(agent uuid, role name) returns kerai.agents
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    given kerai.agents;
begin
    if not exists (select from pg_roles as p where p.rolname = role) then
        perform kerai_private.refuse('KR006', 'no such role', format('role: %s', coalesce(role, 'null')),
            'SELECT rolname FROM pg_roles;');
    end if;
    perform kerai_private.require_agent(agent);
    update kerai.agents as a set owner = kerai_private.owner_of(role), owner_role = role
    where a.id = agent
    returning a.* into given;
    return given;
end
$$;

comment on function kerai.give_agent(uuid, name) is
'Lets an agent belong to another role, such as after its own was dropped: from now on that role acts for it, and the former one does not.';
