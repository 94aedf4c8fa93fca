"""What is in the files: all compared together, so that definitions can move between them."""

from __future__ import annotations

from posixpath import basename
from typing import Any
from uuid import UUID

from kerai_client.source.compare.emit import Emitter
from kerai_client.source.compare.match import Matcher
from kerai_client.source.compare.part import Part, new_parts, old_parts, pair
from kerai_client.source.compare.plan import Plan
from kerai_client.source.compare.splice import find_hunks, mirror
from kerai_client.source.syntax.draft import FileDraft
from kerai_client.source.syntax.parse import parse_file
from kerai_client.source.tree.tree import Tree


class Contents:
    """Collects the files that change, go and come, and then emits the operations below them."""

    def __init__(self, tree: Tree, plan: Plan, emitter: Emitter) -> None:
        self.tree = tree
        self.plan = plan
        self.emitter = emitter
        self.matcher = Matcher()
        self.paths = tree.layout().paths
        self.changed: list[tuple[UUID, Part, Part]] = []
        self.fresh: list[tuple[UUID, FileDraft]] = []

    def change(self, path: str, node: UUID) -> None:
        """Compare a file of the tree with what is wanted at ``path``, its name and kind included."""
        # under the same name the tree's language stands: whoever chose another one had a reason
        same = basename(path) == basename(self.paths[node])
        draft = parse_file(path, self.plan.want[path], self.tree[node].language if same else None)
        self._retag(node, basename(path), draft)
        if self.plan.inner is not None and self.plan.inner[0] == path:
            _, old, new = self.plan.inner
        else:
            old, new = self._both(node, draft)
            if self._spliced(node, draft, old, new):
                self.changed.append((node, old, new))
                return
        self.matcher.add(old, new)
        self.changed.append((old.id or node, old, new))

    def drop(self, node: UUID) -> None:
        """Let what is in a file that goes be found elsewhere."""
        self.matcher.gone.append(old_parts(self.tree, node))

    def fill(self, node: UUID, draft: FileDraft) -> None:
        """Put what a new file holds below its node."""
        self.fresh.append((node, draft))

    def finish(self) -> None:
        """Compare, and emit the operations."""
        comparing = bool(self.changed or self.matcher.gone)
        roots = []
        for node, draft in self.fresh:
            root = new_parts("file", draft.text, draft.children)
            if comparing:
                roots.append((node, root))
                self.matcher.added.append(root)
            else:  # a first import: one file at a time, as there may be very many
                self.emitter.parts(node, None, root)
        self.matcher.run()
        for node, old, new in self.changed:
            if old.kind != "file":
                self.emitter.registers(old, new)
            self.emitter.parts(node, old, new)
        for node, root in roots:
            self.emitter.parts(node, None, root)
        for _, old, _ in self.changed:
            self.emitter.leftovers(old)
        for old in self.matcher.gone:
            self.emitter.leftovers(old, gone=True)

    def _retag(self, node: UUID, name: str, draft: FileDraft) -> None:
        file = self.tree[node]
        fields: dict[str, Any] = {}
        if name != basename(self.paths[node]):
            fields["name"] = name
        if draft.language != file.language:
            fields["language"] = draft.language
        known = ("executable", "symlink", "encoding")
        metadata = {
            key: draft.metadata.get(key) for key in known if draft.metadata.get(key) != file.metadata.get(key)
        }
        self.emitter.update(node, fields, metadata)

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
        trial = Emitter(self.tree, self.emitter.block, self.emitter.new_id)
        trial_old, trial_new = self._both(node, draft)
        matcher = Matcher()
        matcher.add(trial_old, trial_new)
        matcher.run()
        trial.parts(node, trial_old, trial_new)
        trial.leftovers(trial_old)
        if len(trial.ops) + len(trial.deletions) <= 2 * sum(hunk.cost for hunk in hunks):
            return False
        pair(old, new)
        new.adopt(mirror(new, old.children, hunks))
        return True
