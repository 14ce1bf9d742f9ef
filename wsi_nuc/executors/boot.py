"""How a Python of ours is started that talks with the process that started it."""

from __future__ import annotations

import sys

CODE = (
    "import sys; from multiprocessing.connection import Connection; channel = Connection(int(sys.argv[1]));"
    "sys.path[:] = channel.recv(); from {module} import main; main(channel)"
)


def boot(module: str, channel: int) -> list[str]:
    """Its command: it receives `sys.path` through the channel, then calls `main` of the module with that."""
    return [sys.executable, "-P", "-c", CODE.format(module=module), str(channel)]
