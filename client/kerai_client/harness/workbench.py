"""Where an agent runs its solver and the tests: always on a fresh working tree of exactly the given files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kerai_client.errors import path_in_errors
from kerai_client.harness.bookkeeping import Limits, Spent
from kerai_client.harness.coordination import Assignment
from kerai_client.harness.process import Finished, clean_environment, run
from kerai_client.harness.workspace import Workspace, remove
from kerai_client.source import Snapshot, write_directory

WATCH_SECONDS = 1.0  # how often the watch is asked while something runs


@dataclass
class Workbench:
    """The workspace of one agent, and what it runs there.

    :param agent: the agent's name.
    :param watch: returns why the running command is to be ended, None while it may go on.
    """

    workspace: Workspace
    assignment: Assignment
    limits: Limits
    agent: str
    watch: Callable[[], str | None]
    _spent: Spent = field(default_factory=Spent)

    def test(self, snapshot: Snapshot) -> Finished:
        """Run the success command."""
        self._write(snapshot)
        return self._run(self.assignment.success_command, self._environment(), self.limits.test_seconds)

    def solve(self, solver: str, snapshot: Snapshot, number: int, scope: str, output: str) -> Finished:
        """Run the solver, which changes the working tree.

        :param number: of the attempt.
        :param scope: the path of what may be changed.
        :param output: what the tests say of these files.
        """
        self._write(snapshot)
        self._write_task(scope, output)
        environment = self._environment() | {
            "KERAI_TASK": str(self.assignment.task),
            "KERAI_SWARM": str(self.assignment.swarm),
            "KERAI_AGENT": self.agent,
            "KERAI_ATTEMPT": str(number),
            "KERAI_SCOPE": scope,
            "KERAI_SUCCESS_COMMAND": self.assignment.success_command,
            "KERAI_TASK_FILE": str(self.workspace.task_file),
            "KERAI_TEST_OUTPUT": str(self.workspace.test_output),
        }
        return self._run(solver, environment, self.limits.attempt_seconds)

    def cost(self) -> int:
        """Return the cost of all work since the last call, in nKoi."""
        cost = round(self._spent.seconds * self.limits.cost_per_second)
        self._spent = Spent()
        return cost

    def _run(self, command: str, environment: dict[str, str], seconds: float) -> Finished:
        finished = run(
            command,
            self.workspace.tree,
            environment=environment,
            seconds=seconds,
            watch=self.watch,
            watch_seconds=WATCH_SECONDS,
        )
        self._spent.add(finished)
        return finished

    def _write(self, snapshot: Snapshot) -> None:
        self.workspace.clear()
        write_directory(snapshot, self.workspace.tree)

    def _write_task(self, scope: str, output: str) -> None:
        for file in (self.workspace.test_output, self.workspace.task_file):
            remove(file)  # a solver may have put anything in its place
        with path_in_errors(self.workspace.path):
            self.workspace.test_output.write_text(output, "utf-8")
            self.workspace.task_file.write_text(
                f"{self.assignment.description}\n\n"
                f"Done when this command exits with 0: {self.assignment.success_command}\n"
                f"Change only what lies in: {scope}\n"
                f"What the command says now: {self.workspace.test_output}\n",
                "utf-8",
            )

    def _environment(self) -> dict[str, str]:
        # A killed solver leaves its temporary files: here they go with the workspace.
        return clean_environment() | {"TMPDIR": str(self.workspace.temporary)}
