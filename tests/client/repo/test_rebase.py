"""Operations on a state that others have changed meanwhile."""

from __future__ import annotations

from typing import Any

from kerai_client.repo.rebase import rebase
from kerai_client.source import FileState, Tree, apply_operations, diff, snapshot_of

BEFORE = "def one():\n    return 1\n\n\ndef two():\n    return 2\n\n\ndef three():\n    return 3\n"


def tree_of(text: str, tree: Tree | None = None) -> Tree:
    """Return the tree of one file, made from an earlier tree when there is one."""
    return apply_operations(tree or Tree(), edit(tree or Tree(), text))


def edit(tree: Tree, text: str) -> list[dict[str, Any]]:
    """Return the operations that make the file hold a text."""
    return diff(tree, {"a.py": FileState(text.encode(), False, False)}, author="x.0123456789abcdef")


def rebased(mine: str, theirs: str) -> str:
    """Return the file after somebody else's edit and what is left of mine."""
    old = tree_of(BEFORE)
    new = tree_of(theirs, old)
    ops = rebase(old, new, edit(old, mine))
    return snapshot_of(apply_operations(new, ops))["a.py"].data.decode()


def test_edits_of_different_statements_are_both_kept() -> None:
    mine, theirs = BEFORE.replace("return 1", "return 10"), BEFORE.replace("return 2", "return 20")
    assert rebased(mine, theirs) == mine.replace("return 2", "return 20")
    longer = mine.replace("return 10", "x = 10\n    return x")
    assert rebased(longer, theirs) == longer.replace("return 2", "return 20")


def test_what_was_merged_first_stands() -> None:
    mine, theirs = BEFORE.replace("return 1", "return 10"), BEFORE.replace("return 1", "return 11")
    assert rebased(mine, theirs) == theirs
    assert rebased(theirs, theirs) == theirs


def test_what_others_work_in_is_not_deleted() -> None:
    without_two = BEFORE.replace("def two():\n    return 2\n\n\n", "")
    theirs = BEFORE.replace("return 2", "return 20")
    assert "return 20" in rebased(without_two, theirs)
    assert "def two" not in rebased(without_two, BEFORE.replace("return 3", "return 30"))


def test_edits_of_what_is_gone_are_dropped() -> None:
    without_two = BEFORE.replace("def two():\n    return 2\n\n\n", "")
    mine = BEFORE.replace("return 2", "y = 2\n    return y").replace("return 3", "return 30")
    assert rebased(mine, without_two) == without_two.replace("return 3", "return 30")
    old = tree_of(BEFORE)
    assert rebase(old, Tree(), edit(old, mine)) == []
