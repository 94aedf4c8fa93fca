"""The command line as a whole: help, common options, how failures are told, output."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import click
import psycopg
import pytest
from click.testing import CliRunner

from kerai import __version__
from kerai_client.cli import output
from kerai_client.cli.main import COMMANDS, Client, Kerai, add_common_options, cli, common_options, explain
from kerai_client.db.connection import connect as connect_to
from kerai_client.errors import KeraiError, path_in_errors

NAMES = [name for section in COMMANDS.values() for name in section]
KERAI = [sys.executable, "-m", "kerai_client"]


def failing(error: BaseException, *options: str) -> Any:
    """Return what the command line makes of an exception."""

    @click.command()
    def fail() -> None:
        raise error

    @click.group(cls=Kerai)
    def group() -> None:
        """Stands for kerai."""

    group.add_command(fail)
    group.params = common_options()
    return CliRunner().invoke(group, [*options, "fail"])


def test_help_lists_every_command() -> None:
    shown = CliRunner().invoke(cli, ["--help"])
    assert shown.exit_code == 0
    assert all(f"  {name} " in shown.output for name in NAMES)


def test_another_database_is_not_the_private_server(tmp_path: Path) -> None:
    for words in (["up"], ["down"], ["down", "--destroy", "--yes"]):
        refused = CliRunner().invoke(
            cli, [*words, "--dsn", "host=/nowhere", "--dir", str(tmp_path / "server")]
        )
        assert refused.exit_code == 2 and "which --dsn does not name" in refused.stderr, words
    assert not (tmp_path / "server").exists()


def every_command() -> list[list[str]]:
    """Return the words of every command and subcommand."""
    context = click.Context(cli)
    words = []
    for name in NAMES:
        command = cli.get_command(context, name)
        words.append([name])
        if isinstance(command, click.Group):
            words += [[name, subcommand] for subcommand in command.list_commands(context)]
    return words


def test_every_command_has_help_with_an_example_and_the_common_options() -> None:
    for words in every_command():
        shown = CliRunner().invoke(cli, [*words, "--help"])
        assert shown.exit_code == 0, words
        assert {"--dsn", "--json"} <= set(shown.output.replace(",", " ").split()), words
        assert "Example" in shown.output, words


def test_help_is_quick() -> None:
    """It loads none of the drivers and parsers, which take most of a start."""
    code = "import sys, kerai_client.cli.main as m; m.main(['--help']); print(*sys.modules, file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stderr.split())
    assert loaded.isdisjoint({"psycopg", "rich", "nacl", "tree_sitter", "coverage"})


def test_version() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"kerai {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dsn", "x", "--dir", "d", "--json", "show", "inner"],
        ["show", "--dsn", "x", "--dir", "d", "--json", "inner"],
        ["show", "inner", "--dsn", "x", "--dir", "d", "--json"],
        ["--dsn", "other", "--json", "show", "inner", "--dsn", "x", "--dir", "d"],
    ],
)
def test_common_options_stand_before_or_after_the_command(arguments: list[str]) -> None:
    seen: list[Client] = []

    @click.group()
    def show() -> None:
        """Stands for a command group."""

    @show.command()
    @click.pass_obj
    def inner(client: Client) -> None:
        seen.append(client)

    group = Kerai(params=[], callback=click.pass_context(lambda context: context.ensure_object(Client)))
    group.add_command(show)
    add_common_options(group)
    result = CliRunner().invoke(group, arguments)
    assert result.exit_code == 0, result.output
    assert seen == [Client(dsn="x", directory="d", json=True)]


def test_an_unknown_command_and_option() -> None:
    assert CliRunner().invoke(cli, ["no-such"]).exit_code == 2
    assert CliRunner().invoke(cli, ["status", "--no-such"]).exit_code == 2


def test_an_expected_failure_is_told_in_lines() -> None:
    result = failing(KeraiError("outside the scope", code="KR007", detail="node 5", hint="ask for more"))
    assert result.exit_code == 1
    assert result.stderr == "error KR007: outside the scope\ndetail: node 5\nhint: ask for more\n"
    assert failing(KeraiError("plain")).stderr == "error: plain\n"


def test_a_failure_in_json() -> None:
    result = failing(KeraiError("outside the scope", code="KR007", detail="node\n\x1b"), "--json")
    assert result.exit_code == 1 and result.stdout == "" and result.stderr.count("\n") == 1
    assert json.loads(result.stderr) == {
        "error": {"code": "KR007", "message": "outside the scope", "detail": "node\n\x1b", "hint": None}
    }
    assert "Aborted!" in failing(click.Abort()).stderr
    assert json.loads(failing(click.Abort(), "--json").stderr)["error"]["message"] == "aborted"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--json", "no-such"], "cli --help"),
        (["--json", "--no-such"], "cli --help"),
        (["log", "--no-such", "--json"], "cli log --help"),
        (["log", "--limit", "x", "--json"], "cli log --help"),
    ],
)
def test_a_wrong_option_in_json(words: list[str], hint: str) -> None:
    result = CliRunner().invoke(cli, words)
    told = json.loads(result.stderr)["error"]
    assert (result.exit_code, told["code"], told["hint"]) == (2, None, hint)
    assert told["message"]


def test_an_error_of_the_server_is_told_in_lines(database: Any, kerai: Any) -> None:
    raised = (
        "do $$ begin raise exception using errcode = 'KR010', message = 'too poor',"
        " detail = 'balance 1, price 2', hint = 'work'; end $$"
    )
    with pytest.raises(psycopg.Error) as caught, psycopg.connect(database.dsn) as connection:
        connection.execute(raised)
    assert failing(caught.value).stderr == "error KR010: too poor\ndetail: balance 1, price 2\nhint: work\n"


def test_no_server_is_told_in_lines(kerai: Any, tmp_path: Path) -> None:
    run = kerai("status", "--dsn", "host=/nowhere")
    assert run.returncode == 1
    assert run.stderr.startswith("error: ")
    assert "Traceback" not in run.stderr
    run = kerai("log", cwd=tmp_path)
    assert run.returncode == 1
    assert "hint: start it with `kerai up`" in run.stderr


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:s3cret@@host/kerai",
        "postgresql://me:word@s3cret@host/kerai",
        "postgresql://me:s3cret/word@host/kerai",
        "postgresql://me:s3cret#word@host:x/kerai",
        "postgresql://me:s3cret?word@host/kerai",
        "postgresql://me:s3cret[word@host/kerai",
        "postgresql://me:s3cret%zz@host/kerai",
        "postgresql://me:s3cret@[host/kerai",
        "postgresql://me:s3cret@host:54x/kerai",
        "postgresql:/me:s3cret@host/kerai",
        "postgresql://me:s3cret@host/kerai?nonsense=1",
        "host=nowhere password=a s3cret user=me",
        "host=nowhere password='s3cret user=me",
        "host=nowhere password=s3cret nonsense=1",
        "host=nowhere passwort=s3cret",
        "s3cret",
    ],
)
def test_no_error_tells_a_password(dsn: str) -> None:
    for words in (["log"], ["status"], ["sql", "select 1"], ["agent", "list", "--json"]):
        run = CliRunner().invoke(cli, [*words, "--dsn", dsn])
        assert run.exit_code == 1 and "error" in run.stderr
        assert "s3cret" not in run.output and "word@" not in run.output


@pytest.mark.parametrize(
    "dsn", ["postgresql://me:word@s3cret@host/kerai", "postgresql://me:s3cret/word@host/kerai"]
)
def test_a_password_that_ends_too_early_is_told_from_a_host(dsn: str) -> None:
    run = CliRunner().invoke(cli, ["log", "--dsn", dsn])
    assert "the DSN is not a connection string" in run.stderr and "%40" in run.stderr


def test_a_socket_of_the_abstract_namespace_is_a_host() -> None:
    with pytest.raises(psycopg.OperationalError):
        connect_to("host=@nowhere dbname=kerai port=5432")


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as full, path_in_errors(tmp_path / "a"):
        Path("/dev/full").write_text("x")
    assert failing(full.value).stderr == f"error: No space left on device\ndetail: {tmp_path}/a\n"


def test_a_file_that_cannot_be_written_whole_is_named(database: Any, tmp_path: Path, kerai: Any) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "long.txt").write_text("word\n" * 10_000)
    assert kerai("import", tmp_path / "in", "--dsn", database.dsn).returncode == 0
    # A limit on the size of files stands for a full disk: the write fails, not the opening.
    limited = f"ulimit -f 8; exec {shlex.join(KERAI)} --dsn {shlex.quote(database.dsn)}"
    for words, name in (("checkout out", "out/long.txt"), ("ops export log.jsonl", "log.jsonl")):
        run = subprocess.run(
            ["bash", "-c", f"{limited} {words}"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert run.returncode == 1
        assert run.stderr.startswith("error: File too large\ndetail: ") and f"{name}\n" in run.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "/dev/null"),
            "error: Not a directory\ndetail: /dev/null\n",
        ),
        (OSError(errno.EXDEV, "Cross", "a", None, "b"), "error: Cross\ndetail: a -> b\n"),
        (OSError("tee: no"), "error: tee: no\n"),
        (
            UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"),
            "error: a text is not valid UTF-8\ndetail: 'a\\udcff'\n",
        ),
        (
            UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "invalid start byte"),
            "error: a text is not valid UTF-8\ndetail: b'a\\xff'\n",
        ),
    ],
)
def test_what_the_system_refuses_is_told_in_lines(error: Exception, told: str) -> None:
    result = failing(error)
    assert (result.exit_code, result.stderr) == (1, told)


@pytest.mark.parametrize(
    ("redirection", "code", "told"),
    [
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("> /dev/full", 1, "error: No space left on device\n"),
    ],
)
@pytest.mark.parametrize("words", ["completion bash", "--version"])
def test_output_that_goes_nowhere(words: str, redirection: str, code: int, told: str) -> None:
    command = f"exec {shlex.join(KERAI)} {words} {redirection}"
    run = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (code, told)


def test_a_bug_keeps_its_traceback() -> None:
    assert explain(ZeroDivisionError()) is None
    assert isinstance(failing(ZeroDivisionError()).exception, ZeroDivisionError)


def test_interrupted() -> None:
    result = failing(KeyboardInterrupt())
    assert result.exit_code == 130
    assert "Traceback" not in result.output


HOOKED = """
import atexit, os, signal, sys

