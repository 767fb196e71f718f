"""A server on loopback that speaks as much of the hub's API as its client asks for.

Large files are answered as the hub does: the repository's address redirects to a storage address
and tells hash, size and commit in headers; the storage address serves ranges.
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str
    status: int

    @property
    def is_for_content(self) -> bool:
        return self.method == "GET" and self.status in (200, 206)


@dataclass
class Hub:
    """What the server has and how it behaves; tests change it while it runs.

    Attributes:
        endpoint, storage: its addresses, of two hosts as the real ones: the client follows a
            redirect within a host, and reads the headers of one to another.
        files: {(repository, path): content}.
        small: paths that are not in large-file storage, so that the hub knows no SHA-256 of them.
        told: {(repository, path): SHA-256} to tell in place of the true one.
        breaks: after how many bytes each of the next answers with content is cut off.
        refuses: {repository: "GatedRepo"}.
        log: every request that was answered.
    """

    endpoint: str = ""
    storage: str = ""
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    small: set[str] = field(default_factory=set)
    told: dict[tuple[str, str], str] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)
    refuses: dict[str, str] = field(default_factory=dict)
    log: list[Request] = field(default_factory=list)

    def content_requests(self) -> list[Request]:
        return [request for request in self.log if request.is_for_content]


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    hub.storage = f"http://localhost:{server.server_port}/storage"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""

    def _answer(self) -> None:
        hub = self.served
        if self.path.startswith("/storage/"):
            self._content(bytes(hub.files[_key(hub, self.path.removeprefix("/storage/"))]))
            return
        match = _RESOLVE.fullmatch(self.path)
        if match is None:
            self._send(404, {})
            return
        repo, revision, file = match["repo"], match["revision"], match["file"]
        commit = {"X-Repo-Commit": COMMIT}
        if repo in hub.refuses:
            self._send(403, {"X-Error-Code": hub.refuses[repo]})
        elif not any(known == repo for known, _ in hub.files):
            self._send(401, {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", COMMIT):
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        elif (repo, file) not in hub.files:
            self._send(404, {"X-Error-Code": "EntryNotFound", **commit})
        elif file in hub.small:
            content = hub.files[repo, file]
            self._content(content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', **commit})
        else:
            content = hub.files[repo, file]
            sha256 = hub.told.get((repo, file), hashlib.sha256(content).hexdigest())
            headers = {
                "Location": f"{hub.storage}/{repo}/{file}",
                "ETag": f'"{hashlib.sha1(content).hexdigest()}"',
                "X-Linked-Etag": f'"{sha256}"',
                "X-Linked-Size": str(len(content)),
            }
            self._send(302, {**headers, **commit})

    def _content(self, content: bytes, headers: dict[str, str] | None = None) -> None:
        hub, wanted = self.served, self.headers.get("Range", "")
        begin = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        headers = {**(headers or {}), "Accept-Ranges": "bytes"}
        if wanted:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        body = content[begin:]
        cut = hub.breaks.pop(0) if hub.breaks and self.command == "GET" else None
        self._send(206 if wanted else 200, headers, body, cut)

    def _send(
        self, status: int, headers: dict[str, str], body: bytes = b"", cut: int | None = None
    ) -> None:
        self.served.log.append(
            Request(self.command, self.path, self.headers.get("Range", ""), status)
        )
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])
        self.close_connection = cut is not None


def _key(hub: Hub, path: str) -> tuple[str, str]:
    return next(key for key in hub.files if "/".join(key) == path)
