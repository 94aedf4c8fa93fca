"""Which room of the client may import which: a lower one never knows a higher one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import kerai_client

ROOT = Path(kerai_client.__file__).parent
# From the lowest to the highest. Each room may also import its own modules, and the package kerai.
MAY_IMPORT = {
    "errors": "",
    "solve": "",
    "source": "errors",
    "db": "errors",
    "server": "errors db",
    "config": "errors server",
    "agent": "errors config db source",
    "repo": "errors db source agent",
    "harness": "errors db source agent repo",
    "cli": "errors config solve db server source agent repo harness",
    "__main__": "cli",
}
# The same within source/.
IN_SOURCE = {
    "tree": "",
    "syntax": "tree",
    "files": "tree",
    "compare": "tree syntax",
}
# The packages that one room wraps for all others.
ONLY_IN = {"click": "cli", "rich": "cli", "tree_sitter": "source", "nacl": "agent"}


def rooms() -> set[str]:
    """Return the packages and modules of the client's top level."""
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    return folders | {path.stem for path in ROOT.glob("*.py")} - {"__init__"}


def files_of(room: str) -> list[Path]:
    """Return the modules of a room."""
    return sorted((ROOT / room).rglob("*.py")) or [ROOT / f"{room}.py"]


def imports_of(file: Path) -> Iterator[str]:
    """Yield the full names that a module imports, wherever in it."""
    package = ("kerai_client", *file.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{name.name}" for name in node.names)


def test_every_room_has_its_place() -> None:
    assert rooms() == set(MAY_IMPORT)
    names = list(MAY_IMPORT)
    for place, allowed in enumerate(MAY_IMPORT.values()):
        assert set(allowed.split()) <= set(names[:place]), names[place]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_lower_rooms_alone(room: str) -> None:
    allowed = {room, *MAY_IMPORT[room].split()}
    strangers = []
    for file in files_of(room):
        for name in imports_of(file):
            package, *rest = name.split(".")
            known = rest[0] in allowed if package == "kerai_client" and rest else True
            if not known or ONLY_IN.get(package, room) != room:
                strangers.append(f"{file.relative_to(ROOT)} imports {name}")
    assert not strangers


@pytest.mark.parametrize("room", IN_SOURCE)
def test_source_has_rooms_too(room: str) -> None:
    assert {path.parent.name for path in (ROOT / "source").glob("*/__init__.py")} == set(IN_SOURCE)
    allowed = [("kerai_client", "source", name) for name in (room, *IN_SOURCE[room].split())]
    strangers = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files_of(f"source/{room}")
        for name in imports_of(file)
        if name.startswith("kerai_client.source") and tuple(name.split(".")[:3]) not in allowed
    ]
    assert not strangers


def test_the_imports_of_a_module_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "a").mkdir()
    file = tmp_path / "a" / "b.py"
    file.write_text(
        "import x.y\nfrom . import c\nfrom ..d import e\ndef f():\n    from kerai_client.g import h\n"
    )
    assert list(imports_of(file)) == ["x.y", "kerai_client.a.c", "kerai_client.d.e", "kerai_client.g.h"]
