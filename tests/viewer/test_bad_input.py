"""What cannot be shown is named with its cause and remedy; what can be shown without its slide is."""

from __future__ import annotations

import http.server
import json
import os
import pty
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from benchmarks.viewer import viewing
from tests.e2e.command import start, wsi_nuc
from tests.viewer.asking import Page
from tests.viewer.conftest import EDGE_PX, Results
from wsi_nuc.config import RunConfig
from wsi_nuc.errors import STORAGE, USAGE, WsiNucError
from wsi_nuc.features.running import run_slides
from wsi_nuc.store.manifest import digest
from wsi_nuc.store.packing import convert
from wsi_nuc.synth import SynthSpec, write_slide
from wsi_nuc.viewer.gallery import Gallery

FORMAT_2 = Path(__file__).parents[1] / "store" / "format-2.zip"


@pytest.fixture
def copy(results: Results, tmp_path: Path) -> Path:
    return Path(shutil.copytree(results.store, tmp_path / results.store.name))


def refusal(path: Path) -> tuple[int, str]:
    """Exit code and message."""
    with pytest.raises(WsiNucError) as refused:
        Gallery([path])
    return refused.value.exit_code, str(refused.value)


def test_an_unfinished_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.svs.zarr").mkdir()
    code, said = refusal(tmp_path / "x.svs.zarr")
    assert code == USAGE
    assert "finished" in said


def test_a_path_without_anything_is_refused(tmp_path: Path) -> None:
    code, said = refusal(tmp_path / "nothing.zarr")
    assert code == USAGE
    assert "nothing at this path" in said


def test_a_damaged_result_is_refused_and_the_file_named(copy: Path) -> None:
    (copy / "shapes/nuclei/shapes.parquet").write_bytes(b"PAR1")
    code, said = refusal(copy)
    assert code == STORAGE
    assert "shapes/nuclei/shapes.parquet has 4 bytes" in said


def test_damage_that_keeps_the_size_is_shown_on_the_page(copy: Path, results: Results) -> None:
    broken = copy / "tables/nuclei_table/X/zarr.json"
    data = bytearray(broken.read_bytes())
    data[-2] ^= 1
    broken.write_bytes(bytes(data))
    with viewing(copy, "--slide", results.slide) as server:
        page = Page(server.address)
        path = page.of("")
        for _ in range(100):
            problems = page.get(f"{path}/status").json["problems"]
            if problems:
                break
            threading.Event().wait(0.2)
    assert problems == ["tables/nuclei_table/X/zarr.json has other content than was published"]


