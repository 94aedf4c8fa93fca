"""From the text of a file to drafts of nodes, by its language."""
