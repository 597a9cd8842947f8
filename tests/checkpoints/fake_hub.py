"""A stand-in for the Hugging Face hub on this machine: the few answers that a download needs, and faults on demand."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves `repositories` {"user/name": {"file": content}}.

    cuts        how many more times the line breaks, always after `cut_after` bytes of an answer
    asked       the byte ranges that files were asked for, in order: (file, "bytes=100-" or None)
    """

    daemon_threads = True

    def __init__(self, repositories: dict[str, dict[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories = repositories
        self.cuts, self.cut_after = 0, 10_000
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A line that broke is what is tested here, and needs no report."""


@contextmanager
def serving(repositories: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    with Hub(repositories) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        if path.startswith("api/models/"):
            self._answer_api(path.removeprefix("api/models/"))
            return
        user, name, _, _, *rest = path.split("/")
        content = self.server.repositories.get(f"{user}/{name}", {}).get("/".join(rest))
        if content is None:
            missing = "EntryNotFound" if f"{user}/{name}" in self.server.repositories else "RepoNotFound"
            self._send(404, b"{}", {"X-Error-Code": missing}, with_body)
        else:
            self._send_file("/".join(rest), content, with_body)

    def _answer_api(self, path: str) -> None:
        user, name, *rest = path.split("/")
        files = self.server.repositories.get(f"{user}/{name}")
        if files is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, True)
        elif rest[:1] == ["tree"]:
            tree = [{"type": "file", "path": file, "size": len(c), "oid": _digest(c)} for file, c in files.items()]
            self._send(200, json.dumps(tree).encode(), {}, True)
        else:
            siblings = [{"rfilename": file} for file in files]
            info = {"id": f"{user}/{name}", "sha": COMMIT, "siblings": siblings, "private": False}
            self._send(200, json.dumps(info).encode(), {}, True)

    def _send_file(self, name: str, content: bytes, with_body: bool) -> None:
        asked = self.headers.get("Range")
        headers = {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if with_body:
            self.server.asked.append((name, asked))
        if not asked:
            self._send(200, content, headers, with_body)
            return
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1 if last else None]
        end = int(first) + len(part) - 1
        headers["Content-Range"] = f"bytes {first}-{end}/{len(content)}"
        self._send(206, part, headers, with_body)

    def _send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not with_body:
            return
        if self.server.cuts > 0 and len(body) > self.server.cut_after:
            self.server.cuts -= 1
            self.wfile.write(body[: self.server.cut_after])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(body)


def _digest(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
