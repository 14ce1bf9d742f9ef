"""A scheduler that somebody else runs: how to connect to it safely, and whether it still answers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distributed import Security

from wsi_nuc.errors import UsageError
from wsi_nuc.executors.private import is_loopback
from wsi_nuc.executors.watch import Seen, scheduler_lost

STEP_S = 0.5
ANSWER_S = 20
Files = tuple[str | None, str | None, str | None]


@dataclass(frozen=True)
class GivenCrew:
    """A running scheduler. Whoever started its workers also replaces them."""

    contact: str
    """Its address."""
    security: Security | None
    patience_s: float
    """How long a run may be without any worker."""
    wanted: None = None
    """Nobody here decides how many workers there are."""

    def tend(self, client: Any) -> Seen:
        """Ask how many workers there are.

        A scheduler that is stopped keeps its connections but does not answer.
        """
        asked = asyncio.run_coroutine_threadsafe(client.scheduler.ncores(), client.loop.asyncio_loop)
        # In steps, so that time in which this process itself was stopped does not count.
        for _ in range(int(ANSWER_S / STEP_S)):
            try:
                return Seen(len(asked.result(STEP_S)))
            except TimeoutError:
                continue
            except OSError:
                break
        asked.cancel()
        raise scheduler_lost(self.contact)

    def close(self) -> None:
        pass


def security_for(address: str, files: Files) -> Security | None:
    """TLS with the PEM files of CA, certificate and key; plain TCP is accepted on this machine only."""
    scheme, host = urlsplit(address).scheme, urlsplit(address).hostname or ""
    ca, certificate, key = files
    if scheme == "tls":
        for name, path in zip(("tls_ca", "tls_cert", "tls_key"), files, strict=True):
            if path is None or not Path(path).is_file():
                raise UsageError(
                    f"dask.{name}", f"{path or 'nothing'} is not a file", "TLS needs all three PEM files"
                )
        return Security(tls_ca_file=ca, tls_client_cert=certificate, tls_client_key=key, require_encryption=True)
    if scheme == "tcp" and is_loopback(host):
        return None
    raise UsageError(
        f"--scheduler {address}",
        "it is neither serial, local or slurm nor an address: tls://HOST:PORT, or tcp:// on this machine",
        "correct it; a scheduler on another machine needs TLS: set dask.tls_ca, dask.tls_cert and dask.tls_key",
    )
