"""Fetch a file of weights: mirrors in order, resumed where it broke off, checked before it gets its name.

A file under way is called ``NAME.SIZE-VERSION.OWNER.part``: what its server says of it, and who writes it. So
several processes need no lock: each writes its own part, and whoever finishes renames it. A part whose
writer is gone is taken over by renaming it, which only one process can do.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import re
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aresbench.core.errors import ModelError

Progress = Callable[[str, int, int | None], None]
"""Told the file's name, the bytes there are and the bytes there will be (None: not known)."""

TIMEOUT = 30.0  # seconds without a byte after which a connection counts as lost
ATTEMPTS = 3  # times in a row that one address is tried without a new byte
ABANDONED = 600.0  # seconds without a byte after which a part has no writer any more, on whatever machine
_CHUNK = 1 << 20
_SCHEMES = ("http", "https", "file")
_PAGE = (b"<!doctype", b"<html", b"<head", b"<?xml")


class _Failed(Exception):
    """One address did not give the file; the text says why."""


class _Lost(_Failed):
    """The connection broke: what has come may be resumed."""


def weights_folder() -> Path:
    """Where weights are kept: ``$ARESBENCH_CACHE/weights``, else the user's cache."""
    named = os.environ.get("ARESBENCH_CACHE")
    if named and named != "off":
        return Path(named).expanduser() / "weights"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "aresbench" / "weights"


