"""The command ``kerai``, also as ``python -m kerai_client``.

Ctrl-C may come at any time. While modules are imported, and when the work is done, there is nothing to clean
up. An exception would be shown as a traceback, so Ctrl-C just ends the process then. In between, see
:func:`kerai_client.cli.main.main`.
"""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130  # what a shell gives for a command that Ctrl-C has ended


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def run() -> int:
    """Run the command line and return its exit code."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # a job in the background
    if not ignored:
        signal.signal(signal.SIGINT, _end)
    from kerai_client.cli.main import main  # noqa: PLC0415 -- what takes time comes last

    code = main()
    if not ignored:
        signal.signal(signal.SIGINT, _end)
    return code


if __name__ == "__main__":
    sys.exit(run())
