-- 090 cognition: what makes the views of one author, and what is hidden, quick to find. The tables are 020's.

create index perspectives_author on kerai.perspectives (author) where not deleted;
create index associations_author on kerai.associations (author) where not deleted;
create index nodes_deleted on kerai.nodes (id) where deleted;
