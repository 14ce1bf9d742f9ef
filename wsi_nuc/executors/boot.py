"""Starts a Python process that talks to the process that started it."""

from __future__ import annotations

import sys

CODE = (
    "import sys; from multiprocessing.connection import Connection; channel = Connection(int(sys.argv[1]));"
    "sys.path[:] = channel.recv(); from {module} import main; main(channel)"
)


def boot(module: str, channel: int) -> list[str]:
    """The command of the process.

    It receives `sys.path` through the channel and calls the module's `main` with it.
    """
    return [sys.executable, "-P", "-c", CODE.format(module=module), str(channel)]
