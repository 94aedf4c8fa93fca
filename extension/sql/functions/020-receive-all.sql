-- 020 many changesets at once.

-- Merges each changeset that can be merged and says of each what became of it. With judge false, guards and tasks are
-- not looked at: they were where the changeset was pushed first.
create or replace function kerai_private.receive_all(given kerai_private.incoming[], judge boolean)
returns table (
    n int, changeset_id bytea, status text, applied int, first_seq bigint, last_seq bigint,
    code text, message text, detail text, hint text
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    one kerai_private.incoming;
    parsed jsonb;
    result kerai.push_result;
begin
    n := 0;
    foreach one in array given loop
        n := n + 1;
        changeset_id := sha256(convert_to(one.document::text, 'UTF8'));
        status := null; applied := 0; first_seq := null; last_seq := null;
        code := null; message := null; detail := null; hint := null;
        begin
            parsed := kerai_private.parse_changeset(one.document);
            perform kerai_private.require_envelope(parsed);
            result := kerai_private.receive(one.document,
                case when judge then parsed else parsed || '{"guard": null, "task": null}' end, one.signature, one.public_key);
            status := result.status;
            applied := result.applied;
            first_seq := result.first_seq;
            last_seq := result.last_seq;
            if not judge and result.status = 'merged' and (parsed ->> 'guard' is not null or parsed ->> 'task' is not null) then
                update kerai.changesets as c
                set guard = (parsed ->> 'guard')::uuid, task_id = (parsed ->> 'task')::uuid
                where c.id = result.changeset_id;
            end if;
        exception when others then
            get stacked diagnostics code = returned_sqlstate, message = message_text,
                detail = pg_exception_detail, hint = pg_exception_hint;
            if code not like 'KR%' then
                raise;
            end if;
            status := 'refused';
        end;
        return next;
    end loop;
end
$$;
