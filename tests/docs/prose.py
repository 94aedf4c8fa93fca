"""Find the prose of the project, and the sentences in it that are hard to read.

Prose is what a person reads: the text of Markdown pages, the comments and docstrings of Python, and the
comments of SQL. The texts of COMMENT ON and the messages of errors are prose too. A sentence is hard to read
when it has more than :data:`MOST_WORDS` words, or when it begins with one of :data:`RIDDLES` in place of a
named subject.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_WORDS = 30
RIDDLES = re.compile(r"\W*(whoever|whom|who is not|what was)\b", re.IGNORECASE)

# Where a sentence ends: not after "e.g." or "J.", nor before a small letter, unless that names a parameter.
END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\b[A-Z])[.!?…][)\"'”]*\s+(?=[\"'“(`]?(?:[A-Z0-9`]|[a-z_]+: ))")
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
URL = re.compile(r"\b\w+://\S+")
CODE = re.compile(r"``.+?``|`[^`]+`", re.DOTALL)
TAG = re.compile(r"</?\w[^>]*>")
LIST_ITEM = re.compile(r"[ \t]*([-*+]|\d+[.)])[ \t]+")
FIELD = re.compile(r"^\s*:(\w+)( [\w*, ]+)?:")
SQL_CODE = re.compile(
    r"\s*(select|insert|update|delete|with|create|alter|drop|grant|revoke|set|copy|call|from|where|begin|"
    r"lock|values|truncate|comment|and|or|on|as|returns|language|do|explain|listen|join)\b.*[;(=*,]",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class Sentence:
    """A sentence, and the line on which the paragraph begins that holds it."""

    place: str
    text: str

    @property
    def words(self) -> int:
        """Count the words; a piece of code is one."""
        return sum(1 for word in self.text.split() if re.search(r"\w", word))

    @property
    def is_hard(self) -> bool:
        """Say whether it is too long, or begins without a named subject."""
        return self.words > MOST_WORDS or RIDDLES.match(self.text) is not None

    def __str__(self) -> str:
        return f"{self.place}: {self.words} words: {self.text}"


def sentences(paragraph: str) -> Iterator[str]:
    """Split a paragraph of prose into its sentences, with each piece of code and each URL as one word."""
    text = LINK.sub(r"\1", paragraph)
    text = CODE.sub(lambda code: "CODE" + "." * code[0].rstrip("`").endswith("."), text)
    text = TAG.sub(" ", URL.sub("URL", text))
    for sentence in END.split(" ".join(text.split())):
        if sentence.strip():
            yield sentence.strip()


def of_markdown(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each paragraph and list item; no code, no tables, no headings."""
    text = FENCE.sub(lambda found: re.sub(r"[^\n]", "", found[0]), text)
    start, lines = 0, list[str]()
    for number, line in enumerate([*text.splitlines(), ""], 1):
        is_prose = line.strip() != "" and not re.match(r"\s*(\||#|<!--|\[[^\]]+\]: )", line)
        item = LIST_ITEM.match(line)
        if lines and (not is_prose or item):
            yield start, "\n".join(lines)
            lines = []
        if is_prose:
            if not lines:
                start = number
            lines.append(line[item.end() :] if item else line)


def of_python(text: str, with_messages: bool = True) -> Iterator[tuple[int, str]]:
    """Yield line and text of each comment, each paragraph of a docstring, and each message."""
    yield from joined(
        (token.start[0], token.start[1], token.string.lstrip("#! "))
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    )
    docstrings = set[int]()
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docstrings.add(id(first.value))
                if isinstance(first.value.value, str):
                    yield from of_docstring(first.value.value, first.lineno)
    if not with_messages:
        return
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in docstrings or id(node) in inner:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from of_message(node.value, node.lineno)
        elif isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "CODE" for part in node.values)
            yield from of_message("".join(map(str, parts)), node.lineno)


def of_docstring(text: str, line: int) -> Iterator[tuple[int, str]]:
    """Yield the paragraphs, list items and fields of a docstring; no indented code."""
    rows = text.splitlines()
    indent = min((len(row) - len(row.lstrip()) for row in rows[1:] if row.strip()), default=0)
    kept = list[str]()
    was_blank, was_code = True, False
    for number, row in enumerate(rows):
        inner = row if number == 0 else row[indent:]
        # click shows the lines after a \b as they are.
        is_code = inner == "\b" or (was_code and inner.strip() != "" and not was_blank)
        is_code |= inner.startswith("    ") and (was_blank or was_code)
        # A field is a list item, so that it is a paragraph of its own.
        kept.append("" if is_code else FIELD.sub("- ", inner))
        was_blank, was_code = not inner.strip(), is_code or (was_code and not inner.strip())
    for number, paragraph in of_markdown("\n".join(kept)):
        yield line + number - 1, paragraph


def of_message(text: str, line: int) -> Iterator[tuple[int, str]]:
    """Yield a literal that is a text for people: several words, no SQL, and no file that begins with #."""
    if len(text.split()) > 5 and not SQL_CODE.match(text) and not text.startswith("#"):
        for paragraph in re.split(r"\n(?=\s*\n|\s{2,})", text):
            yield line, paragraph


def of_sql(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each comment and of each literal that is a text for people.

    The bodies of functions are looked into as well.
    """
    comments = list[tuple[int, int, str]]()
    literals = list[tuple[int, str]]()
    token = re.compile(
        r"--(?P<comment>[^\n]*)|/\*(?P<block>.*?)\*/|'(?P<literal>(?:[^']|'')*)'(?P<on>(?=\s*\n\s*'))?",
        re.DOTALL,
    )
    parts = list[str]()
    for found in token.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if found["literal"] is not None:
            parts.append(found["literal"].replace("''", "'"))
            if found["on"] is None:
                literals.append((line, "".join(parts)))
                parts = []
        elif found["comment"] is not None:
            column = found.start() - text.rfind("\n", 0, found.start())
            if text[text.rfind("\n", 0, found.start()) + 1 : found.start()].strip():
                column += 1000  # behind code: a comment by itself
            comment = found["comment"].strip(" -=")
            is_code = comment.startswith("name: ") or found["comment"].startswith("   ")
            comments.append((line, column, "" if is_code else comment))
        else:
            comments.append((line, 0, found["block"]))
    for line, comment in joined(comments):
        if not SQL_CODE.match(comment):
            yield line, comment
    for line, literal in literals:
        yield from of_message(literal, line)


def joined(comments: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, str]]:
    """Join comments in lines that follow each other at one column; an empty one or a list item begins
    a new paragraph."""
    start, last, lines = 0, (0, 0), list[str]()
    for line, column, text in comments:
        item = LIST_ITEM.match(text)
        if lines and ((line, column) != (last[0] + 1, last[1]) or not text.strip() or item):
            yield start, "\n".join(lines)
            lines = []
        if text.strip():
            if not lines:
                start = line
            lines.append(text[item.end() :] if item else text)
        last = (line, column)
    if lines:
        yield start, "\n".join(lines)


def prose(file: Path, name: str) -> Iterator[Sentence]:
    """Yield the sentences of a file. The literals of tests are data, and no prose.

    :param name: what the file is called in their places.
    """
    text = file.read_text("utf-8")
    if file.suffix == ".md":
        paragraphs = of_markdown(text)
    elif file.suffix == ".py":
        paragraphs = of_python(text, with_messages=not name.startswith("tests/"))
    else:
        paragraphs = of_sql(text)
    for line, paragraph in paragraphs:
        for sentence in sentences(paragraph):
            yield Sentence(f"{name}:{line}", sentence)
