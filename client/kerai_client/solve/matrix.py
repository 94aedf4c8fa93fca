"""Which test runs which statement, and how suspicious that makes each statement.

Suspicion is Ochiai's coefficient, found best for this use by Abreu, Zoeteweij and van Gemund ("On the
Accuracy of Spectrum-based Fault Localization", 2007). With several bugs at once the failing tests are first
grouped by what they point at, and each group is ranked alone (Jones, Bowring and Harrold, "Debugging in
Parallel", 2007).
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kerai_client.solve.statements import FunctionNode, SourceFile, Statement
from kerai_client.solve.vocabulary import bound_names

COLLECTING = "collect "  # how the contexts begin in which pytest imports the tests

Lines = Mapping[str, Mapping[str, Iterable[int]]]  # file -> context -> line numbers


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """A statement, the tests that run it (bit n set for test n), and whether import runs its function."""

    file: SourceFile
    statement: Statement
    tests: int
    at_import: bool


def ochiai(failing: int, passing: int, all_failing: int) -> float:
    """Suspicion of a statement, 0 to 1, from how many failing and passing tests run it."""
    if not failing:
        return 0.0
    return failing / math.sqrt(all_failing * (failing + passing))


class Matrix:
    """Statements against tests. `failed` and `passed` name tests; a test in neither does not count."""

    def __init__(
        self, files: Iterable[SourceFile], lines: Lines, failed: Iterable[str], passed: Iterable[str]
    ) -> None:
        self.failed = list(failed)
        self.passed = list(passed)
        self.numbers = {name: number for number, name in enumerate([*self.failed, *self.passed])}
        self.passed_mask = self.mask(self.passed)
        self.located: list[Located] = []
        files = list(files)
        users = _users(files, {file.path: self._masks(lines.get(file.path, {})) for file in files})
        for file in files:
            self._locate(file, lines.get(file.path, {}), users)

    def mask(self, names: Iterable[str]) -> int:
        """The bits of some tests."""
        return sum(1 << self.numbers[name] for name in set(names))

    def names(self, mask: int) -> list[str]:
        """The tests of some bits, failed ones first."""
        return [name for name, number in self.numbers.items() if mask >> number & 1]

    def suspicion(self, located: Located, failing: int) -> float:
        """Ochiai's coefficient of a statement when the tests in `failing` are all that fail."""
        return ochiai(
            (located.tests & failing).bit_count(),
            (located.tests & self.passed_mask).bit_count(),
            failing.bit_count(),
        )

    def groups(self) -> list[list[str]]:
        """The failing tests, grouped by the function that each of them, taken alone, points at first."""
        found: dict[tuple[str, int], list[str]] = {}
        for name in self.failed:
            alone = self.mask([name])
            best = max(self.located, key=lambda located: self.suspicion(located, alone), default=None)
            if best and self.suspicion(best, alone) > 0:
                functions = best.statement.functions
                line = functions[0].lineno if functions else best.statement.node.lineno
                found.setdefault((best.file.path, line), []).append(name)
        return list(found.values())

    def _masks(self, contexts: Mapping[str, Iterable[int]]) -> dict[int, int]:
        """Line -> tests that run it."""
        masks: dict[int, int] = {}
        for context, numbers in contexts.items():
            test = self.numbers.get(context.removeprefix(COLLECTING), -1)
            if test >= 0:
                for line in numbers:
                    masks[line] = masks.get(line, 0) | 1 << test
        return masks

    def _locate(self, file: SourceFile, contexts: Mapping[str, Iterable[int]], users: dict[str, int]) -> None:
        masks = self._masks(contexts)
        imported = {
            line
            for context, numbers in contexts.items()
            if not context or context.startswith(COLLECTING)
            for line in numbers
        }
        names = set(bound_names(file.tree.body))
        importing: dict[str, int] = {}  # name -> tests that use what import computes with it
        at_import: set[int] = set()
        for statement in file.statements:
            if statement.functions:
                if statement.lines & imported:
                    at_import.add(id(statement.functions[0]))
            elif not isinstance(statement.node, FunctionNode | ast.ClassDef):
                used = _used_names(statement.node)
                tests = _either(users.get(name, 0) for name in used & (names | _bound_in(statement.node)))
                for name in used:
                    importing[name] = importing.get(name, 0) | tests
        everybody = _either(masks.values())
        for statement in file.statements:
            node, functions = statement.node, statement.functions
            tests = _union(masks, statement.lines)
            if isinstance(node, FunctionNode):
                # a default value is computed once and matters to whoever runs the body
                tests |= _union(masks, range(node.lineno, (node.end_lineno or node.lineno) + 1))
            elif statement.at_import:
                # what a module computes when it is imported matters to whoever uses its names
                tests |= _either(users.get(name, 0) for name in _used_names(node) & (names | _bound_in(node)))
            elif statement.lines & imported:
                tests |= importing.get(functions[0].name, everybody)
            cold = not functions or id(functions[0]) in at_import
            self.located.append(Located(file, statement, tests, cold))


def _either(masks: Iterable[int]) -> int:
    result = 0
    for mask in masks:
        result |= mask
    return result


def _union(masks: Mapping[int, int], lines: Iterable[int]) -> int:
    return _either(masks.get(line, 0) for line in lines)


def _users(files: Iterable[SourceFile], masks: Mapping[str, Mapping[int, int]]) -> dict[str, int]:
    """Name -> tests that run a statement of some function in which the name occurs."""
    users: dict[str, int] = {}
    for file in files:
        for statement in file.statements:
            tests = _union(masks[file.path], statement.lines) if statement.functions else 0
            if tests:
                for name in _used_names(statement.node):
                    users[name] = users.get(name, 0) | tests
    return users


def _used_names(node: ast.AST) -> set[str]:
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return names | {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}


def _bound_in(node: ast.AST) -> set[str]:
    """Names that a statement binds; in a class body they are used as attributes."""
    return {
        part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    }
