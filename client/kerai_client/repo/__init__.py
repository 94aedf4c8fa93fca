"""Directories and the tree: import, checkout, patches, and what a user names in the tree."""
