"""Test runners: the lines that close a run of each, and how its numbers and names are read.

Every pattern is anchored to a line and reads a bounded stretch, so the time is linear in the output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kerai.runs import Run


@dataclass(frozen=True, slots=True)
class Closing:
    """A closing line, what stands before it since the last one of its runner, and after it up to the next."""

    match: re.Match[str]
    before: str
    after: str

    def number(self, group: str) -> int:
        """Return a named group as a number, 0 when it is not there."""
        return int(self.match.groupdict().get(group) or 0)

    @property
    def line(self) -> str:
        """The matched text, in one line."""
        return " ".join(self.match[0].split())


@dataclass(frozen=True, slots=True)
class Runner:
    """A test runner.

    :param closing: the lines that close a run.
    :param read: returns the run that a closing line tells of, None when it is none.
    :param start: how a run begins, for a runner that prints what the tests print that it starts.
    :param inside: runners whose closing lines count for nothing between ``start`` and the closing line.
    """

    closing: re.Pattern[str]
    read: Callable[[Closing], Run | None]
    start: re.Pattern[str] | None = None
    inside: frozenset[str] = frozenset()


UNITTEST_FAILING = re.compile(r"^={20,}\n(?:FAIL|ERROR|UNEXPECTED SUCCESS): ([^\n]{1,1000})$", re.MULTILINE)
UNITTEST_TEST = re.compile(r"\S+ \([^)]*\)")
UNITTEST_FIXTURES = ("setUpClass (", "tearDownClass (", "setUpModule (", "tearDownModule (")


def _unittest(closing: Closing) -> Run | None:
    numbers = {
        words.strip(): int(number)
        for words, number in re.findall(r"([a-z][a-z ]{0,40})=(\d{1,9})", closing.match["numbers"] or "")
    }
    failed = sum(numbers.get(word, 0) for word in ("failures", "errors", "unexpected successes"))
    names = UNITTEST_FAILING.findall(closing.before)
    # A test counts once in "Ran", however many of its subtests fail.
    tests = {
        found[0] if (found := UNITTEST_TEST.match(name)) else name
        for name in names
        if not name.startswith(UNITTEST_FIXTURES)
    }
    ran = max(closing.number("ran") - numbers.get("skipped", 0), 0)
    passed = max(ran - len(tests) - max(failed - len(names), 0), 0)
    end = closing.match["end"] + (f" ({closing.match['numbers']})" if closing.match["numbers"] else "")
    return Run("", failed, passed, ran, frozenset(names), summary=end)


CARGO_BINARY = re.compile(
    r"^ +(?:Running (?:unittests )?(?P<path>\S+) \((?:\S*/)?(?P<stem>[^\s/()]+?)(?:-[0-9a-f]{16})?\)"
    r"|Doc-tests (?P<crate>\S+))$",
    re.MULTILINE,
)
CARGO_FAILING = re.compile(r"^test ([^\n]{1,1000}) \.\.\. FAILED$", re.MULTILINE)


def _cargo(closing: Closing) -> Run | None:
    binaries = list(CARGO_BINARY.finditer(closing.before))
    label = ""
    if binaries:
        last = binaries[-1]
        label = f"{last['crate']} (doc)" if last["crate"] else f"{last['stem']} {last['path']}"
    if closing.match["error"]:
        return Run("", label=label, broken=True, summary=closing.line)
    failed, passed = closing.number("failed"), closing.number("passed")
    names = CARGO_FAILING.findall(closing.before)
    return Run("", failed, passed, passed + failed, _in(label, names), label, summary=closing.line)


def _in(label: str, names: Iterable[str]) -> frozenset[str]:
    return frozenset(f"{label}: {name}" if label else name for name in names)


NEXTEST_START = re.compile(r"^ +Starting \d+ tests? across [^\n]*$", re.MULTILINE)
NEXTEST_FAILING = re.compile(
    r"^ +(?:FAIL|TIMEOUT|ABORT|SIG[A-Z]+|LEAK-FAIL|XFAIL|TRY \d+ [A-Z]+) \[[^\]\n]{1,30}\] "
    r"(?:\([^)\n]{1,30}\) )?(\S{1,500} \S{1,500})",
    re.MULTILINE,
)


def _nextest(closing: Closing) -> Run | None:
    numbers = re.findall(
        r"(\d{1,9}) (failed|timed out|exec failed|passed|skipped)\b", closing.match["numbers"]
    )
    passed = sum(int(number) for number, word in numbers if word == "passed")
    failed = sum(int(number) for number, word in numbers if word not in ("passed", "skipped"))
    started = list(NEXTEST_START.finditer(closing.before))
    before = closing.before[started[-1].end() :] if started else closing.before
    names = NEXTEST_FAILING.findall(before) or NEXTEST_FAILING.findall(closing.after)
    return Run(
        "", failed, passed, passed + failed, frozenset(names) if failed else frozenset(), summary=closing.line
    )


GO_TEST = re.compile(r"^--- (PASS|FAIL|SKIP): (\S+)", re.MULTILINE)
GO_BROKEN = re.compile(r"^(?:panic: |fatal error: )", re.MULTILINE)


def _go(closing: Closing) -> Run | None:
    package, note = closing.match["package"], closing.match["note"] or ""
    tests = GO_TEST.findall(closing.before)
    names = {f"{package}.{name}" for verdict, name in tests if verdict == "FAIL"}
    broken = bool(GO_BROKEN.search(closing.before)) or bool(closing.match["fail"] and "failed]" in note)
    if closing.match["fail"] and not names and not broken:
        names = {package}  # os.Exit, a failing TestMain, a data race
    # Without -v passing tests are not told.
    passed: int | None = None
    if "no test" in note or "failed]" in note:
        passed = 0
    elif re.search(r"^=== RUN ", closing.before, re.MULTILINE):
        passed = sum(verdict == "PASS" for verdict, _ in tests)
    ran = None if passed is None else passed + len(names)
    return Run("", len(names), passed, ran, frozenset(names), package, broken, closing.line)


JEST_FAILING = re.compile(
    r"^(?:FAIL (?P<file>\S[^\n]{0,500})| +● (?P<name>(?!Test suite failed to run)[^\n]{1,1000}))$",
    re.MULTILINE,
)
JEST_SUITE = re.compile(r"^FAIL (\S[^\n]{0,500})\n  ● Test suite failed to run$", re.MULTILINE)
VITEST_FAILING = re.compile(r"^ FAIL  (\S[^\n]{0,1000})$", re.MULTILINE)


def _javascript(closing: Closing) -> Run | None:
    numbers = {word: int(number) for number, word in re.findall(r"(\d{1,9}) (failed|passed)\b", closing.line)}
    failed, passed = numbers.get("failed", 0), numbers.get("passed", 0)
    names, suites, file = set(), set(JEST_SUITE.findall(closing.before)), ""
    for found in JEST_FAILING.finditer(closing.before):
        if found["file"]:
            file = found["file"].strip()
        elif "\u203a" in found["name"] or file:
            names.add(f"{file}: {found['name'].strip()}" if file else found["name"].strip())
    for name in VITEST_FAILING.findall(closing.before):
        (suites if name.endswith("]") and " > " not in name else names).add(name)
    return Run(
        "", failed + len(suites), passed, passed + failed, frozenset(names | suites), summary=closing.line
    )


NODE_FAILING = re.compile(
    r"^test at (\S[^\n]{0,500})\n✖ ([^\n]{1,1000}?)(?: \([\d.]+ms\))?( # [^\n]*)?$", re.MULTILINE
)
NODE_TAP_FAILING = re.compile(r"^not ok \d{1,9} (?:- )?([^\n]{1,1000}?)( # [^\n]*)?$", re.MULTILINE)


def _node(closing: Closing) -> Run | None:
    failed, passed = closing.number("failed") + closing.number("cancelled"), closing.number("passed")
    names = {f"{place}: {name}" for place, name, note in NODE_FAILING.findall(closing.after) if not note}
    names |= {name for name, note in NODE_TAP_FAILING.findall(closing.before) if not note}
    summary = f"{passed} passed, {failed} failed"
    return Run(
        "", failed, passed, passed + failed, frozenset(names) if failed else frozenset(), summary=summary
    )


MOCHA_FAILING = re.compile(r"^  \d{1,6}\) ([^\n]{1,500}(?:\n {7}[^\n]{1,500}){0,12}?):$", re.MULTILINE)


def _mocha(closing: Closing) -> Run | None:
    failed, passed = closing.number("failed"), closing.number("passed")
    names = {" ".join(name.split()) for name in MOCHA_FAILING.findall(closing.after)} if failed else set()
    return Run(
        "", failed, passed, passed + failed, frozenset(names), summary=f"{passed} passing, {failed} failing"
    )


MAVEN_FAILING = re.compile(
    r"^\[ERROR\] +(\S{1,500})(?: --)? +Time elapsed: [^\n]{1,40} <<< (?:FAILURE|ERROR)!", re.MULTILINE
)


def _maven(closing: Closing) -> Run | None:
    if closing.match["error"]:
        return Run("", broken=True, summary=closing.line)
    failed = closing.number("failed") + closing.number("errors")
    ran = closing.number("ran") - closing.number("skipped")
    names = frozenset(MAVEN_FAILING.findall(closing.before))
    return Run("", failed, max(ran - failed, 0), max(ran, 0), names, summary=closing.line)


CTEST_FAILING = re.compile(r"^\s+\d{1,9} - (\S[^\n]{0,500}) \([A-Za-z *-]{1,40}\)", re.MULTILINE)


def _ctest(closing: Closing) -> Run | None:
    failed, ran = closing.number("failed"), closing.number("ran")
    names = frozenset(CTEST_FAILING.findall(closing.after)) if failed else frozenset()
    return Run("", failed, max(ran - failed, 0), ran, names, summary=closing.line)


RSPEC_FAILING = re.compile(r"^rspec (\S{1,500})(?: # [^\n]*)?$", re.MULTILINE)


def _rspec(closing: Closing) -> Run | None:
    failed, errors = closing.number("failed"), closing.number("errors")
    ran = max(closing.number("ran") - closing.number("pending"), 0)
    names = frozenset(RSPEC_FAILING.findall(closing.after))
    broken = errors > 0 and ran == 0
    return Run("", failed + errors, max(ran - failed, 0), ran, names, broken=broken, summary=closing.line)


def _lines(pattern: str) -> re.Pattern[str]:
    """Return a pattern of whole lines: ``<name>`` is a number with a name, ``<>`` one without."""
    named = re.sub(r"(?<!\?P)<(\w+)>", r"(?P<\1>\\d{1,9})", pattern.replace("<>", r"\d{1,9}"))
    return re.compile(f"^(?:{named})$", re.MULTILINE)


ALL = frozenset(
    {"pytest", "unittest", "cargo", "nextest", "go", "jest", "node", "mocha", "maven", "rspec", "tap"}
)
RUNNERS: dict[str, Runner] = {
    # Ran 4 tests in 0.001s, an empty line, FAILED (failures=1, errors=1, skipped=1)
    "unittest": Runner(
        _lines(
            r"Ran <ran> tests? in [\d.]{1,20}s\n\s{0,4}\n?(?P<end>OK|FAILED|NO TESTS RAN|PASSED)"
            r"(?: \((?P<numbers>[^\n)]{0,300})\))?[ \t]*"
        ),
        _unittest,
    ),
    # test result: FAILED. 2 passed; 1 failed; 0 ignored; …, once a test binary
    "cargo": Runner(
        _lines(
            r"test result: (?:ok|FAILED)\. <passed> passed; <failed> failed;[^\n]{0,300}"
            r"|(?P<error>error: could not compile [^\n]{0,500}"
            r"|  process didn't exit successfully: [^\n]{0,500})"
        ),
        _cargo,
    ),
    #      Summary [   0.123s] 4 tests run: 3 passed (1 slow), 1 failed, 1 timed out, 0 skipped
    "nextest": Runner(
        _lines(r" +Summary \[[^\]\n]{1,30}\] +<>(?:/<>)? tests? run: (?P<numbers>[^\n]{1,300})"),
        _nextest,
        NEXTEST_START,
        frozenset({"cargo"}),
    ),
    # ok or FAIL, the package, its time or (cached) or [build failed]
    "go": Runner(
        _lines(
            r"(?:ok +|(?P<fail>FAIL))\t(?P<package>\S{1,500})[ \t]+"
            r"(?P<note>(?:\d[\d.]{0,20}s|\(cached\)|\[[^\]\n]{1,40}\])[^\n]{0,300})"
        ),
        _go,
    ),
    # Tests:       1 failed, 2 skipped, 5 passed, 8 total (jest) or Tests  1 failed | 5 passed (6) (vitest)
    "jest": Runner(
        _lines(r"Tests:[ \t]+(?:<> [^\n]{1,200}, )?<> total|[ \t]*Tests[ \t]+<> [^\n]{1,200} \(<>\)"),
        _javascript,
    ),
    # # tests 6, # suites 1, # pass 2, # fail 2, # cancelled 0, …, a line each; also from tape
    "node": Runner(
        _lines(
            r"[\u2139#] tests +<>\n(?:[\u2139#] suites +<>\n)?[\u2139#] pass +<passed>"
            r"(?:\n[\u2139#] fail +<failed>)?(?:\n[\u2139#] cancelled +<cancelled>)?"
        ),
        _node,
        _lines(r"TAP version <>"),
        frozenset({"tap"}),
    ),
    #   5 passing (3ms), 1 pending, 2 failing, a line each
    "mocha": Runner(
        _lines(r"  <passed> passing(?: \([^\n)]{1,20}\))?(?:\n  <> pending)?(?:\n  <failed> failing)?"),
        _mocha,
    ),
    # [ERROR] Tests run: 4, Failures: 1, Errors: 0, Skipped: 0, once a module; with a time it is one class
    "maven": Runner(
        _lines(
            r"(?:(?:\[[A-Z]+\] )?Tests run: <ran>, +Failures: <failed>, +Errors: <errors>"
            r", +Skipped: <skipped>(?:, Flakes: <>)?|\[ERROR\] (?P<error>COMPILATION ERROR) ?:?)[ \t]*"
        ),
        _maven,
    ),
    # 33% tests passed, 2 tests failed out of 3
    "ctest": Runner(
        _lines(r"<>% tests passed(?:, <failed> tests? failed)? out of <ran>"),
        _ctest,
        _lines(r"Test project [^\n]*"),
        ALL,
    ),
    # 3 examples, 1 failure, 1 pending, 1 error occurred outside of examples
    "rspec": Runner(
        _lines(
            r"<ran> examples?, <failed> failures?(?:, <pending> pending)?"
            r"(?:, <errors> errors? occurred outside of examples)?"
        ),
        _rspec,
    ),
}