module = sys.argv.pop(1)

class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Hook())
if module == "the end":
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
from kerai_client.__main__ import run

sys.exit(run())
"""


@pytest.mark.parametrize(
    "module",
    [
        *("kerai_client.cli.main", "click", "click.shell_completion", "kerai_client.cli.agent"),
        *("kerai_client.db.connection", "psycopg", "psycopg.types.json", "kerai_client.config", "tomllib"),
        *("kerai_client.cli.tables", "the end"),
    ],
)
def test_ctrl_c_at_any_import(database: Any, module: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", HOOKED, module, "agent", "list", "--dsn", database.dsn],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (130, "")


def test_ctrl_c_is_for_the_shells_jobs_in_the_foreground(database: Any) -> None:
    ignored = [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{HOOKED}"]
    command = [*ignored, "psycopg", "agent", "list", "--dsn", database.dsn]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_ctrl_c_in_a_query(database: Any, connect: Any) -> None:
    with subprocess.Popen(
        [*KERAI, "--dsn", database.dsn, "sql", "select pg_sleep(60)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        asleep = "select 1 from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'"
        observer = connect()
        while observer.execute(asleep).fetchone() is None:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_a_reader_that_has_seen_enough(database: Any) -> None:
    command = [*KERAI, "--dsn", database.dsn, "sql", "select n from generate_series(1, 100000) as n"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert "_KERAI_COMPLETE" in result.output


def test_completion_knows_the_commands() -> None:
    asked = {
        "COMP_WORDS": "kerai s",
        "COMP_CWORD": "1",
        "_KERAI_COMPLETE": "bash_complete",
    }
    code = "import kerai_client.cli.main as m; m.main()"
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=False)
    names = ("status", "swarm", "solve", "sync", "sql")
    assert run.stdout.split() == [f"plain,{name}" for name in names]


class TestOutput:
    """Tables and JSON."""

    ROWS: ClassVar[list[dict[str, Any]]] = [
        {"id": UUID(int=1), "name": "[bold]a[/bold]", "amount": 1_500_000_000, "extra": b"\x00\xff"},
        {"id": UUID(int=2), "name": "b" * 300, "amount": 2, "extra": None},
    ]

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.emit(self.ROWS, ["name"], json=True)
        assert json.loads(capsys.readouterr().out) == [
            {**self.ROWS[0], "id": str(UUID(int=1)), "extra": "00ff"},
            {**self.ROWS[1], "id": str(UUID(int=2))},
        ]

    def test_values_in_json(self) -> None:
        time = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
        value = [Decimal("10"), Decimal("0.5"), time, timedelta(minutes=1), {"ä": None}]
        assert json.loads(output.to_json(value)) == [10, 0.5, time.isoformat(), 60.0, {"ä": None}]
        assert json.loads(output.to_json("\x7f\x9b")) == "\x7f\x9b" and output.to_json("\x9b") == r'"\u009b"'
        with pytest.raises(TypeError):
            output.to_json(object())

    def test_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.emit(self.ROWS, ["name", "amount"], title="Agents", formats={"amount": output.format_nkoi})
        shown = capsys.readouterr().out
        assert "Agents" in shown
        assert "[bold]a[/bold]" in shown
        assert "1,500,000,000" in shown
        assert "b" * 300 in shown, "what goes into a pipe is not cut"
        assert str(UUID(int=1)) not in shown

    def test_nothing_reaches_the_terminal_but_text(self, capsys: pytest.CaptureFixture[str]) -> None:
        evil = "\x1b]0;title\x07 \x9b31m\r\x7f a\tb\nc"
        output.emit([{evil: evil}])
        output.emit_record({evil: evil})
        shown = capsys.readouterr().out + "".join(KeraiError(evil, detail=evil, hint=evil).lines())
        assert not set(map(chr, (*range(9), *range(11, 32), *range(0x7F, 0xA0)))) & set(shown)
        assert shown.count(r"\x1b]0;title\x07 \x9b31m\x0d\x7f a") == 7

    def test_no_rows(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.emit([], title="Agents")
        assert capsys.readouterr().out == "no agents\n"
        output.emit([], json=True)
        assert json.loads(capsys.readouterr().out) == []

    def test_record(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.emit_record({"size": 8_600_000, "ok": True}, formats={"size": output.format_bytes})
        shown = capsys.readouterr().out
        assert "8.2 MiB" in shown
        assert "yes" in shown
