-- Who may use what of this domain.

grant select on table kerai.changesets, kerai.operations, kerai.compactions, kerai.forks to kerai_reader;

grant execute on function
    kerai.version_vector, kerai.vector_compare, kerai.vector_merge, kerai.vector_contains, kerai.vector_missing
to kerai_reader;
