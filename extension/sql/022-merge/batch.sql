-- Batches: many changesets of many authors in one merge, each with its own result or refusal. What comes out is
-- what pushing them one by one, in the order in which they are given, would give.

-- The most operations that are merged at once: more take longer, since the processor's caches no longer hold them.
create or replace function kerai_private.most_at_once() returns int
language sql immutable parallel safe
return 5000;

-- May an error be gone at the next try, since it says nothing of what was tried? Serialization failures and deadlocks,
-- lock timeouts, a full disk or memory, a server that shuts down, a parallel worker that was terminated, a disk that
-- cannot be read. Inlined.
create or replace function kerai_private.is_transient(code text) returns boolean
language sql immutable parallel safe
return left(code, 2) in ('40', '53', '55', '57', '58');

-- Takes changesets as they come, in a causal order. The code of an outcome is a refusal's, or the SQLSTATE of the error
-- that a changeset has raised when it was alone.
-- enforce_policy: see kerai_private.receive. verified: the signatures verify with the given keys.
-- stop_after: the place of the caller's own changeset; when this one fails, nothing after it is looked at.
-- enough: after so long, and after the caller's own, nothing more is looked at by itself; the rest has no outcome.
create or replace function kerai_private.receive_all(
    given kerai_private.incoming[], enforce_policy boolean, verified boolean default false, stop_after int default null,
    enough interval default null
)
returns setof kerai_private.outcome
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    deadline constant timestamptz := clock_timestamp() + enough;
    items kerai_private.verified_changeset[];
    one kerai_private.verified_changeset[];
    places int[];
    good int := 0;
    refused kerai_private.outcome;
begin
    if coalesce(cardinality(given), 0) = 0 then
        return;
    end if;
    begin
        items := kerai_private.verify_changesets(given, enforce_policy, verified);
        places := array(select generate_series(1, cardinality(given)));
    exception when others then
        null;  -- Whose error it is shows when each is looked at alone.
    end;
    if items is null then
        items := '{}';
        for place in 1 .. cardinality(given) loop
            begin
                one := kerai_private.verify_changesets(given[place:place], enforce_policy, verified);
                good := good + 1;
                items[good] := one[1];
                places[good] := place;
            exception when others then
                refused := (place, sha256(convert_to((given[place]).document::text, 'UTF8')), null, null, null, null, sqlstate,
                    left(sqlerrm, 500), null, null);
                get stacked diagnostics refused.detail = pg_exception_detail, refused.hint = pg_exception_hint;
                refused.detail := left(refused.detail, 2000);
                return next refused;
                if place = stop_after then
                    return;
                end if;
            end;
            exit when place >= coalesce(stop_after, 0) and clock_timestamp() > deadline;
        end loop;
    end if;
    return query
    select places[o.n], o.changeset_id, o.status, o.applied, o.first_seq, o.last_seq, o.code, o.message, o.detail, o.hint
    from kerai_private.receive_checked(items, enforce_policy, array_position(places, stop_after), enough) as o;
end
$$;

create or replace function kerai_private.receive_checked(
    items kerai_private.verified_changeset[], enforce_policy boolean, stop_after int, enough interval
) returns setof kerai_private.outcome
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
    if cardinality(items) = 0 then
        return;
    end if;
    -- What is more than one step from the start would only be begun twice.
    if (cardinality(items) = 1 or not kerai_private.is_partial() and (
        select sum(jsonb_array_length(i.ops)) from unnest(items) as i) <= kerai_private.most_at_once())
        and not (enforce_policy and exists (select from unnest(items) as i where i.guard is not null))
        and not exists (
            select from unnest(items) as i
            cross join lateral jsonb_array_elements(i.ops) as o (op)
            where kerai_private.changes_tree(o.op)
        ) then
        begin
            return query select * from kerai_private.receive_in_step(items, enforce_policy);
            return;
        exception
            when lock_not_available or transaction_rollback then
                raise;
            when others then
                null;  -- Not all can be merged in one step. Whose error it was shows below.
        end;
    end if;
    loop
        begin
            return query select * from kerai_private.receive_each(items, enforce_policy, stop_after, enough);
            return;
        exception when sqlstate 'KR998' then
            null;  -- See kerai_private.lock_for_merge.
        end;
    end loop;
end
$$;

-- Merges all in one step, beside others that share the tree lock, or raises: only one step locks rows in the order that
-- all keep.
create or replace function kerai_private.receive_in_step(
    items kerai_private.verified_changeset[], enforce_policy boolean
)
returns setof kerai_private.outcome
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    run kerai_private.verified_changeset[] := kerai_private.lock_for_merge(items, exclusive => false);
    drafts constant int[] := kerai_private.drafts_of(run);
    ops kerai_private.operation[];
    outcome kerai_private.outcome;
begin
    if cardinality(run) = 1 then
        outcome := kerai_private.receive_one(run[1], 1, enforce_policy, exclusive => false);
        -- A fork's evidence is kept once it is known that nothing else can be said.
        if outcome.code is null or outcome.code like 'KR%' and outcome.code <> 'KR003' then
            return next outcome;
            return;
        end if;
    elsif not exists (select from unnest(run) as r where r.author is null) then
        run := kerai_private.wrap_drafts(run);
        ops := kerai_private.unpack_operations(run);
        if run is not null and kerai_private.find_unsure(run, drafts, ops, enforce_policy) = '{}' then
            perform kerai_private.apply_changesets(run, ops, exclusive => false);
            return query select * from kerai_private.merged(run, 0);
            return;
        end if;
    end if;
    raise exception using errcode = 'KR999', message = 'a batch that is not merged in one step';
