"""The command ``kerai``: which commands there are, their common options, and how failures are told.

A command's module is imported when the command runs, so that ``kerai --help`` and shell completion
do not wait for drivers and parsers. A command group gets the :class:`Client` by
``@click.pass_obj`` and raises :class:`KeraiError` (or lets psycopg's errors through) to fail.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from kerai_client.errors import KeraiError, printable

if TYPE_CHECKING:
    from kerai_client.config import Config
    from kerai_client.db.connection import Connection, Database

AS_JSON = "kerai.json"  # in the context's meta: whether failures are told as JSON
INTERRUPTED = 130  # what a shell gives for a command that Ctrl-C has ended

# heading -> command -> (where it is, its line in `kerai --help`)
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Private server": {
        "up": ("kerai_client.cli.server:up", "Start the private server, made at the first time."),
        "down": ("kerai_client.cli.server:down", "Stop the private server."),
        "status": ("kerai_client.cli.server:status", "Show the server and what is in the database."),
    },
    "Source": {
        "import": ("kerai_client.cli.source:import_", "Bring a directory into the database."),
        "checkout": ("kerai_client.cli.source:checkout", "Write the database's files into a directory."),
        "log": ("kerai_client.cli.history:log", "List changesets, the latest first."),
        "diff": ("kerai_client.cli.history:diff", "Show what differs between two states."),
        "revert": ("kerai_client.cli.history:revert", "Undo a changeset, by a new one."),
    },
    "Swarm": {
        "agent": ("kerai_client.cli.agent:agent", "Register agents, list them, and let them work."),
        "task": ("kerai_client.cli.task:task", "Create, list and show tasks."),
        "swarm": ("kerai_client.cli.swarm:swarm", "Launch swarms and see what they do."),
        "solve": ("kerai_client.cli.solve:solve", "Solvers that an agent can run."),
    },
    "Other instances": {
        "peer": ("kerai_client.cli.instances:peer", "Add, list and remove other instances."),
        "sync": ("kerai_client.cli.instances:sync", "Push to a peer and pull from it."),
        "pull": ("kerai_client.cli.instances:pull", "Bring over what a peer has."),
        "push": ("kerai_client.cli.instances:push", "Bring to a peer what is here."),
        "ops": ("kerai_client.cli.instances:ops", "Write the log to a file, and read one."),
    },
    "Upkeep": {
        "verify": (
            "kerai_client.cli.integrity:verify",
            "Check hashes, signatures, chains and registers.",
        ),
        "rebuild": ("kerai_client.cli.integrity:rebuild", "Make log and tree anew from the changesets."),
        "compact": ("kerai_client.cli.integrity:compact", "Drop history that nobody can need any more."),
        "maintain": ("kerai_client.cli.integrity:maintain", "Remove what has expired: once a day."),
    },
    "Understanding": {
        "perspective": (
            "kerai_client.cli.understanding:perspective",
            "Weigh nodes, and see how others weigh them.",
        ),
        "associations": (
            "kerai_client.cli.understanding:associations",
            "Weigh relations between nodes.",
        ),
        "consensus": ("kerai_client.cli.understanding:consensus", "Show what agents agree on."),
    },
    "More": {
        "sql": ("kerai_client.cli.sql:sql", "Run SQL."),
        "demo": ("kerai_client.cli.demo:demo", "See a swarm repair the example package."),
        "completion": (
            "kerai_client.cli.main:completion",
            "Print the script that completes kerai in a shell.",
        ),
    },
}


@dataclass
class Client:
    """What the common options say, and the ways to the database that follow from them.

    :param dsn: the value of ``--dsn``.
    :param directory: the value of ``--dir``.
    :param json: True when ``--json`` is given.
    """

    dsn: str | None = None
    directory: str | None = None
    json: bool = False

    @property
    def config(self) -> Config:
        """The configuration, read from environment and files."""
        from kerai_client.config import load_config  # noqa: PLC0415 -- see the module's docstring

        return load_config(self.dsn, self.directory)

    def connect(self) -> Connection:
        """Return a new connection (autocommit, rows are dicts) to the configured database."""
        from kerai_client.db.connection import connect  # noqa: PLC0415 -- as above

        return connect(self.config.database())

    def database(self) -> Database:
        """Return the configured database, for work that has to go on when the connection is lost."""
        from kerai_client.db.connection import Database  # noqa: PLC0415 -- as above

        def show_waiting(line: str) -> None:
            click.echo(printable(line), err=True)

        return Database(self.config.database(), waiting=None if self.json else show_waiting)


class Failure(click.ClickException):
    """A failure as Click knows it: lines or JSON on stderr, exit code 1."""

    def __init__(self, error: KeraiError, *, as_json: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.as_json = as_json

    def show(self, file: Any = None) -> None:
        lines = [self._json()] if self.as_json else self.error.lines()
        for line in lines:
            click.echo(line, file=file or sys.stderr)

    def _json(self) -> str:
        from kerai_client.cli.output import to_json  # noqa: PLC0415 -- see the module's docstring

        told = {name: getattr(self.error, name) for name in ("code", "message", "detail", "hint")}
        return to_json({"error": told}, indent=None)


class WrongUse(Failure):
    """The same for a wrong option or argument, with Click's exit code for that."""

    exit_code = click.UsageError.exit_code


