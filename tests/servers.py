"""A local HTTP server that lays files out, counts what it sends, and misbehaves on demand."""

import hashlib
import html
import ssl
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

PIECE = 1 << 16


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request; the fields may be combined.

    Attributes
    ----------
    status
        Answer with this instead of 200 or 206.
    headers
        Sent in place of those of the same name; None takes one away.
    body
        Sent in place of the file.
    cut
        Close the connection after so many bytes of the body.
    stall
        Seconds of silence before the connection is closed at ``cut``.
    pause
        Seconds between pieces of 64 KiB.
    ranges
        False: send the whole file whatever is asked for.
    chunked
        Send the body chunked, without a length; ``cut`` leaves out the last chunk.
    """

    status: int | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    cut: int | None = None
    stall: float = 0.0
    pause: float = 0.0
    ranges: bool = True
    chunked: bool = False


UNAVAILABLE = Fault(status=503, body=b"busy", headers={"Content-Type": "text/plain"})
PAGE = Fault(
    body=b"\n<!DOCTYPE html>\n<html><body>Service is down for maintenance</body></html>\n",
    headers={"Content-Type": "text/html; charset=utf-8"},
)


def redirect(target):
    return Fault(status=302, body=b"", headers={"Location": target})


class Server:
    """Serve a folder: ``with Server(folder, faults={"a/b.gz": [UNAVAILABLE]}) as server: ...``.

    Each request of a path takes the first fault of its list; once they are used up, the
    file is served as it should be: with its length, ETag, Last-Modified, and ranges.
    A path that is a folder is a page of links, as on GEO.

    Attributes
    ----------
    url
        Without a slash at its end.
    bytes_sent
        By path without a leading slash: bytes of all bodies.
    ranges
        By path: the Range header of every request, or None.
    """

    def __init__(self, folder, faults=None, tls: ssl.SSLContext | None = None):
        self.folder = Path(folder)
        self.faults = defaultdict(list, {k: list(v) for k, v in (faults or {}).items()})
        self.bytes_sent: Counter[str] = Counter()
        self.ranges: dict[str, list[str | None]] = defaultdict(list)
        self.mutex = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._http.server_port}"

    def __enter__(self):
        serve = {"poll_interval": 0.02}
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs=serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def etag_of(content):
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def _links(folder):
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    rows = "\n".join(f'<a href="{html.escape(n)}">{html.escape(n)}</a>' for n in names)
    return f"<!DOCTYPE html>\n<html><body><pre>\n{rows}\n</pre></body></html>\n".encode()


def _handler(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_GET(self):
            path = unquote(urlsplit(self.path).path).strip("/")
            with server.mutex:
                server.ranges[path].append(self.headers["Range"])
                fault = server.faults[path].pop(0) if server.faults[path] else Fault()
            file = (server.folder / path).resolve()
            try:
                self.answer(path, file, fault)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client went away

        def answer(self, path, file, fault):
            status, start = 200, 0
            headers = {"Content-Type": "application/octet-stream"}
            inside = file.is_relative_to(server.folder.resolve())
            if fault.body is not None:
                body = fault.body
            elif inside and file.is_file():
                body = file.read_bytes()
                headers["ETag"] = etag_of(body)
                headers["Last-Modified"] = formatdate(file.stat().st_mtime, usegmt=True)
                headers["Accept-Ranges"] = "bytes"
            elif inside and file.is_dir():
                body, headers["Content-Type"] = _links(file), "text/html"
            else:
                status, body, headers["Content-Type"] = 404, b"no such file", "text/plain"
            wanted = self.headers["Range"]
            # A fault's ETag is sent, not compared: so does a server that ignores If-Range.
            known = (None, headers.get("ETag"), headers.get("Last-Modified"))
            match = self.headers["If-Range"] in known
            if wanted and "Accept-Ranges" in headers and match and fault.ranges:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                status = 206 if start < len(body) else 416
                end = len(body) - 1
                given = f"{start}-{end}" if status == 206 else "*"
                headers["Content-Range"] = f"bytes {given}/{len(body)}"
                body = body[start:] if status == 206 else b""
            if fault.chunked:
                headers["Transfer-Encoding"] = "chunked"
            else:
                headers["Content-Length"] = str(len(body))
            if fault.headers or fault.cut is not None:  # the length may be a lie
                headers["Connection"] = "close"
            self.send_response(fault.status or status)
            for key, value in (headers | dict(fault.headers)).items():
                if value is not None:
                    self.send_header(key, value)
            self.end_headers()
            self.send_body(path, body, fault)

        def send_body(self, path, body, fault):
            end = len(body) if fault.cut is None else min(fault.cut, len(body))
            for at in range(0, end, PIECE):
                piece = body[at : min(at + PIECE, end)]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if fault.chunked else piece)
                with server.mutex:
                    server.bytes_sent[path] += len(piece)
                time.sleep(fault.pause)
            if fault.chunked and fault.cut is None:
                self.wfile.write(b"0\r\n\r\n")
            time.sleep(fault.stall)

    return Handler
