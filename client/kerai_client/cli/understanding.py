"""``kerai perspective``, ``kerai associations`` and ``kerai consensus``: what agents think of the code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from kerai_client.cli.main import Client
from kerai_client.cli.options import COUNT, WEIGHT
from kerai_client.cli.output import emit, emit_record

Command = TypeVar("Command", bound=Callable[..., Any])
# A weight below zero begins with a hyphen, as an option does.
NEGATIVE_NUMBERS = {"ignore_unknown_options": True}
AGREEMENT = ["count", "mean", "spread", "lowest", "highest"]


def format_weight(weight: float) -> str:
    """Return a weight, a mean or a spread with its sign and three decimals: ``-0.250``."""
    return f"{weight:.3f}"


WEIGHTS = dict.fromkeys(
    ["weight", "mean", "spread", "lowest", "highest", "weight_a", "weight_b", "difference"], format_weight
)

scope_option = click.option(
    "--scope", metavar="NODE", help="Only this node and what lies below it, by path or id."
)
context_option = click.option("--context", metavar="NODE", help="Only views that are held in this context.")
relation_option = click.option("--relation", help="Only this relation.")
least_option = click.option(
    "--min-count",
    type=COUNT,
    default=2,
    show_default=True,
    metavar="N",
    help="Only what so many authors weigh.",
)
of_option = click.option(
    "--agent", "author", metavar="AGENT", help="Only of this one: name, id or author id."
)


def signer_options(command: Command) -> Command:
    """Add the options of a command that signs an operation."""
    for option in (
        click.option("--message", default="", metavar="TEXT", help="Why, for the log."),
        click.option("--agent", metavar="NAME", help="The agent that signs (default: your user name)."),
    ):
        command = option(command)
    return command


@click.group()
def perspective() -> None:
    """Weigh nodes, and see how others weigh them.

    NODE is the path of a file or directory, the path of anything with a name as kerai.nodes has it
    (src.auth.token_py.validate_token), or an id.

    \b
    Example:
      kerai perspective set src/auth/token.py 0.8 --reason "all requests go through it"
      kerai perspective list --agent solver-1
    """


@perspective.command("set", context_settings=NEGATIVE_NUMBERS)
@click.argument("node", metavar="NODE")
@click.argument("weight", metavar="WEIGHT", type=WEIGHT)
@click.option("--reason", metavar="TEXT", help="Why you see it like this.")
@click.option(
    "--context", metavar="NODE", help="What it is seen from, for example a file or a task's directory."
)
@signer_options
@click.pass_obj
def set_perspective(
    client: Client,
    *,
    node: str,
    weight: float,
    reason: str | None,
    context: str | None,
    agent: str | None,
    message: str,
) -> None:
    """Give a node a WEIGHT from -1 to 1, in place of your earlier one.

    \b
    Example:
      kerai perspective set src/auth/token.py 0.8 --reason "all requests go through it"
      kerai perspective set src.auth.token_py.validate_token -0.5 --context src/auth
    """
    _change_view(
        client,
        agent,
        "perspective_set",
        {"node": node, "context": context},
        message=message,
        weight=weight,
        reasoning=reason,
    )


@perspective.command("delete")
@click.argument("node", metavar="NODE")
@click.option("--context", metavar="NODE", help="The context that it was weighed in.")
@signer_options
@click.pass_obj
def delete_perspective(
    client: Client, *, node: str, context: str | None, agent: str | None, message: str
) -> None:
    """Take your weight of a node back.

    \b
    Example:
      kerai perspective delete src/auth/token.py
    """
    _change_view(client, agent, "perspective_delete", {"node": node, "context": context}, message=message)


@perspective.command("list")
@of_option
@scope_option
@context_option
@click.pass_obj
def list_perspectives(client: Client, author: str | None, scope: str | None, context: str | None) -> None:
    """List weights of nodes, the strongest first.

    \b
    Example:
      kerai perspective list --agent solver-1 --scope src/auth
    """
    columns = ["agent", "path", "kind", "weight", "reasoning", "context_id"]
    _show(
        client,
        "list_perspectives",
        columns,
        "Perspectives",
        {"scope": scope, "context": context},
        author=author,
    )


@perspective.command("insights")
@of_option
@scope_option
@context_option
@click.pass_obj
def insights(client: Client, author: str | None, scope: str | None, context: str | None) -> None:
    """List what one agent alone sees: nodes and relations that nobody else weighs.

    \b
    Example:
      kerai perspective insights --agent solver-1
    """
    columns = ["agent", "path", "kind", "relation", "target_path", "weight", "reasoning"]
    places = {"scope": scope, "context": context}
    _show(client, "unique_insights", columns, "Unique insights", places, author=author)


@perspective.command("diff")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@scope_option
@context_option
@click.pass_obj
def diff(client: Client, a: str, b: str, scope: str | None, context: str | None) -> None:
    """Show where agents A and B see things differently: the largest differences, then what one alone weighs.

    \b
    Example:
      kerai perspective diff solver-1 solver-2 --scope src/auth
    """
    columns = ["path", "kind", "relation", "target_path", "weight_a", "weight_b", "difference"]
    _show(client, "view_diff", columns, f"{a} and {b}", {"scope": scope, "context": context}, a=a, b=b)


@click.command()
@scope_option
@context_option
@least_option
@click.pass_obj
def consensus(client: Client, scope: str | None, context: str | None, min_count: int) -> None:
    """Show what agents together think of nodes, the strongest agreement first.

    spread is the standard deviation of the weights: 0 when all say the same, at most 1.

    \b
    Example:
      kerai consensus --scope src/auth --min-count 3
    """
    columns = ["path", "kind", *AGREEMENT, "context_id"]
    _show(
        client, "consensus", columns, "Consensus", {"scope": scope, "context": context}, min_count=min_count
    )


@click.group()
def associations() -> None:
    """Weigh relations between nodes, and see how others weigh them.

    \b
    Example:
      kerai associations set src/auth/token.py tests/test_token.py tested-by 1
      kerai associations consensus --scope src/auth
    """


@associations.command("set", context_settings=NEGATIVE_NUMBERS)
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@click.argument("relation", metavar="RELATION")
@click.argument("weight", metavar="WEIGHT", type=WEIGHT)
@click.option("--reason", metavar="TEXT", help="Why you see it like this.")
@signer_options
@click.pass_obj
def set_association(
    client: Client,
    *,
    source: str,
    target: str,
    relation: str,
    weight: float,
    reason: str | None,
    agent: str | None,
    message: str,
) -> None:
    """Give a RELATION from SOURCE to TARGET a WEIGHT from -1 to 1, in place of your earlier one.

    \b
    Example:
      kerai associations set src/auth/token.py tests/test_token.py tested-by 1
    """
    _change_view(
        client,
        agent,
        "association_set",
        {"source": source, "target": target},
        message=message,
        relation=relation,
        weight=weight,
        reasoning=reason,
    )


@associations.command("delete")
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@click.argument("relation", metavar="RELATION")
@signer_options
@click.pass_obj
def delete_association(
    client: Client, *, source: str, target: str, relation: str, agent: str | None, message: str
) -> None:
    """Take your weight of a relation back.

    \b
    Example:
      kerai associations delete src/auth/token.py tests/test_token.py tested-by
    """
    places: dict[str, str | None] = {"source": source, "target": target}
    _change_view(client, agent, "association_delete", places, message=message, relation=relation)


@associations.command("list")
@of_option
@scope_option
@relation_option
@click.pass_obj
def list_associations(client: Client, author: str | None, scope: str | None, relation: str | None) -> None:
    """List weights of relations that begin or end in the scope, the strongest first.

    \b
    Example:
      kerai associations list --agent solver-1
    """
    columns = ["agent", "source_path", "relation_name", "target_path", "weight", "reasoning"]
    _show(
        client,
        "list_associations",
        columns,
        "Associations",
        {"scope": scope},
        author=author,
        relation=relation,
    )


@associations.command("consensus")
@scope_option
@relation_option
@least_option
@click.pass_obj
def association_consensus(client: Client, scope: str | None, relation: str | None, min_count: int) -> None:
    """Show what agents together think of relations, the strongest agreement first.

    \b
    Example:
      kerai associations consensus --relation calls
    """
    columns = ["source_path", "relation_name", "target_path", *AGREEMENT]
    parameters = {"relation": relation, "min_count": min_count}
    _show(client, "association_consensus", columns, "Consensus", {"scope": scope}, **parameters)


def _change_view(
    client: Client, agent: str | None, kind: str, places: dict[str, str | None], **values: Any
) -> None:
    from kerai_client.agent.understanding import change_view  # noqa: PLC0415 -- slow to import
    from kerai_client.cli.source import human_session  # noqa: PLC0415
    from kerai_client.repo.lookup import nodes_at  # noqa: PLC0415

    message = values.pop("message") or kind.replace("_", " ")
    with client.database() as database:
        nodes = database.run(lambda connection: nodes_at(connection, places))
        with human_session(database, agent) as session:
            result = change_view(session, kind, nodes, message=message, **values)
    emit_record(result, json=client.json, formats=WEIGHTS)


def _show(
    client: Client,
    query: str,
    columns: list[str],
    title: str,
    places: dict[str, str | None],
    **parameters: Any,
) -> None:
    from kerai_client.db.connection import queries  # noqa: PLC0415 -- as above
    from kerai_client.repo.lookup import nodes_at  # noqa: PLC0415

    with client.connect() as connection:
        nodes = nodes_at(connection, places)
        found = connection.execute(queries()[query], {**nodes, **parameters}).fetchall()
    emit(found, columns, title, client.json, WEIGHTS)
