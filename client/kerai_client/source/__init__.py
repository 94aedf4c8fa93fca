"""Source files as trees of nodes: reading and writing directories, parsing, comparing. No SQL in here."""

from .diff import diff, outside_scope, reshaping_late
from .directory import Problem, read_directory
from .draft import FileState, Snapshot
from .languages import GRAMMARS, language_of
from .layout import SourceError, UnsafeTree
from .node import ROOT_ID, Node, new_id
from .parse import parse_file
from .tree import Tree, apply_operations, snapshot_of
from .write import write_directory

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
