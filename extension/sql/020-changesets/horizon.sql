-- The horizon: up to where the history has been compacted, and can be read as one state only.

-- Refuses KR011 unless a vector covers the horizon: what it does not name of that has been folded.
create or replace function kerai_private.require_above_horizon(vector jsonb, hint text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
    last kerai.compactions;
    missing text;
begin
    select c.* into last from kerai.compactions as c order by c.id desc limit 1;
    if last.id is null then
        return;
    end if;
    select string_agg(format('%s %s-%s', m.author, m.first_seq, m.last_seq), ', ') into missing
    from kerai.vector_missing(vector, last.horizon) as m;
    if missing is not null then
        perform kerai_private.refuse('KR011', 'the history up to there has been compacted',
            format('compacted at %s; below its horizon the vector lacks: %s',
                kerai_private.utc(last.compacted_at), missing), hint);
    end if;
end
$$;
