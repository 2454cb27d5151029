"""Weights come whole and right or not at all: every way in which a download goes wrong, on a server of our own."""

from __future__ import annotations

import hashlib
import http.server
import multiprocessing
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aresbench.core.errors import ModelError
from aresbench.models import download
from aresbench.models.download import fetch

WEIGHTS = bytes(range(256)) * 20_000  # 5 MB: several reads
SHA = hashlib.sha256(WEIGHTS).hexdigest()
PAGE = b"\n<!DOCTYPE html><html><body>Google Drive - Virus scan warning. Download anyway?</body></html>"


@dataclass
class Served:
    """What the server gives at a path."""

    body: bytes = WEIGHTS
    code: int = 200
    kind: str = "application/octet-stream"
    etag: str = '"one"'
    ranges: bool = True
    stops: list[int] = field(default_factory=list)  # bytes after which the first answers break off
    says: int | None = None  # another Content-Length
    asked: list[str] = field(default_factory=list)  # the ranges that were asked for


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Served], str]]:
    """Put something at a path of a loopback server; returns its address."""
    shelf: dict[str, Served] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            one = shelf.get(self.path)
            if one is None:
                self.send_error(404)
                return
            wanted = self.headers.get("Range", "")
            one.asked.append(wanted)
            begin = int(wanted[6:-1]) if wanted and one.ranges else 0
            if begin >= len(one.body) and begin:
                self.send_error(416)
                return
            body = one.body[begin:]
            self.send_response(206 if begin else one.code)
            self.send_header("Content-Type", one.kind)
            self.send_header("Content-Length", str(len(body) if one.says is None else one.says))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(one.body) - 1}/{len(one.body)}")
            if one.etag:
                self.send_header("ETag", one.etag)
            self.end_headers()
            self.wfile.write(body[: one.stops.pop(0)] if one.stops else body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)

    def put(path: str, what: Served) -> str:
        shelf[path] = what
        return f"http://127.0.0.1:{server.server_port}{path}"

    yield put
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("ARESBENCH_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("ARESBENCH_CACHE", str(tmp_path / "cache"))


Serve = Callable[[str, Served], str]


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.part"))


def test_a_file_is_fetched_once_and_its_progress_told(serve: Serve, tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    served = Served()
    url = serve("/w%20eights.safetensors", served)
    path = fetch([url], sha256=SHA, progress=lambda *now: told.append(now))
    assert path == tmp_path / "cache" / "weights" / "w eights.safetensors" and path.read_bytes() == WEIGHTS
    assert told[-1] == ("w eights.safetensors", len(WEIGHTS), len(WEIGHTS)) and len(told) > 3
    assert [have for _, have, _ in told] == sorted(have for _, have, _ in told)
    assert fetch([url], sha256=SHA[:8].upper()) == path and len(served.asked) == 1
    assert list(path.parent.iterdir()) == [path]


def test_files_of_one_name_and_no_hash_do_not_meet(serve: Serve) -> None:
    one, two = fetch([serve("/a/w.pt", Served())]), fetch([serve("/b/w.pt", Served(body=b"\x80other"))])
    assert one != two and one.read_bytes() == WEIGHTS and two.read_bytes() == b"\x80other"
    assert fetch([serve("/a/w.pt", Served())], name="mine.pt").name == "mine.pt"


def test_a_broken_connection_is_resumed_where_it_broke(serve: Serve) -> None:
    served = Served(stops=[2_000_000, 1_500_000])
    assert fetch([serve("/w.pt", served)]).read_bytes() == WEIGHTS
    assert served.asked == ["", "bytes=2000000-", "bytes=3500000-"]


def test_what_came_stays_for_the_next_try(serve: Serve, tmp_path: Path) -> None:
    served = Served(stops=[2_000_000, 0, 0])
    url = serve("/w.pt", served)
    with pytest.raises(ModelError, match=r"truncated: 2000000 of 5120000 bytes came"):
        fetch([url], folder=tmp_path)
    (part,) = parts(tmp_path)
    assert part.stat().st_size == 2_000_000 and ".5120000-" in part.name
    assert fetch([url], folder=tmp_path).read_bytes() == WEIGHTS
    assert served.asked[-1] == "bytes=2000000-" and not parts(tmp_path)


@pytest.mark.parametrize("sha", ["", SHA])
def test_a_file_that_changed_meanwhile_is_begun_anew(serve: Serve, tmp_path: Path, sha: str) -> None:
    old = Served(body=bytes(len(WEIGHTS)), stops=[2_000_000, 0, 0])
    with pytest.raises(ModelError):
        fetch([serve("/w.pt", old)], folder=tmp_path, sha256=sha)
    new = Served(etag='"two"')
    assert fetch([serve("/w.pt", new)], folder=tmp_path, sha256=sha).read_bytes() == WEIGHTS
    assert new.asked == ["bytes=2000000-", ""]


def test_another_mirror_continues_only_what_a_hash_proves_the_same(serve: Serve, tmp_path: Path) -> None:
    for sha, asked in (("", ["bytes=2000000-", ""]), (SHA, ["bytes=2000000-"])):
        broken, whole = Served(stops=[2_000_000, 0, 0]), Served(etag='"other"')
        urls = [serve(f"/a{sha}", broken), serve(f"/b{sha}", whole)]
        assert fetch(urls, folder=tmp_path, sha256=sha).read_bytes() == WEIGHTS
        assert whole.asked == asked


def test_a_server_without_ranges_or_tags_gives_the_whole_again(serve: Serve, tmp_path: Path) -> None:
    served = Served(stops=[2_000_000], ranges=False)
    assert fetch([serve("/w.pt", served)], folder=tmp_path).read_bytes() == WEIGHTS
    served = Served(stops=[2_000_000], etag="")
    assert fetch([serve("/v.pt", served)], folder=tmp_path).read_bytes() == WEIGHTS
    assert served.asked == ["", ""] and not parts(tmp_path)


def test_a_dead_mirror_is_passed_over(serve: Serve) -> None:
    good = serve("/good.pt", Served())
    nobody = "http://127.0.0.1:9/w.pt"
    assert fetch([good.replace("good", "gone"), nobody, good], name="w.pt").read_bytes() == WEIGHTS


def test_when_every_mirror_is_dead_each_is_listed_with_its_reason(serve: Serve, tmp_path: Path) -> None:
    urls = [
        serve("/w.pt", Served(code=503)).replace("/w.pt", "/gone.pt"),
        serve("/html.pt", Served(body=PAGE, kind="text/html; charset=utf-8")),
        serve("/empty.pt", Served(body=b"")),
        serve("/other.pt", Served(body=b"\x80other weights")),
        "http://127.0.0.1:9/w.pt",
        "gopher://there/w.pt",
        (tmp_path / "no.pt").as_uri(),
    ]
    with pytest.raises(ModelError) as caught:
        fetch(urls, sha256=SHA, name="w.pt")
    reasons = caught.value.problem.split("\n    ")[1:]
    expected = ["answers 404", "web page", "empty", "another file", "no connection", "not an address", "no such file"]
    assert len(reasons) == len(urls)
    for url, reason, words in zip(urls, reasons, expected, strict=True):
        assert reason.startswith(f"{url}: ") and words in reason
    assert f"put it at {tmp_path / 'cache' / 'weights' / 'w.pt'} (sha256 {SHA})" in caught.value.remedy
    assert not any((tmp_path / "cache" / "weights").iterdir())


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream"])
def test_a_web_page_instead_of_weights_is_refused(serve: Serve, kind: str) -> None:
    url = serve("/uc?export=download&id=1", Served(body=PAGE, kind=kind))
    with pytest.raises(ModelError, match=r"web page \(HTML\) came instead of weights: open it in a browser") as caught:
        fetch([url], name="w.pt")
    assert url in caught.value.problem and "w.pt" in caught.value.remedy


def test_a_wrong_hash_is_refused_and_a_wrong_file_already_there_too(serve: Serve, tmp_path: Path) -> None:
    url = serve("/w.pt", Served())
    with pytest.raises(ModelError, match=f"sha256 is {SHA[:16]}…, not {'0' * 16}…"):
        fetch([url], sha256="0" * 64, folder=tmp_path)
    assert not list(tmp_path.glob("*.pt")) and not parts(tmp_path)
    (tmp_path / "w.pt").write_bytes(b"half")
    with pytest.raises(ModelError, match="is not the file that is meant") as caught:
        fetch([url], sha256=SHA, folder=tmp_path)
    assert "delete it" in caught.value.remedy and (tmp_path / "w.pt").read_bytes() == b"half"


def test_a_length_that_is_never_reached_is_a_truncated_file(serve: Serve) -> None:
    with pytest.raises(ModelError, match=r"truncated: 5120000 of 5120001 bytes came"):
        fetch([serve("/w.pt", Served(says=len(WEIGHTS) + 1, ranges=False))])


@pytest.mark.parametrize("variable", ["ARESBENCH_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked_and_the_place_is_named(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    served = Served()
    url = serve("/w.pt", served)
    monkeypatch.setenv(variable, "1")
    with pytest.raises(ModelError, match=f"{variable} forbids the network") as caught:
        fetch([url], sha256=SHA)
    assert f"unset {variable}" in caught.value.remedy and not served.asked
    place = re.search(r"put it at (\S+)", caught.value.remedy)
    assert place is not None
    Path(place[1]).parent.mkdir(parents=True)
    Path(place[1]).write_bytes(WEIGHTS)
    assert fetch([url], sha256=SHA) == Path(place[1])


def test_the_part_of_a_killed_process_is_taken_over_and_of_a_living_one_left_alone(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served()
    url = serve("/w.pt", served)
    dead = subprocess.Popen(["true"])
    dead.wait()
    label = download._label(len(WEIGHTS), SHA)
    host = download.socket.gethostname().replace(".", "-")
    living = tmp_path / f"w.pt.{label}.{host}-{os.getpid()}-00000000.part"
    elsewhere = tmp_path / f"w.pt.{label}.another-machine-1-00000000.part"
    killed = tmp_path / f"w.pt.{label}.{host}-{dead.pid}-00000000.part"
    for k, part in enumerate((killed, living, elsewhere)):
        part.write_bytes(WEIGHTS[: 1_000_000 * (k + 1)])
    assert fetch([url], sha256=SHA, folder=tmp_path).read_bytes() == WEIGHTS
    assert served.asked == ["bytes=1000000-"] and parts(tmp_path) == sorted((living, elsewhere))
    (tmp_path / "w.pt").unlink()
    os.utime(elsewhere, (0, 0))  # nobody has written to it for a long time
    fetch([url], sha256=SHA, folder=tmp_path)
    assert served.asked[-1] == "bytes=3000000-" and parts(tmp_path) == [living]


def test_a_whole_part_needs_no_server_and_a_bad_one_is_fetched_again(serve: Serve, tmp_path: Path) -> None:
    label = download._label(len(WEIGHTS), SHA)
    part = tmp_path / f"w.pt.{label}.free-00000000.part"
    part.write_bytes(WEIGHTS)
    assert fetch(["http://127.0.0.1:9/w.pt"], sha256=SHA, folder=tmp_path).read_bytes() == WEIGHTS
    (tmp_path / "w.pt").unlink()
    part.write_bytes(bytes(2_000_000))  # a damaged first half: found by the hash, then begun anew
    served = Served()
    assert fetch([serve("/w.pt", served)], sha256=SHA, folder=tmp_path).read_bytes() == WEIGHTS
    assert served.asked == ["bytes=2000000-", ""]


def _fetch_quietly(url: str, folder: Path) -> None:
    fetch([url], sha256=SHA, folder=folder)


def test_several_processes_at_once_end_with_one_file(serve: Serve, tmp_path: Path) -> None:
    url = serve("/w.pt", Served())
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_fetch_quietly, args=(url, tmp_path)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert [p.name for p in tmp_path.iterdir()] == ["w.pt"] and (tmp_path / "w.pt").read_bytes() == WEIGHTS


def test_a_local_mirror_serves_too(tmp_path: Path) -> None:
    (tmp_path / "nas.pt").write_bytes(WEIGHTS)
    assert fetch([(tmp_path / "nas.pt").as_uri()], sha256=SHA).read_bytes() == WEIGHTS


def test_a_folder_that_cannot_be_written_is_named(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot be written") as caught:
        fetch([serve("/w.pt", Served())], folder=tmp_path / "file" / "weights")
    assert "ARESBENCH_CACHE" in caught.value.remedy