def explain(error: BaseException) -> KeraiError | None:
    """Return an exception in words for the user, None when it is a bug that needs its traceback."""
    if isinstance(error, KeraiError):
        return error
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return KeraiError(error.strerror or str(error), detail=" -> ".join(names) or None)
    if isinstance(error, UnicodeEncodeError | UnicodeDecodeError):
        # An argument or standard input with bytes that are no text; Python keeps them as surrogates.
        encoding = error.encoding.replace("utf-8", "UTF-8")
        around = error.object[max(error.start - 20, 0) : error.end + 20]
        return KeraiError(f"a text is not valid {encoding}", detail=ascii(around))
    psycopg = sys.modules.get("psycopg")
    if psycopg is None or not isinstance(error, psycopg.Error):
        return None
    diagnosis = error.diag
    if diagnosis.message_primary is not None:
        return KeraiError(
            diagnosis.message_primary,
            code=error.sqlstate,
            detail=diagnosis.message_detail,
            hint=diagnosis.message_hint,
        )
    message, *more = str(error).strip().splitlines() or [type(error).__name__]
    return KeraiError(message, detail=" ".join(line.strip() for line in more) or None)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value:
        setattr(context.ensure_object(Client), str(parameter.name), value)


def common_options() -> list[click.Option]:
    """Return the options that every command takes, before or after its name."""
    return [
        click.Option(
            ["--dsn", "dsn"],
            metavar="DSN",
            help="The database, as a libpq connection string.",
            expose_value=False,
            callback=_remember,
        ),
        click.Option(
            ["--dir", "directory"],
            metavar="DIR",
            help="The private server's directory (default: KERAI_DIR or .kerai).",
            expose_value=False,
            callback=_remember,
        ),
        click.Option(
            ["--json", "json"],
            is_flag=True,
            help="Print JSON.",
            expose_value=False,
            callback=_remember,
        ),
    ]


def add_common_options(command: click.Command) -> None:
    """Give a command and its subcommands the common options, but for those that it has itself."""
    taken = {name for parameter in command.params for name in parameter.opts}
    command.params.extend(option for option in common_options() if not taken.intersection(option.opts))
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            add_common_options(subcommand)


class Kerai(click.Group):
    """The group of all commands: imports one when it is called, and turns failures into words."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Also for the mistakes that are found before the option --json is.
        ctx.meta[AS_JSON] = "--json" in args
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _in_json(error, ctx) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for section in COMMANDS.values():
            if cmd_name in section and cmd_name not in self.commands:
                module, _, attribute = section[cmd_name][0].partition(":")
                command: click.Command = getattr(import_module(module), attribute)
                add_common_options(command)
                self.add_command(command, cmd_name)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, section in COMMANDS.items():
            with formatter.section(heading):
                formatter.write_dl([(name, line) for name, (_, line) in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [
            CompletionItem(name, help=line)
            for section in COMMANDS.values()
            for name, (_, line) in section.items()
            if name.startswith(incomplete)
        ]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _interrupts_as_exceptions():
                result = super().invoke(ctx)
                sys.stdout.flush()
                return result
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            _give_up_output()  # the reader (head, less) has seen enough
            ctx.exit(1)
        except (click.ClickException, click.Abort) as error:
            raise _in_json(error, ctx) from error
        except Exception as error:
            explanation = explain(error)
            if isinstance(error, OSError):
                _give_up_output()
            if explanation is None:
                raise
            raise Failure(explanation, as_json=ctx.meta[AS_JSON]) from error


@contextmanager
def _interrupts_as_exceptions() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, so that a command cleans up; see :mod:`kerai_client.__main__`."""
    try:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
    except ValueError:  # only the main thread hears signals
        yield
        return
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, before)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _in_json(error: click.ClickException | click.Abort, ctx: click.Context) -> Exception:
    """Return one of Click's own failures, such as a wrong option, as JSON when that is wanted."""
    if not ctx.meta[AS_JSON] or isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error
    if isinstance(error, click.Abort):
        return Failure(KeraiError("aborted"), as_json=True)
    if not isinstance(error, click.UsageError):
        return Failure(KeraiError(error.format_message()), as_json=True)
    hint = None if error.ctx is None else f"{error.ctx.command_path} --help"
    return WrongUse(KeraiError(error.format_message(), hint=hint), as_json=True)


def _give_up_output() -> None:
    """Drop what cannot be written (a closed pipe, a full disk); Python would complain of it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed_streams() -> None:
    """Put the null device where the shell has closed a standard stream (``>&-``).

    Otherwise there is no ``sys.stdout``, and the next file or socket that is opened takes its number.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            setattr(sys, name, open(descriptor, "r" if name == "stdin" else "w"))  # noqa: PTH123, SIM115 -- a number


def _print_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from kerai import __version__  # noqa: PLC0415 -- as above

        click.echo(f"kerai {__version__}")
        context.exit()


@click.group(cls=Kerai, params=common_options(), context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(context: click.Context) -> None:
    """The database that swarms of coding agents converge in.

    \b
    Example:
      kerai up
      kerai import my-package
      kerai swarm launch --task "make the tests pass" --agents 8
    """
    context.ensure_object(Client)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes kerai's commands in a shell.

    \b
    Example, in ~/.bashrc:
      eval "$(kerai completion bash)"
    """
    completer = get_completion_class(shell)
    if completer is None:
        raise KeraiError(f"there is no completion for {shell}")
    click.echo(completer(cli, {}, "kerai", "_KERAI_COMPLETE").source())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    _open_closed_streams()
    try:
        cli.main(args=arguments, prog_name="kerai")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:  # from `--help` and `--version`, which print before a command is invoked
        _give_up_output()
        click.echo(f"error: {error.strerror}", err=True)
        return 1
    return 0
