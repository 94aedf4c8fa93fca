"""Worlds that are told, not drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.merge.live import Body
from tests.merge.worlds import Author, Signed, World


class Story(World):
    """A world that is told: who does what, having seen whom."""

    def do(self, who: int, *operations: Body, seeing: Sequence[int] = ()) -> None:
        """Let an author sign operations on all that he and those others have done."""
        author: Author = self.authors[who]
        for other in seeing:
            for signed in self.authors[other].pushed[-1:]:
                for name, seq in {**signed.base, signed.author: signed.last_seq}.items():
                    author.seen[name] = max(author.seen.get(name, 0), seq)
        author.open = list(operations)
        self.close(author)

    def orders(self) -> Iterator[list[Signed]]:
        """Yield every causal order."""

        def rest(order: list[Signed], waiting: list[Signed]) -> Iterator[list[Signed]]:
            if not waiting:
                yield order
            have = {each.author: each.last_seq for each in order}
            for each in waiting:
                if have.get(each.author, 0) == each.seq - 1 and all(
                    have.get(name, 0) >= seq for name, seq in each.base.items()
                ):
                    yield from rest([*order, each], [other for other in waiting if other is not each])

        yield from rest([], list(self.changesets))
