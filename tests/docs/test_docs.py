"""README.md and docs/ say what is true: their commands and programs run, in order, page by page.

See :mod:`pages` for what becomes of which block. Each page has a temporary directory and a home of its own.
It has the private server that it starts itself (`kerai up`), or a fresh database of the tests' server in
KERAI_DSN. `make …`, `sudo …` and the like are left out: `make test` runs this, and would run itself. Programs
in languages that this machine does not have are no tests here.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.docs import pages

from kerai_client.server.private import PrivateServer

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUNNING = [page for page in PAGES if any(block.is_run for block in pages.blocks(page, ROOT))]
OTHERS = [ROOT / f"{name}.md" for name in ("AGENTS", "CHANGELOG", "CONTRIBUTING", "SECURITY")]
DECISIONS = sorted((ROOT / "docs/decisions").glob("*.md"))
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)")
# What the developer has set for himself: ways to databases, languages, how wide the terminal is.
OWN = re.compile(r"KERAI_|PG(?!_CONFIG$)|XDG_|LC_|LANG|COLUMNS$")
# language -> what gets its driver, what runs the README's program, and what has to be on the machine
RUNNERS = {
    "python": ("true", "python push.py", ()),
    "javascript": (
        "npm install --silent --no-audit --no-fund --prefer-offline pg",
        "node push.mjs",
        ("npm", "node"),
    ),
    "go": (
        # The driver as Debian packages it (golang-github-lib-pq-dev): no module proxy is asked.
        "export GO111MODULE=off GOPATH=/usr/share/gocode",
        "go run main.go",
        ("go", "/usr/share/gocode/src/github.com/lib/pq"),
    ),
}


@contextmanager
def reader(environment: dict[str, str]) -> Iterator[tuple[Path, pages.Shell]]:
    """Give a reader a directory that every account can enter, a home, and a shell."""
    folder = Path(tempfile.mkdtemp(prefix="kerai-docs-"))
    for place in (folder, folder / "home", folder / "work"):
        place.mkdir(exist_ok=True)
        place.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not OWN.match(name)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    settings = {
        "HOME": str(folder / "home"),
        "PATH": path,
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if "npm_config_cache" not in kept:
        # What npm has fetched once is not fetched again, although the reader has an empty home.
        settings["npm_config_cache"] = str(Path.home() / ".npm")
    shell = pages.Shell(folder / "work", kept | settings | environment)
    try:
        yield folder / "work", shell
    finally:
        shell.close()
        for data in folder.glob("work/**/data/PG_VERSION"):
            PrivateServer(data.parents[1]).destroy()
        shutil.rmtree(folder)


def way_to(database: Any) -> dict[str, str]:
    """Return the environment in which kerai and psql find a database without being told."""
    server = database.server
    return {
        "KERAI_DSN": database.dsn,
        "PGHOST": str(server.socket_directory),
        "PGUSER": server.owner.name,
        "PGDATABASE": database.name,
    }


@pytest.mark.parametrize("page", RUNNING, ids=lambda page: page.stem)
def test_page(page: Path, request: pytest.FixtureRequest) -> None:
    found = [block for block in pages.blocks(page, ROOT) if block.is_run]
    with ExitStack() as stack:
        environment: dict[str, str] = {}
        if not any(re.search(r"^(\$ )?kerai up", block.text, re.MULTILINE) for block in found):
            make_database = request.getfixturevalue("make_database")
            environment = way_to(stack.enter_context(make_database()))
        directory, shell = stack.enter_context(reader(environment))
        for block in found:
            pages.run_block(block, shell, directory)


@pytest.mark.parametrize(
    "language",
    [
        name
        for name, (_, _, needs) in RUNNERS.items()
        if all(shutil.which(need) or Path(need).is_dir() for need in needs)
    ],
)
def test_program_of_the_readme_pushes(language: str, database: Any, connect: Any) -> None:
    programs = [block for block in pages.blocks(ROOT / "README.md", ROOT) if block.language == language]
    assert len(programs) == 1
    with reader(way_to(database)) as (directory, shell):
        pages.run_block(programs[0], shell, directory)
        prepare, run, _ = RUNNERS[language]
        code, output = shell.run(prepare)
        assert code == 0, output
        for _ in range(2):  # the second time it follows on its own first changeset
            code, output = shell.run(run)
            assert code == 0, output
            assert output.split()[-1] == "merged", output
    rows = connect().execute(
        "select document->>'prev' as prev, signature from kerai.changesets order by arrival"
    )
    first, second = rows.fetchall()
    assert first["prev"] is None and second["prev"] is not None


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, *OTHERS, *DECISIONS]:
        for target, anchor in LINK.findall(page.read_text("utf-8")):
            file = (page.parent / target).resolve() if target else page
            assert file.exists(), f"{page.name} links to {target}"
            if anchor:
                titles = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
                anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
                assert anchor in anchors, f"{page.name} links to {target}#{anchor}"


def test_the_index_lists_every_decision_once() -> None:
    index = ROOT / "docs/decisions/README.md"
    listed = re.findall(
        r"^\| \[(\d{3})\]\((\d{3}-[a-z0-9-]+\.md)\) \|", index.read_text("utf-8"), re.MULTILINE
    )
    assert [name for _, name in listed] == [page.name for page in DECISIONS if page != index]
    assert all(name.startswith(number) for number, name in listed)


def test_commands_and_paths_for_developers_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in [ROOT / "README.md", *OTHERS]:
        text = page.read_text("utf-8")
        for target in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", text, re.MULTILINE):
            assert "".join(target) in targets, f"{page.name} says make {''.join(target)}"
        rooms = r"(?:\.venv|client|docs|examples|extension|requirements|scripts|tests)/[\w./-]*"
        for path in re.findall(rf"`({rooms})`|^({rooms}) ", text, re.MULTILINE):
            name = "".join(path)
            assert "NNN" in name or (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ("a … c", "a b c\n", True),
        ("a\n…\nd", "a\nb\nc\nd\n", True),
        ("a\n…", "a\n", True),
        ("a", "a\nb\n", False),
        ("a…", "b", False),
        ("│ a │", "│ a     │\n", True),
    ],
)
def test_the_runner_sees_differences(expected: str, output: str, same: bool) -> None:
    assert pages.matches(expected, output) is same


def test_the_runner_sees_a_failing_command(tmp_path: Path) -> None:
    shell = pages.Shell(tmp_path, dict(os.environ))
    try:
        with pytest.raises(pages.PageError, match=r"page.md:2: exit code 1"):
            pages.run_block(pages.Block("bash", "false\ntrue\n", "page.md:2"), shell, tmp_path)
        with pytest.raises(pages.PageError, match="it gives"):
            pages.run_block(pages.Block("console", "$ echo a\nb\n", "page.md:2"), shell, tmp_path)
    finally:
        shell.close()
