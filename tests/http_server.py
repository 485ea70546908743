"""A local HTTP server that misbehaves in every way a real one does."""

import http.server
import threading
import time
from contextlib import contextmanager


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; `faults` lists what goes wrong with the requests to come, in order."""

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.requests = files, [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        name, span = self.path.lstrip("/"), self.headers.get("Range")
        server.requests.append((name, span))
        if name not in server.files:
            self.send_error(404)
            return
        fault = server.faults.pop(0) if server.faults else None
        if isinstance(fault, int):
            self.send_error(fault)
            return
        if fault == "hang":
            time.sleep(1.0)
            return
        body = server.files[name]
        start = int(span.removeprefix("bytes=").rstrip("-")) if span and fault != "no ranges" else 0
        if start and start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        body = body[start:]
        self.wfile.write(body[: len(body) // 2] if fault == "truncate" else body)

    def log_message(self, *arguments):
        pass


@contextmanager
def serving(files):
    server = Server(files)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