def test_a_table_that_cannot_be_read_is_said_to_be_so(copy: Path, results: Results) -> None:
    nuclei = copy / "shapes/nuclei/shapes.parquet"
    data = bytearray(nuclei.read_bytes())
    data[100 : len(data) // 2] = bytes(len(data) // 2 - 100)
    nuclei.write_bytes(bytes(data))
    with viewing(copy, "--slide", results.slide) as server:
        page = Page(server.address)
        path = page.of("")
        assert page.get(path).status == 200
        for part in ("/density", "/cell/0/0", "/nucleus/1"):
            answer = page.get(f"{path}{part}")
            assert (answer.status, b"verify" in answer.body) == (503, True)


def test_a_newer_result_is_refused_with_its_format(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["format"] = 99
    manifest["digest"] = digest(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    code, said = refusal(copy)
    assert code == STORAGE
    assert "has format 99, which this version of wsi-nuc does not know" in said


def test_a_port_in_use_is_named(results: Results) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = wsi_nuc("view", "--no-browser", results.store, "--port", taken.getsockname()[1], timeout=60)
    assert done.returncode == USAGE
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_browser_the_address_is_printed(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("DISPLAY", raising=False)
    process = start("view", results.store, "--slide", results.slide)
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert lines[0].startswith("http://127.0.0.1:")
    assert "open the address yourself" in lines[2]


def state_of(*arguments: object) -> tuple[str, str, int]:
    """The state of the slide, why, and the status of a tile."""
    with viewing(*arguments) as server:
        page = Page(server.address)
        path = page.of("")
        status = page.get(f"{path}/status").json
        return status["state"], status["why"], page.get(f"{path}/tile/0/0/0").status


def test_without_its_slide_a_result_is_shown_on_its_thumbnail(copy: Path) -> None:
    state, why, tile = state_of(copy)
    assert (state, tile) == ("missing", 200)
    assert "tissue.svs is not where it was: give its path with --slide" in why


def test_a_slide_that_has_moved_is_found_in_a_folder(copy: Path, results: Results) -> None:
    assert state_of(copy, "--slides", results.slide.parent)[0] == "same"


def test_in_a_terminal_the_new_path_of_a_slide_is_asked_for(copy: Path, results: Results) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "wsi_nuc", "view", "--no-browser", str(copy)]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        os.write(ours, b"/nowhere.svs\n" + str(results.slide).encode() + b"\n")
        assert process.stdout is not None
        said = b""
        while b"http://" not in said:
            said += process.stdout.read1(4096) or pytest.fail(f"it ended: {said!r}")
        page = Page(next(word for word in said.decode().split() if word.startswith("http://")))
        assert page.get(f"{page.of('')}/status").json["state"] == "same"
    finally:
        process.terminate()
        process.communicate(timeout=20)
        os.close(ours)
        os.close(theirs)
    assert said.count(b"path of the slide now") == 2


def test_another_slide_is_not_shown(copy: Path, results: Results, tmp_path: Path) -> None:
    write_slide(tmp_path / "size.svs", SynthSpec(size=512, mpp=0.25, seed=3))
    state, why, tile = state_of(copy, "--slide", tmp_path / "size.svs")
    assert (state, tile) == ("other", 200)
    assert f"it has 512 x 512 px, not {EDGE_PX} x {EDGE_PX}" in why
    (tmp_path / "changed.svs").write_bytes(results.slide.read_bytes() + b"\0\0")
    state, why, _ = state_of(copy, "--slide", tmp_path / "changed.svs")
    assert state == "other"
    assert "other content than the slide that the nuclei were found on" in why


def test_a_folder_shows_what_is_in_it_and_names_what_is_not_finished(copy: Path) -> None:
    (copy.parent / "half.zarr").mkdir()
    with viewing(copy.parent) as server:
        rows = {row["name"]: row for row in Page(server.address).all()}
    assert rows["half.zarr"]["state"] == "is not finished"
    assert rows[copy.name]["nuclei"] > 0


def test_a_packed_result_and_one_without_nuclei_are_shown(copy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    convert(Path(shutil.move(copy, folder / "packed.zarr")), True)
    with zipfile.ZipFile(FORMAT_2) as archive:
        archive.extractall(folder / "old.zarr")
    write_slide(tmp_path / "blank.svs", SynthSpec(size=512, mpp=0.25, blank=True))
    config = RunConfig(model="classical", out=folder, scheduler="serial")
    (blank,) = run_slides(config, [str(tmp_path / "blank.svs")], lambda event: None)
    assert blank.status == "empty"
    with viewing(folder) as server:
        page = Page(server.address)
        assert [row["state"] for row in page.all() if not row["id"]] == ["does not say how large its slide is"]
        for name in ("packed", "blank"):
            path = page.of(name)
            meta = page.get(path).json
            stats = page.get(f"{path}/stats?box=0,0,9999,9999&histograms=score").json
            assert sum(stats["view"]) == meta["nuclei"]
            assert (meta["nuclei"] == 0) == (name == "blank")
            for part in ("/density", "/cell/0/0", "/points/0/0", "/layers", "/tile/0/0/0", "/status"):
                assert page.get(f"{path}{part}").status == 200


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves parts of files, as a store of objects does."""

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        asked = self.headers.get("Range")
        first, last = 0, len(data) - 1
        if asked:
            low, _, high = asked.removeprefix("bytes=").partition("-")
            first, last = int(low), min(last, int(high or last))
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_slide_at_an_address_is_shown_and_said_to_be_unchecked(copy: Path, results: Results) -> None:
    with served(results.slide.parent) as address:
        state, why, tile = state_of(copy, "--slide", f"{address}/{results.slide.name}?secret=1")
    assert (state, tile) == ("unchecked", 200)
    assert "secret" not in why
