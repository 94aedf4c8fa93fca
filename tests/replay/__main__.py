"""``make replay REPO=…``: the merges of git repositories made again by kerai, and how well it does."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from rich.console import Console
from tests.replay.instance import Clock
from tests.replay.report import cases, figures, shown, tables
from tests.replay.repository import Found, Repository
from tests.replay.run import Replayed, Worker, own_server, run

from kerai_client.server.private import PrivateServer


def main() -> int:
    """Replay, and print tables and cases; with ``--only`` one merge in full."""
    parser = argparse.ArgumentParser(prog="python -m tests.replay", description=__doc__)
    parser.add_argument("repositories", nargs="+", type=Path, metavar="REPOSITORY")
    parser.add_argument("--limit", type=int, help="the newest so many merges with a common file")
    parser.add_argument("--seconds", type=float, help="begin no merge of a repository after so long")
    parser.add_argument("--only", metavar="COMMIT", help="show this merge, as diffs")
    parser.add_argument(
        "--all-files", action="store_true", help="replay and show files that one side alone has changed, too"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to a file as well")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with a database of its own")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server is stopped on the way out
    if chosen.only:
        with own_server() as server:
            return show(chosen.repositories[0], server, chosen.only, everything=chosen.all_files)

    def tell(merge: Replayed) -> None:
        print("." if merge.refused is None else "!", end="", file=sys.stderr, flush=True)

    runs = []
    with own_server() as server:
        for place in chosen.repositories:
            limits = {
                "jobs": chosen.jobs,
                "limit": chosen.limit,
                "seconds": chosen.seconds,
                "whole": chosen.all_files,
            }
            runs.append(run(place, server, **limits, tell=tell))
            print(file=sys.stderr)
    for done in runs:
        print(f"\n{done.repository}")
        for name, value in figures(done).items():
            if name != "repository":
                print(f"  {name}: {round(value, 3) if isinstance(value, float) else value}")
        print(*cases(done), sep="\n")
    console = Console(width=None if sys.stdout.isatty() else 200)
    for table in tables(runs):
        console.print(table)
    if chosen.json:
        found = [
            {"figures": figures(done), "merges": [merge.as_json() for merge in done.merges]} for done in runs
        ]
        chosen.json.write_text(json.dumps(found, indent=1))
    return 0


def show(place: Path, server: PrivateServer, commit: str, *, everything: bool) -> int:
    """Print one merge; the exit code is 1 when there is no such merge to replay."""
    found = Found()
    with Repository(place) as git:
        merge = next(git.merges(found, commit), None)
    if merge is None:
        print(f"{commit} has no two parents with one base and a common file: {found}", file=sys.stderr)
        return 1
    worker = Worker(place, server)
    try:
        case, outcomes = worker.read(merge, Clock(), whole=everything)
    finally:
        worker.close()
    print(f"{merge.commit}: base {merge.base}, ours {merge.ours}, theirs {merge.theirs}")
    print(*shown(case, outcomes, everything=everything), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
