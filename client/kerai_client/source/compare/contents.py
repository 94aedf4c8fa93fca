"""What is in the files: all compared together, so that definitions can move between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from posixpath import basename
from typing import Any
from uuid import UUID

from kerai_client.source.compare.goal import Goal
from kerai_client.source.compare.match import Matcher
from kerai_client.source.compare.part import Part, new_parts, old_parts, pair
from kerai_client.source.compare.plan import Change, Children, KeptChild, NewChild, Ref
from kerai_client.source.compare.sequence import increasing
from kerai_client.source.compare.splice import find_hunks, mirror
from kerai_client.source.syntax.draft import FileDraft
from kerai_client.source.syntax.parse import parse_file
from kerai_client.source.tree.positions import room
from kerai_client.source.tree.tree import Tree

_METADATA = ("executable", "symlink", "encoding")  # what a file's state becomes


class Contents:
    """Collects the files that change, go and come, and then says what shall be below them.

    :param numbers: numbers for new nodes.
    """

    def __init__(self, tree: Tree, goal: Goal, numbers: Iterator[int]) -> None:
        self.tree = tree
        self.goal = goal
        self.numbers = numbers
        self.matcher = Matcher()
        self.paths = tree.layout().paths
        self.changed: list[tuple[UUID, Part, Part]] = []
        self.fresh: list[tuple[int, FileDraft]] = []

    def change(self, path: str, node: UUID) -> Change:
        """Compare a file of the tree with what is wanted at ``path``, and return what its node becomes."""
        # under the same name the tree's language stands: whoever chose another one had a reason
        same = basename(path) == basename(self.paths[node])
        draft = parse_file(path, self.goal.want[path], self.tree[node].language if same else None)
        if self.goal.inner is not None and self.goal.inner[0] == path:
            _, old, new = self.goal.inner
            self.matcher.add(old, new)
        else:
            old, new = self._both(node, draft)
            if not self._spliced(node, draft, old, new):
                self.matcher.add(old, new)
        self.changed.append((old.id or node, old, new))
        return self._retagged(node, basename(path), draft)

    def drop(self, node: UUID) -> None:
        """Let what is in a file that goes be found elsewhere."""
        self.matcher.gone.append(old_parts(self.tree, node))

    def fill(self, number: int, draft: FileDraft) -> None:
        """Put what a new file holds below its node."""
        self.fresh.append((number, draft))

    def compare(self) -> tuple[list[Change | Children], list[UUID]]:
        """Return what shall be below the files, parents first, and the nodes to be deleted."""
        roots: Iterable[tuple[int, Part]] = (
            (number, new_parts("file", draft.text, draft.children)) for number, draft in self.fresh
        )
        if self.changed or self.matcher.gone:
            roots = list(roots)
            self.matcher.added += [root for _, root in roots]
        # else a first import: one file at a time, as there may be very many
        self.matcher.run()
        steps: list[Change | Children] = []
        for node, old, new in self.changed:
            if old.kind != "file":
                steps.append(Change(node, _changes(old, new)))
            steps += children_of(self.tree, node, old, new, self.numbers)
        for number, root in roots:
            steps += children_of(self.tree, number, None, root, self.numbers)
        deletions = [node for _, old, _ in self.changed for node in leftovers(old)]
        deletions += [node for old in self.matcher.gone for node in leftovers(old, gone=True)]
        return steps, deletions

    def _retagged(self, node: UUID, name: str, draft: FileDraft) -> Change:
        file = self.tree[node]
        fields: dict[str, Any] = {}
        if name != basename(self.paths[node]):
            fields["name"] = name
        if draft.language != file.language:
            fields["language"] = draft.language
        metadata = {
            key: draft.metadata.get(key)
            for key in _METADATA
            if draft.metadata.get(key) != file.metadata.get(key)
        }
        return Change(node, fields, metadata)

    def _both(self, node: UUID, draft: FileDraft) -> tuple[Part, Part]:
        old, new = old_parts(self.tree, node), new_parts("file", draft.text, draft.children)
        new.name = old.name
        return old, new

    def _spliced(self, node: UUID, draft: FileDraft, old: Part, new: Part) -> bool:
        """Where a file has errors, or had some, and comparing its trees would rewrite much, change only the
        text that differs, and say so."""
        if draft.language is None or not old.children or not new.children:
            return False
        if not (draft.broken or any(part.kind == "line" for part in old.walk())):
            return False
        hunks = find_hunks(old.children, new.children)
        if hunks is None:
            return False
        trial_old, trial_new = self._both(node, draft)
        matcher = Matcher()
        matcher.add(trial_old, trial_new)
        matcher.run()
        below = children_of(self.tree, node, trial_old, trial_new, count())
        cost = sum(children.cost for children in below) + sum(1 for _ in leftovers(trial_old))
        if cost <= 2 * sum(hunk.cost for hunk in hunks):
            return False
        pair(old, new)
        new.adopt(mirror(new, old.children, hunks))
        return True


def rewritten(tree: Tree, node: UUID, draft: FileDraft, numbers: Iterator[int]) -> list[Change | Children]:
    """Return what makes a file hold a draft whatever it holds now; its children are to be deleted."""
    metadata = {key: draft.metadata.get(key) for key in _METADATA}
    new = new_parts("file", draft.text, draft.children)
    below = children_of(tree, node, old_parts(tree, node), new, numbers)
    return [Change(node, {"language": draft.language}, metadata), *below]


def written(tree: Tree, number: int, draft: FileDraft, numbers: Iterator[int]) -> list[Children]:
    """Return what makes a new file hold a draft."""
    new = new_parts("file", draft.text, draft.children)
    return list(children_of(tree, number, None, new, numbers))


def children_of(
    tree: Tree, node: Ref, old: Part | None, new: Part, numbers: Iterator[int]
) -> Iterator[Children]:
    """Yield what makes the children of ``node`` those of ``new``, at every depth, parents first.

    :param old: what the node holds now, matched with ``new``; None when the node is new.
    """
    pending: list[tuple[Ref, Part | None, Part]] = [(node, old, new)]
    for parent, before, after in pending:
        stay = set() if before is None else _staying(tree, before, after)
        children: list[NewChild | KeptChild] = []
        for at, child in enumerate(after.children):
            match = child.match
            if match is None or match.id is None:
                number = next(numbers)
                children.append(NewChild(number, child.kind, child.name, child.content))
                if child.children:
                    pending.append((number, None, child))
                continue
            children.append(KeptChild(match.id, at in stay, {} if child.whole else _changes(match, child)))
            if not child.whole:
                pending.append((match.id, match, child))
        yield Children(parent, tuple(children))


def _changes(old: Part, new: Part) -> dict[str, Any]:
    """Return the registers of ``new`` that are not those of ``old``."""
    return {
        field: getattr(new, field)
        for field in ("kind", "name", "content")
        if getattr(old, field) != getattr(new, field)
    }


def _staying(tree: Tree, old: Part, new: Part) -> set[int]:
    """Return which children of ``new`` can stay where they are: the most that keep their order, with room
    between them for the others."""
    index = {id(child): at for at, child in enumerate(old.children)}
    there = [at for at, child in enumerate(new.children) if id(child.match) in index]
    ordered = {there[at] for at in increasing([index[id(new.children[place].match)] for place in there])}
    stay: set[int] = set()
    left: str | None = None
    waiting = False
    for at, child in enumerate(new.children):
        known = child.match.id if at in ordered and child.match is not None else None
        here = None if known is None else tree[known].position
        if here is None or (left is not None and here < left) or (waiting and not room(left, here)):
            waiting = True
            continue
        stay.add(at)
        waiting, left = False, here
    return stay


def leftovers(old: Part, gone: bool = False) -> Iterator[UUID]:
    """Yield what is below ``old`` and has no counterpart; only the top of each subtree.

    :param gone: whether ``old`` itself is deleted, so that only what has moved out of it is looked at.
    """
    stack = [(old, gone)]
    while stack:
        part, gone = stack.pop()
        for child in part.children:
            if child.match is not None:
                if not child.whole:
                    stack.append((child, False))
                continue
            if not gone and not child.empty and child.id is not None:
                yield child.id
            stack.append((child, gone or not child.empty))
