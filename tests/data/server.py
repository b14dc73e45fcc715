"""A loopback web server whose answers a test scripts."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves ``files`` (name -> bytes) and follows ``script`` first: a list of functions of the request handler.

    Attributes:
        requests: (path, value of the Range header or None) of each request.
    """

    def __init__(self):
        self.files = {}
        self.script = []
        self.requests = []
        self.url = ""


def status(code):
    """Answer with an error status."""

    def answer(handler, content, offset):
        handler.send_error(code)

    return answer


def cut(length):
    """Promise everything, send ``length`` bytes, hang up."""

    def answer(handler, content, offset):
        send(handler, content, offset, length)
        handler.close_connection = True

    return answer


def ignore_range(handler, content, offset):
    """Answer as a server that knows no ranges."""
    send(handler, content, 0)


def wrong_range(handler, content, offset):
    """Answer with another part of the file than the one asked for."""
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {offset + 1}-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content) - offset - 1))
    handler.end_headers()
    handler.wfile.write(content[offset + 1 :])


def send(handler, content, offset, length=None):
    """The normal answer, cut after ``length`` bytes if given."""
    if offset and offset >= len(content):
        handler.send_error(416)
        return
    handler.send_response(206 if offset else 200)
    if offset:
        handler.send_header("Content-Range", f"bytes {offset}-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content) - offset))
    handler.end_headers()
    handler.wfile.write(content[offset:][:length])


@contextlib.contextmanager
def serve():
    """A :class:`Server` at work."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name, wanted = self.path.rsplit("/", 1)[-1], self.headers.get("Range")
            state.requests.append((self.path, wanted))
            offset = int(wanted[len("bytes=") : -1]) if wanted else 0
            if name not in state.files:
                self.send_error(404)
            else:
                answer = state.script.pop(0) if state.script else send
                answer(self, state.files[name], offset)

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}/raw"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
