"""WebSocket on streams of HTTP/2 (RFC 8441), towards an echo server behind the balancer.

websocket.py PORT    prints "all well"
"""

import sys

from websockets.frames import Frame, Opcode

import wire


def opening(protocol="websocket"):
    fields = wire.request("/chat", (":protocol", protocol), ("sec-websocket-version", "13"), method="CONNECT")
    return sorted(fields, key=lambda field: not field[0].startswith(":"))


class Socket:
    def __init__(self, connection):
        self.connection = connection
        self.number, connection.next = connection.next, connection.next + 2
        connection.headers(self.number, opening(), end=False)
        self.stream = connection.stream(self.number)
        connection.until(lambda: self.stream.heads, "the head")
        fields = self.stream.fields
        assert self.stream.status == 200 and not self.stream.ended, fields
        for name in ("connection", "upgrade", "sec-websocket-accept", "transfer-encoding", "content-length"):
            assert name not in fields, fields

    def send(self, opcode, data, end=False):
        payload = Frame(opcode, data).serialize(mask=True)
        self.connection.upload(self.number, payload, end=end)

    def take(self, count):
        body = self.stream.body
        while len(body) < count:
            before = len(body)
            self.connection.until(lambda: len(body) > before or self.stream.over, "a frame")
            if len(body) > before:
                self.connection.update(self.number, len(body) - before)
                self.connection.update(0, len(body) - before)
            elif self.stream.over:
                raise wire.Failure("the stream is over")
        piece = bytes(body[:count])
        del body[:count]
        return piece

    def receive(self):
        first, length = self.take(2)
        if length >= 126:
            length = int.from_bytes(self.take(2 if length == 126 else 8), "big")
        return first & 15, self.take(length)


def main():
    connection = wire.Connection(("127.0.0.1", int(sys.argv[1])))
    sockets = [Socket(connection) for _ in range(3)]
    for size in (0, 1, 125, 126, 65535, 65536, 1 << 20):
        for at, each in enumerate(sockets):
            data = bytes([at]) * size
            each.send(Opcode.BINARY, data)
            assert each.receive() == (Opcode.BINARY, data), size
    sockets[0].send(Opcode.PING, b"here?")
    assert sockets[0].receive() == (Opcode.PONG, b"here?")
    # One is broken off; the others don't notice.
    connection.reset(sockets[1].number)
    # One is closed in order: the server ends its side behind the answer.
    sockets[0].send(Opcode.CLOSE, b"\x03\xe8", end=True)
    assert sockets[0].receive()[0] == Opcode.CLOSE
    connection.until(lambda: sockets[0].stream.over, "the end")
    assert sockets[0].stream.ended, connection.told()
    sockets[2].send(Opcode.TEXT, b"still here")
    assert sockets[2].receive() == (Opcode.TEXT, b"still here")
    # What isn't listed is not done.
    number, connection.next = connection.next, connection.next + 2
    connection.headers(number, opening("teapot"), end=False)
    connection.until(lambda: connection.stream(number).heads, "the refusal")
    assert connection.stream(number).status == 501
    print("all well")


if __name__ == "__main__":
    main()
