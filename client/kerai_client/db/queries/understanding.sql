-- What agents think of nodes and relations.

-- name: list_perspectives
select * from kerai.list_perspectives(%(author)s, %(scope)s, %(context)s);

-- name: list_associations
select * from kerai.list_associations(%(author)s, %(scope)s, %(relation)s);

-- name: consensus
select * from kerai.consensus(%(scope)s, %(context)s, %(min_count)s::int);

-- name: association_consensus
select * from kerai.association_consensus(%(scope)s, %(relation)s, %(min_count)s::int);

-- name: unique_insights
select * from kerai.unique_insights(%(author)s, %(scope)s, %(context)s);

-- name: view_diff
select * from kerai.view_diff(%(a)s, %(b)s, %(scope)s, %(context)s);

-- name: own_perspective
select weight from kerai.perspectives
where author = %(author)s and node_id = %(node)s and context_id is not distinct from %(context)s and not deleted;

-- name: own_association
select weight from kerai.associations
where author = %(author)s and source = %(source)s and target = %(target)s and relation = %(relation)s and not deleted;
