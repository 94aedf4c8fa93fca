"""``make chaos``: the mix for as long as is wanted, and whether it has found anything."""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.chaos.run import run


def main() -> int:
    """Run the mix, print its seed, figures and findings; the exit code is 1 when there are any."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--no-kills", action="store_true", help="never kill the server's processes")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}, {chosen.seconds:g} seconds", flush=True)
    begin = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - begin:6.0f} s  {line}", flush=True)

    mix = run(chosen.seconds, chosen.seed, kills=not chosen.no_kills, tell=tell)
    for finding in mix.findings:
        print(f"FOUND: {finding}", flush=True)
    print(f"{len(mix.findings)} findings" if mix.findings else "nothing found", flush=True)
    return 1 if mix.findings else 0


if __name__ == "__main__":
    sys.exit(main())
