"""Source files as trees of nodes: reading and writing directories, parsing, comparing. No SQL in here."""

from kerai_client.source.compare.diff import diff, outside_scope, reshaping_late
from kerai_client.source.files.directory import Problem, read_directory
from kerai_client.source.files.write import write_directory
from kerai_client.source.syntax.languages import GRAMMARS, language_of
from kerai_client.source.syntax.parse import parse_file
from kerai_client.source.tree.layout import SourceError, UnsafeTree
from kerai_client.source.tree.node import ROOT_ID, Node, new_id
from kerai_client.source.tree.state import FileState, Snapshot
from kerai_client.source.tree.tree import Tree, apply_operations, snapshot_of

__all__ = [
    "GRAMMARS",
    "ROOT_ID",
    "FileState",
    "Node",
    "Problem",
    "Snapshot",
    "SourceError",
    "Tree",
    "UnsafeTree",
    "apply_operations",
    "diff",
    "language_of",
    "new_id",
    "outside_scope",
    "parse_file",
    "read_directory",
    "reshaping_late",
    "snapshot_of",
    "write_directory",
]
