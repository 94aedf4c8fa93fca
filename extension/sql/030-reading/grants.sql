-- Who may use what of this domain.

grant execute on function
    kerai.checkout, kerai.diff, kerai.diff_files, kerai.log, kerai.changeset_vectors, kerai.revert_ops, kerai.tree,
    kerai.source
to kerai_reader;
