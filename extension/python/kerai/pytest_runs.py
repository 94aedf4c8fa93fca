"""What pytest prints: its summaries, and the names of tests before them.

Every pattern is anchored to a line and reads a bounded stretch, so the time is linear in the output.
"""

from __future__ import annotations

import re

from kerai.runs import Run

PYTEST_LINE = re.compile(
    r"^(?:"
    r"=* ?(?P<summary>(?:no tests ran|\d{1,9} [a-z][^\n]{0,300}) in \d[\d.]{0,12}s[^\n=]{0,40}?) ?=*"
    r"|=+ (?P<section>FAILURES|ERRORS) =+"
    r"|(?P<tests>=+ (?:short test summary info|warnings summary[^\n=]{0,40}) =+|_{2,} [^\n]{1,400} _{2,})"
    r"|(?P<captured>-+ Captured (?:stdout|stderr|log) (?:setup|call|teardown) -+)"
    r")$",
    re.MULTILINE,
)
PYTEST_COUNT = re.compile(r"(\d{1,9}) ([a-z]+(?: [a-z]+)?)")
PYTEST_WORDS = {"failed", "error", "errors", "passed", "skipped", "deselected", "xfailed", "xpassed", "rerun"}
PYTEST_MORE_WORDS = {"warning", "warnings", "subtest passed", "subtests passed"}
PYTEST_FAILING = re.compile(
    r"^(FAILED|ERROR|SUBFAILED[^\n]{0,300}?|[^\n]{0,300}?SUBFAIL) "
    r"(\S{1,999}?(?:\[[^\n]*?\])?)(?: - [^\n]*)?$",
    re.MULTILINE,
)
PYTEST_BROKEN = re.compile(
    r"^(?:!+ (?:Interrupted: \d+ errors? during collection|_pytest\.outcomes\.Exit|KeyboardInterrupt)"
    r"|INTERNALERROR> |ERROR: (?:file or directory not found|usage): )",
    re.MULTILINE,
)
PYTEST_SETUP = re.compile(r"^_{2,} ERROR at setup of [^\n]{1,400} _{2,}$", re.MULTILINE)


def pytest_runs(text: str) -> list[tuple[int, Run]]:
    """Return pytest's runs and where they close.

    A failing test of a test runner has printed closing lines itself. pytest shows them in a section
    FAILURES, below a heading "Captured stdout call".
    """
    accepted: list[re.Match[str]] = []
    closings: list[re.Match[str]] = []
    sections: list[list[str]] = []  # which ones are open: what it is, and where we are in it
    for match in PYTEST_LINE.finditer(text):
        if match["section"]:
            if sections and sections[-1] == ["ERRORS", ""]:
                sections.pop()
            sections.append([match["section"], ""])
        elif match["captured"] and sections:
            sections[-1][1] = "captured"
        elif match["tests"] and sections:
            sections[-1][1] = ""
        elif match["summary"]:
            numbers = _pytest_numbers(match["summary"])
            if numbers is None:
                continue
            closings.append(match)
            if sections and (sections[-1][1] or not _of(numbers, "failed", "error", "errors")):
                continue  # printed by a test
            if sections:
                sections.pop()
            if not sections:
                accepted.append(match)
    runs, begin = [], 0
    for match in accepted or closings[-1:]:
        runs.append((match.start(), _pytest_run(match["summary"], text[begin : match.start()])))
        begin = match.end()
    return runs


def _pytest_numbers(summary: str) -> dict[str, int] | None:
    parts = summary.rpartition(" in ")[0].split(", ")
    if parts == ["no tests ran"]:
        return {}
    counts = [PYTEST_COUNT.fullmatch(part) for part in parts]
    numbers = {count[2]: int(count[1]) for count in counts if count}
    known = PYTEST_WORDS | PYTEST_MORE_WORDS
    # Plugins add words of their own.
    return numbers if all(counts) and known & numbers.keys() else None


def _of(numbers: dict[str, int], *words: str) -> int:
    return sum(numbers.get(word, 0) for word in words)


def _pytest_run(summary: str, before: str) -> Run:
    numbers = _pytest_numbers(summary) or {}
    failed, errors = numbers.get("failed", 0), _of(numbers, "error", "errors")
    passed = _of(numbers, "passed", "xfailed", "xpassed")
    found = PYTEST_FAILING.findall(before)
    subtests = sum("SUBFAIL" in verdict for verdict, _ in found)
    names = {
        f"{name} {verdict.replace('SUBFAILED', '').replace('SUBFAIL', '').strip()}"
        if "SUBFAIL" in verdict
        else name
        for verdict, name in found
    }
    setup = min(len(PYTEST_SETUP.findall(before)), errors)
    return Run(
        "pytest",
        failed + errors,
        passed,
        max(passed + failed - subtests, passed) + setup,
        frozenset(names),
        broken=bool(PYTEST_BROKEN.search(before)),
        summary=summary.strip(),
    )
