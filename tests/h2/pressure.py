"""Uploads by HTTP/2, and members that read nothing of them until they are told to.

pressure.py member http | http2              a member; prints its port. It takes connections and reads their bodies with
                                             the first line of its input, and answers; ends with its input
pressure.py upload PORT COUNT STREAMS BYTES  COUNT connections with STREAMS uploads each; prints `held` and how many bytes
                                             were taken when no more are, goes on with a line of its input, and prints
                                             `all well` when all uploads are answered
"""

import socket
import sys
import threading
import time

import wire
from wire import ACK, DATA, END_STREAM, HEADERS, PING, SETTINGS, WINDOW, WINDOW_UPDATE

# Bytes of a member's receive buffers, for which the kernel has a least size.
NARROW = 4096
# Nothing moved for so long: all is stuck.
STILL = 1.5
PIECE = bytes(16384)
MOST = (1 << 31) - 1

reads = threading.Event()


class Gone(Exception):
    """The other side has closed."""


def serve_http(peer):
    reads.wait()
    reader = peer.makefile("rb")
    while line := reader.readline():
        length = 0
        while line := reader.readline().strip().lower():
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        while length:
            length -= len(reader.read(min(length, 1 << 20)))
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")


def serve_http2(peer):
    """Opens all windows as wide as they go, so that nothing but its socket holds anybody back."""
    reader = peer.makefile("rb")

    def frame(*parts):
        peer.sendall(wire.Connection.bytes_of(*parts))

    def next_frame():
        head = reader.read(9)
        length = int.from_bytes(head[:3], "big")
        payload = reader.read(length)
        if len(head) + len(payload) < 9 + length:
            raise Gone
        return head[3], head[4], int.from_bytes(head[5:], "big"), payload

    reader.read(len(wire.PREFACE))
    assert next_frame()[0] == SETTINGS
    frame(SETTINGS, 0, 0, WINDOW.to_bytes(2, "big") + MOST.to_bytes(4, "big"))
    frame(SETTINGS, ACK, 0)
    frame(WINDOW_UPDATE, 0, 0, (MOST - 65535).to_bytes(4, "big"))
    reads.wait()
    while True:
        kind, flags, stream, payload = next_frame()
        if kind == PING and not flags & ACK:
            frame(PING, ACK, 0, payload)
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            head = wire.block([(":status", "200"), ("content-type", "application/grpc")])
            frame(HEADERS, wire.END_HEADERS, stream, head)
            trailers = wire.block([("grpc-status", "0")])
            frame(HEADERS, wire.END_HEADERS | END_STREAM, stream, trailers)


def member(kind):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    print(listener.getsockname()[1], flush=True)

    def serve(peer):
        try:
            (serve_http if kind == "http" else serve_http2)(peer)
        except (OSError, Gone):
            peer.close()

    def accept():
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.readline()
    reads.set()
    sys.stdin.read()


class Uploads:
    """One connection's."""

    def __init__(self, port, streams, size):
        self.connection = wire.Connection(("127.0.0.1", port))
        self.connection.deadline += 600
        more = ("content-length", str(size)), ("content-type", "application/grpc"), ("te", "trailers")
        self.left = {self.connection.post("/slow", *more): size for _ in range(streams)}

    def push(self):
        """Sends what the windows allow; how much that was."""
        sent, connection = 0, self.connection
        for stream in self.left:
            while True:
                room = min(connection.credit[0], connection.room(stream), self.left[stream], len(PIECE))
                if room <= 0:
                    break
                self.left[stream] -= room
                connection.spend(stream, room)
                connection.data(stream, PIECE[:room], end=not self.left[stream])
                sent += room
        return sent

    def look(self):
        """Takes what has come."""
        while self.connection.read(0.001):
            pass
        if self.connection.closed:
            raise wire.Failure(self.connection.told())

    def are_over(self):
        return all(self.connection.stream(stream).over for stream in self.left)


def upload(port, count, streams, size):
    all_ = [Uploads(port, streams, size) for _ in range(count)]
    taken, since = 0, time.monotonic()
    while time.monotonic() - since < STILL:
        for uploads in all_:
            if sent := uploads.push():
                taken, since = taken + sent, time.monotonic()
            uploads.look()
    print("held", taken, flush=True)
    sys.stdin.readline()
    while not all(uploads.are_over() for uploads in all_):
        for uploads in all_:
            uploads.push()
            uploads.look()
    for uploads in all_:
        for stream in uploads.left:
            uploads.connection.answer(stream)
    print("all well", flush=True)


if sys.argv[1] == "member":
    member(sys.argv[2])
else:
    upload(*map(int, sys.argv[2:]))
