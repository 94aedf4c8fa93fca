-- Who may use what of this domain.

grant execute on function
    kerai.list_perspectives, kerai.list_associations, kerai.consensus, kerai.association_consensus,
    kerai.unique_insights, kerai.view_diff
to kerai_reader;
