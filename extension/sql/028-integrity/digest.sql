-- Digest: one value for the whole replicated state.

create or replace function kerai.state_digest() returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $$
    -- Rows are hashed, then sorted and hashed in 256 buckets by their id, so that no value grows with the whole.
    with rows as (
        select get_byte(uuid_send(n.id), 0) as bucket, sha256(convert_to(jsonb_build_array(
            'node', n.id, n.parent_id, n.position, n.kind, n.name, n.language, n.content, n.metadata, n.deleted,
            n.created_stamp, n.created_seq, n.placed_stamp, n.kind_stamp, n.name_stamp, n.language_stamp,
            n.content_stamp, n.metadata_stamps, n.deleted_stamp)::text, 'UTF8')) as hash
        from kerai.nodes as n
        union all
        select get_byte(uuid_send(e.source), 0), sha256(convert_to(jsonb_build_array(
            'edge', e.source, e.target, e.relation, e.metadata, e.deleted, e.stamp)::text, 'UTF8'))
        from kerai.edges as e
        union all
        select get_byte(uuid_send(p.node_id), 0), sha256(convert_to(jsonb_build_array(
            'perspective', p.author, p.node_id, p.context_id, p.weight, p.reasoning, p.deleted, p.stamp)::text, 'UTF8'))
        from kerai.perspectives as p
        union all
        select get_byte(uuid_send(a.source), 0), sha256(convert_to(jsonb_build_array(
            'association', a.author, a.source, a.target, a.relation, a.weight, a.reasoning, a.deleted, a.stamp)::text,
            'UTF8'))
        from kerai.associations as a
    ),

    buckets as (
        select r.bucket, sha256(string_agg(r.hash, '' order by r.hash)) as hash from rows as r group by r.bucket
    )

    select encode(sha256(coalesce(string_agg(b.hash, '' order by b.bucket), '')), 'hex') from buckets as b
$$;

comment on function kerai.state_digest() is
'SHA-256 over the whole replicated state, tombstones and registers'' stamps included: equal exactly when two instances hold the same state.';
