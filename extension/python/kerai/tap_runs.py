"""What TAP producers print: a line a test, and a plan in place of a closing line.

Every pattern is anchored to a line and reads a bounded stretch, so the time is linear in the output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from kerai.runs import Run

MOST_TAP_PLANS = 5_000  # more of them are no plans
TAP_PLAN = re.compile(r"^1\.\.\d", re.MULTILINE)
TAP_LINE = re.compile(
    r"^(?:(?P<version>TAP version )|1\.\.(?P<plan>\d{1,9})|(?P<bail>Bail out!)"
    r"|(?P<verdict>not ok|ok)\b(?:[ ]+(?P<number>\d{1,9})\b)?(?P<name>[^\n]{0,1000}))",
    re.MULTILINE,
)
TAP_DIRECTIVE = re.compile(r"#[ ]*(?:todo|skip)", re.IGNORECASE)


@dataclass(slots=True)
class _Document:
    """A TAP document as far as it was read."""

    place: int
    plan: int | None = None
    lines: int = 0
    passed: int = 0
    failed: int = 0
    failing: set[str] = field(default_factory=set)
    bailed: bool = False

    def begins_anew(self, found: re.Match[str]) -> bool:
        """Say whether what comes next belongs to another document."""
        if found["version"]:
            return self.lines > 0 or self.plan is not None
        if found["plan"]:
            return self.plan is not None
        if found["verdict"]:
            return (self.plan is not None and self.lines >= self.plan) or (
                found["number"] == "1" and self.lines > 0
            )
        return False

    def take(self, found: re.Match[str]) -> None:
        """Count a line."""
        self.place = found.start()
        if found["plan"]:
            self.plan = int(found["plan"])
        elif found["bail"]:
            self.bailed = True
        elif found["verdict"]:
            self.lines += 1
            name, _, directive = found["name"].partition(" #")
            if TAP_DIRECTIVE.match(f"#{directive}"):
                return
            if found["verdict"] == "ok":
                self.passed += 1
            else:
                self.failed += 1
                self.failing.add(
                    name.strip().removeprefix("-").strip() or f"test {found['number'] or self.lines}"
                )

    def run(self) -> Run:
        # Planned tests that never ran have failed.
        failed = self.failed + max((self.plan or 0) - self.lines, 0)
        return Run(
            "tap",
            failed,
            self.passed,
            self.passed + failed,
            frozenset(self.failing),
            broken=self.bailed or (self.lines == 0 and failed > 0),
            summary=f"{self.passed} passed, {failed} failed",
        )


def tap_runs(text: str) -> list[tuple[int, Run]]:
    """Return the runs of TAP producers: each plan is one, before or after its tests."""
    if not 0 < len(TAP_PLAN.findall(text)) <= MOST_TAP_PLANS:
        return []
    documents = [_Document(0)]
    for found in TAP_LINE.finditer(text):
        if documents[-1].begins_anew(found):
            documents.append(_Document(found.start()))
        documents[-1].take(found)
    return [(document.place, document.run()) for document in documents if document.plan is not None]