def offline() -> str:
    """The variable that forbids the network, ``ARESBENCH_OFFLINE`` or ``HF_HUB_OFFLINE``; empty: none does."""
    for variable in ("ARESBENCH_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(variable, "").lower() in ("1", "true", "yes", "on"):
            return variable
    return ""


def fetch(
    urls: Sequence[str],
    *,
    sha256: str = "",
    name: str = "",
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """The file behind a list of addresses, downloaded once.

    Args:
        urls: the same file at several places (http, https or file); the first that gives it is taken.
        sha256: what the file must hash to, in hex; its first 8 digits or more are enough. Empty: not known.
        name: the file's name here; by default the last part of the first address, after a few digits that stand
            for that address where no hash tells files of one name apart.
        folder: where it is kept; default: ``weights_folder()``.
        progress: told how far it is; default: a line on the terminal, if there is one.

    Returns:
        The path of the whole, checked file.

    Raises:
        ModelError: no address gave it (each is listed with its reason), the network is switched off, a file of
            that name is there and is another one, or the disk does not take it.
    """
    name = name or _name_from(urls[0], unique=bool(sha256))
    folder = folder or weights_folder()
    target = folder / name
    if target.is_file():
        _check_kept(target, sha256)
        return target
    by_hand = f"fetch {name} by any other way and put it at {target}"
    if variable := offline():
        raise ModelError(
            f"{target} is not there, and {variable} forbids the network", f"unset {variable}, or {by_hand}"
        )
    reasons = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for url in urls:
            try:
                _from(url, target, sha256, progress or _terminal)
                return target
            except _Failed as error:
                reasons.append(f"{url}: {error}")
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise ModelError(
            f"{target} cannot be written: {error.strerror or error}",
            "make room on that disk, or name another folder in ARESBENCH_CACHE" if full else "set ARESBENCH_CACHE",
        ) from None
    shown = "".join(f"\n    {reason}" for reason in reasons)
    checked = f" (sha256 {sha256}{' …' if len(sha256) < 64 else ''})" if sha256 else ""
    raise ModelError(f"{name} could not be downloaded:{shown}", by_hand + checked)


def _name_from(url: str, *, unique: bool) -> str:
    last = Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name or "weights"
    return last if unique else f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{last}"


def _check_kept(target: Path, sha256: str) -> None:
    if sha256 and not (found := _hash(target)).startswith(sha256.lower()):
        raise ModelError(
            f"{target} is not the file that is meant: its sha256 is {found[:16]}…, not {sha256[:16]}…",
            "delete it, and it will be downloaded again",
        )


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- one address ------------------------------------------------------------------------------


def _from(url: str, target: Path, sha256: str, progress: Progress) -> None:
    """Bring the file from one address to its place; what breaks off is resumed a few times."""
    if urllib.parse.urlsplit(url).scheme not in _SCHEMES:
        raise _Failed(f"not an address of {', '.join(_SCHEMES)}")
    tries, most = 0, -1
    while True:
        part = _take_over(target)
        try:
            _download(url, target, part, sha256, progress)
            return
        except BaseException as error:
            if part is not None:
                _release(part, keep=True)
            if not isinstance(error, _Lost):
                raise
            left = sum(p.stat().st_size for p in _parts(target))
            tries = 0 if left > most else tries + 1
            most = max(left, most)
            if tries + 1 >= ATTEMPTS:
                raise
            time.sleep(min(2.0, 0.2 * 2**tries))


def _download(url: str, target: Path, part: Path | None, sha256: str, progress: Progress) -> None:
    """One connection: continue ``part`` where the server still has the same file, else begin anew."""
    if part is not None and part.stat().st_size == _size_in(part) > 0:  # its writer died before the last rename
        _finish(part, target, sha256, resumed=True)
        return
    begun = part.stat().st_size if part is not None else 0
    with _open(url, begun) as answer:
        total, version, continues = _facts(url, answer, sha256)
        resumed = part is not None and continues == begun > 0 and bool(version) and _label(total, version) in part.name
        if not resumed and continues:
            _drop(part)
            raise _Lost("the file has changed since it was half here")
        if not resumed:
            _drop(part)
            part = target.with_name(f"{target.name}.{_label(total, version)}.{_owner()}.part")
            begun = 0
        assert part is not None
        try:
            _copy(url, answer, part, begun, total, progress)
        except BaseException:
            _release(part, keep=bool(version and total))
            raise
    _finish(part, target, sha256, resumed)


def _open(url: str, begun: int) -> Any:
    headers = {"User-Agent": "aresbench", "Accept-Encoding": "identity"}
    if begun:
        headers["Range"] = f"bytes={begun}-"
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and begun:  # what is here is longer than the file there
            return _open(url, 0)
        what = f"the server answers {error.code} ({error.reason})"
        raise (_Lost if error.code >= 500 or error.code == 429 else _Failed)(what) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, FileNotFoundError):
            raise _Failed("there is no such file") from None
        raise _Failed(f"no connection ({error.reason})") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _Failed(f"no connection ({error or type(error).__name__})") from None


def _facts(url: str, answer: Any, sha256: str) -> tuple[int | None, str, int]:
    """What a server says of its file: its size, a text that changes with it, and where this answer begins."""
    headers = answer.headers
    if headers.get_content_type() == "text/html":
        raise _Failed(_page(url))
    begins, length = 0, headers.get("Content-Length")
    total = int(length) if length and length.isdigit() else None
    if answer.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", "").strip())
        if found is None:
            raise _Failed("the server's answer to a request for the rest makes no sense")
        begins, total = int(found[1]), int(found[2])
    # One hash is one file at every address; without it, only the same address and tag are.
    tag = headers.get("ETag") or headers.get("Last-Modified") or ""
    version = sha256.lower() or (tag and f"{url} {tag}")
    return total, version, begins


def _page(url: str) -> str:
    host = urllib.parse.urlsplit(url).hostname or "the server"
    return f"a web page (HTML) came instead of weights: open it in a browser, {host} may ask to log in or to confirm"


def _copy(url: str, answer: Any, part: Path, begun: int, total: int | None, progress: Progress) -> None:
    have = begun
    with part.open("ab") as file:
        while True:
            try:
                block = answer.read(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _Lost(f"the connection broke after {have} bytes ({error or type(error).__name__})") from None
            if have == 0 and block.lstrip().lower().startswith(_PAGE):
                raise _Failed(_page(url))
            if not block:
                break
            file.write(block)
            have += len(block)
            progress(part.name.rsplit(".", 3)[0], have, total)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and have != total:
        raise _Lost(f"the file is truncated: {have} of {total} bytes came")
    if have == 0:
        raise _Failed("the file there is empty")


def _finish(part: Path, target: Path, sha256: str, resumed: bool) -> None:
    """Give a whole file its name, if it is the right one."""
    if sha256 and not (found := _hash(part)).startswith(sha256.lower()):
        part.unlink()
        wrong = f"it is another file: its sha256 is {found[:16]}…, not {sha256[:16]}…"
        raise (_Lost if resumed else _Failed)(wrong)  # a wrong first half is no fault of this address
    os.replace(part, target)


# -- parts ------------------------------------------------------------------------------------


def _label(total: int | None, version: str) -> str:
    return f"{total or 0}-{hashlib.sha256(version.encode()).hexdigest()[:12]}"


def _owner() -> str:
    return f"{socket.gethostname().replace('.', '-')}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _size_in(part: Path) -> int:
    return int(part.name.rsplit(".", 3)[1].partition("-")[0])


def _parts(target: Path) -> list[Path]:
    return [p for p in target.parent.iterdir() if p.name.startswith(f"{target.name}.") and p.suffix == ".part"]


def _take_over(target: Path) -> Path | None:
    """The longest part without a writer, under a name of our own; None where there is none."""
    found: list[tuple[int, Path]] = []
    for part in _parts(target):
        with contextlib.suppress(OSError):
            if _abandoned(part):
                found.append((part.stat().st_size, part))
    for _, part in sorted(found, reverse=True):
        mine = part.with_name(f"{part.name.rsplit('.', 2)[0]}.{_owner()}.part")
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            part.rename(mine)
            return mine
    return None


def _abandoned(part: Path) -> bool:
    owner = part.name.rsplit(".", 2)[1]
    if owner.startswith("free-") or time.time() - part.stat().st_mtime > ABANDONED:
        return True
    host, pid, _ = owner.rsplit("-", 2)
    if host != socket.gethostname().replace(".", "-") or os.name != "posix":
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _release(part: Path, keep: bool) -> None:
    """Leave a part to whoever comes next, or remove it where nobody could tell what it is a part of."""
    with contextlib.suppress(FileNotFoundError):
        if keep and part.stat().st_size:
            part.rename(part.with_name(f"{part.name.rsplit('.', 2)[0]}.free-{uuid.uuid4().hex[:8]}.part"))
        else:
            part.unlink()


def _drop(part: Path | None) -> None:
    if part is not None:
        part.unlink(missing_ok=True)


def _terminal(name: str, have: int, total: int | None) -> None:
    """How far a download is, on one line that is written again and again."""
    if not sys.stderr.isatty():
        return
    size = f"{have / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{have / 1e6:.0f} MB"
    sys.stderr.write(f"\r{name}: {size}" + ("\n" if have == total else ""))
    sys.stderr.flush()
