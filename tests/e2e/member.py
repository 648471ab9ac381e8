"""A member on Python's http.server that says which requests it saw. Its first line is its port; then
one line a request: status, method, target, bytes of the body. The answer is the same without the
status. Bodies are read by Content-Length or chunks, as http.server leaves that to its users."""

import http.server
import sys


def tell(*words):
    sys.stdout.write(" ".join(str(word) for word in words) + "\n")
    sys.stdout.flush()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: each answer would wait for an acknowledgement between them.
    disable_nagle_algorithm = True

    def exactly(self, size):
        data = self.rfile.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return len(self.exactly(int(self.headers.get("Content-Length", 0))))
        size = 0
        while True:
            line = self.rfile.readline()
            if not line:
                raise EOFError
            chunk = int(line.split(b";")[0], 16)
            size += len(self.exactly(chunk))
            self.exactly(2)
            if chunk == 0:
                return size

    def answer(self):
        try:
            size = self.body()
        except EOFError:
            tell(499, self.command, self.path)
            self.close_connection = True
            return
        tell(200, self.command, self.path, size)
        text = f"{self.command} {self.path} {size}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def send_error(self, code, message=None, explain=None):
        tell(int(code), self.raw_requestline.decode("latin1").strip())
        super().send_error(code, message, explain)

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
tell(server.server_address[1])
server.serve_forever()
