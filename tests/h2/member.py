"""A member that speaks HTTP/1.1, for clients that try out HTTP/2: `member.py` prints its port and runs until its input
ends.

/            a few bytes
/bytes/N     N bytes
/echo        the body of the request
/request     the request as JSON: method, path, fields, length of the body, trailers
/trailers    a chunked body, and the trailer x-check
/interim     103 first
/hold        no answer, and nothing of the body is read, until the connection is closed (or a minute has passed)
"""

import http.server
import json
import socket
import sys
import threading


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65536

    def body(self):
        """The body, and the trailers of a chunked one."""
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0))), []
        body, trailers = b"", []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while (line := self.rfile.readline().strip()):
            trailers.append(line.decode("latin-1"))
        return body, trailers

    def answer(self, body, kind="text/plain"):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hold(self):
        self.close_connection = True
        self.connection.settimeout(60)
        poll = socket.MSG_PEEK
        waiting = threading.Event()
        try:
            # What is there stays there; only the end is looked for.
            for _ in range(6000):
                if not self.connection.recv(1, poll):
                    return
                waiting.wait(0.01)
        except OSError:
            pass

    def handle_expect_100(self):
        good = super().handle_expect_100()
        self.wfile.flush()
        return good

    def do_GET(self):
        path = self.path.split("?")[0]
        if path == "/hold":
            return self.hold()
        body, trailers = self.body()
        if path == "/interim":
            self.send_response_only(103)
            self.send_header("link", "</style.css>")
            self.end_headers()
        if path == "/trailers":
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.send_header("trailer", "x-check")
            self.end_headers()
            self.wfile.write(b"4\r\nbody\r\n0\r\nx-check: done\r\n\r\n")
        elif path.startswith("/bytes/"):
            self.answer(b"x" * int(path[7:]))
        elif path == "/echo":
            self.answer(body)
        elif path == "/request":
            fields = [list(field) for field in self.headers.items()]
            seen = {"method": self.command, "path": self.path, "fields": fields,
                    "length": len(body), "trailers": trailers}
            self.answer(json.dumps(seen).encode(), "application/json")
        else:
            self.answer(b"member")

    do_POST = do_PUT = do_HEAD = do_OPTIONS = do_GET

    def log_message(self, *_):
        pass

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def server_bind(self):
        # So that a member that reads nothing holds little.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        super().server_bind()


server = Server(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
