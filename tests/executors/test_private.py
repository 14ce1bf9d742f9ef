"""Nobody else takes part in a run: no port answers without its certificate, which no file gives away."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Security
from distributed.comm import connect

from tests.executors import tasks
from wsi_nuc.executors import private
from wsi_nuc.executors.dask import ClusterOptions, DaskExecutor


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of all temporary files, also of those of worker processes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    private.scratch_folder.cache_clear()
    yield tmp_path
    private.scratch_folder.cache_clear()


def listening() -> set[int]:
    """Ports on which this process and its children listen."""
    me = psutil.Process()
    connections = [connection for process in (me, *me.children()) for connection in process.net_connections("tcp")]
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}


def answer(address: str, security: Security | None) -> Any:
    """What a server of Dask says to somebody with these certificates."""

    async def ask() -> Any:
        arguments = security.get_connection_args("client") if security else {}
        comm = await connect(address, timeout=2, **arguments)
        try:
            await comm.write({"op": "identity", "reply": True})
            return await asyncio.wait_for(comm.read(), 2)
        finally:
            comm.abort()

    return asyncio.run(ask())


def test_no_port_answers_without_the_certificate_of_the_run(temporary: Path) -> None:
    before = listening()
    executor = DaskExecutor(ClusterOptions(workers=1), tasks.make_ready)
    try:
        assert [outcome.result for outcome in executor.run(tasks.square, [5])] == [25]
        ports = listening() - before
        # The scheduler's and the worker's, and no status server.
        assert len(ports) == 2
        ours = private.security_with(private.own_certificate())
        theirs = private.security_with(private.own_certificate.__wrapped__())
        for port in ports:
            assert answer(f"tls://127.0.0.1:{port}", ours)["id"]
            for address, security in (("tls", theirs), ("tcp", None)):
                with pytest.raises((OSError, TimeoutError)):
                    answer(f"{address}://127.0.0.1:{port}", security)
    finally:
        executor.close()
    kept = [path for path in temporary.rglob("*") if path.is_file()]
    assert not any("PRIVATE KEY" in path.read_text(errors="replace") for path in kept)


def test_workers_put_their_files_where_nobody_else_can_write(temporary: Path) -> None:
    folder = Path(private.scratch_folder())
    assert folder.parent == temporary
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    private.scratch_folder.cache_clear()
    assert private.scratch_folder() == str(folder)


@pytest.mark.parametrize("trap", ["open to all", "a link"])
def test_a_folder_that_somebody_else_prepared_is_not_used(trap: str, temporary: Path) -> None:
    name = temporary / f"wsi-nuc-{os.getuid()}"
    if trap == "a link":
        elsewhere = temporary / "elsewhere"
        elsewhere.mkdir(mode=0o700)
        name.symlink_to(elsewhere)
    else:
        name.mkdir()
        name.chmod(0o777)
    other = Path(private.scratch_folder())
    assert other != name
    assert stat.S_IMODE(other.stat().st_mode) == 0o700
