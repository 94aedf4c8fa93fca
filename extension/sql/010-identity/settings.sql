-- Settings: the limits of this instance, as the version has them or as an operator has changed them.

create or replace view kerai.settings as
select d.name, coalesce(c.value, d.value) as value, d.description
from kerai_private.default_settings as d
left join kerai_private.changed_settings as c on c.name = d.name;

comment on view kerai.settings is 'Limits of this instance. An operator changes one with UPDATE kerai.settings SET value = ... WHERE name = ....';

create or replace function kerai_private.change_setting() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if (new.name, new.description) is distinct from (old.name, old.description) then
        perform kerai_private.refuse('KR005', 'of a setting only the value changes', format('name: %s', old.name),
            'UPDATE kerai.settings SET value = ... WHERE name = ....');
    end if;
    if new.value is null or new.value not between 1 and 1000000000 then
        perform kerai_private.refuse('KR005', 'a setting is a whole number from 1 to 1000000000',
            format('%s: %s', old.name, coalesce(new.value::text, 'null')),
            format('SELECT value, description FROM kerai.settings WHERE name = %L;', old.name));
    end if;
    insert into kerai_private.changed_settings as c (name, value) values (new.name, new.value)
    on conflict on constraint changed_settings_pkey do update set value = excluded.value;
    return new;
end
$$;

create or replace trigger change_setting instead of update on kerai.settings
for each row execute function kerai_private.change_setting();

-- PL/pgSQL keeps the plan; a function in SQL that is not inlined is planned anew in every statement that calls it.
create or replace function kerai_private.setting(name text) returns bigint
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
    return coalesce(
        (select c.value from kerai_private.changed_settings as c where c.name = setting.name),
        (select d.value from kerai_private.default_settings as d where d.name = setting.name));
end
$$;

-- Bounds how long the calling function waits for each lock, for no longer than the caller itself says. The caller has a
-- SET lock_timeout clause, so that this ends with it.
create or replace function kerai_private.bound_lock_waits(most_ms bigint default null) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    perform set_config('lock_timeout', least(kerai_private.setting('max_lock_wait_ms'), most_ms)::text, true);
end
$$;