end
$$;

-- Merges with the tree lock for itself: run by run what can be merged together, and by itself what one look at the run
-- does not find fit. When a run raises an error, all that is left is merged one by one, since others may need the one
-- whose error it is. What an author has written after one whose error may be gone the next time has no outcome either.
create or replace function kerai_private.receive_each(
    items kerai_private.verified_changeset[], enforce_policy boolean, stop_after int, enough interval
) returns setof kerai_private.outcome
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
declare
    given constant int := cardinality(items);
    ends int[];
    run_number int := 0;
    done int := 0;
    first int := 0;
    last int := 0;
    run kerai_private.verified_changeset[];
    drafts int[];
    part kerai_private.verified_changeset[];
    ops kerai_private.operation[];
    unsure int[];
    next_unsure int;
    good int;
    one_by_one boolean := kerai_private.is_partial();
    outcome kerai_private.outcome;
    forks kerai_private.verified_changeset[] := '{}';
    deadline timestamptz;
    held_up text[] := '{}';
begin
    items := kerai_private.lock_for_merge(items, exclusive => true);
    ends := kerai_private.run_ends(items, enforce_policy);
    deadline := clock_timestamp() + enough;

    while done < given loop
        if done = last and not one_by_one then
            run_number := run_number + 1;
            first := done;
            last := ends[run_number];
            part := null;
            next_unsure := 1;
            if last - first > 1 then
                run := items[first + 1:last];
                drafts := kerai_private.drafts_of(run);
                begin
                    part := kerai_private.wrap_drafts(run);
                    ops := kerai_private.unpack_operations(part);
                    unsure := kerai_private.find_unsure(part, drafts, ops, enforce_policy);
                    deadline := clock_timestamp() + enough;
                exception
                    when lock_not_available or transaction_rollback then
                        raise;
                    when others then
                        one_by_one := true;
                end;
            end if;
        end if;

        good := 0;
        if not one_by_one and part is not null then
            good := coalesce(first + unsure[next_unsure] - 1, last) - done;
        end if;
        if good > 0 then
            begin
                if unsure <> '{}' then
                    part := kerai_private.wrap_drafts(run[done - first + 1:done - first + good]);
                    ops := kerai_private.unpack_operations(part);
                end if;
                perform kerai_private.apply_changesets(part, ops, exclusive => true);
                return query select * from kerai_private.merged(part, done);
                done := done + good;
            exception
                when lock_not_available or transaction_rollback then
                    raise;
                when others then
                    one_by_one := true;
            end;
        else
            done := done + 1;
            next_unsure := next_unsure + 1;
            continue when coalesce((items[done]).member, (items[done]).author) = any(held_up);
            outcome := kerai_private.receive_one(
                items[done], done, enforce_policy, exclusive => true, apart => done is not distinct from stop_after);
            return next outcome;
            if outcome.code = 'KR003' then
                forks := forks || items[done];
            elsif kerai_private.is_transient(outcome.code) then
                held_up := held_up || coalesce((items[done]).member, (items[done]).author);
            end if;
            exit when done = stop_after and outcome.code is not null
                or done >= coalesce(stop_after, 0) and clock_timestamp() > deadline;
        end if;
    end loop;
    -- A refusal of the caller's own undoes all this: its evidence is kept apart.
    if outcome.n is distinct from stop_after or outcome.code is null then
        perform kerai_private.keep_forks(forks);
    end if;
end
$$;

-- The outcomes of what was merged together, after the first `done`.
create or replace function kerai_private.merged(run kerai_private.verified_changeset[], done int)
returns setof kerai_private.outcome
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select (merged.done + row_number() over ())::int, r.id, 'merged'::text, jsonb_array_length(r.ops), r.first_seq, r.last_seq,
        null::text, null::text, null::text, null::text
    from unnest(merged.run) as r
$$;

-- What becomes of one changeset, whatever error it raises, but for those that end the transaction of anyone who merges.
create or replace function kerai_private.receive_one(
    item kerai_private.verified_changeset, place int, enforce_policy boolean, exclusive boolean,
    apart boolean default false
) returns kerai_private.outcome
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    pushed kerai.push_result;
    outcome kerai_private.outcome;
begin
    pushed := kerai_private.receive(item, enforce_policy, exclusive, apart);
    outcome := (place, pushed.changeset_id, pushed.status, pushed.applied, pushed.first_seq, pushed.last_seq,
        null, null, null, null);
    return outcome;
exception
    when lock_not_available or transaction_rollback then
        raise;
    when others then
        outcome := (place, coalesce(item.id, item.draft_id), null, null, null, null, sqlstate, left(sqlerrm, 500), null, null);
        get stacked diagnostics outcome.detail = pg_exception_detail, outcome.hint = pg_exception_hint;
        outcome.detail := left(outcome.detail, 2000);
        return outcome;
end
$$;
