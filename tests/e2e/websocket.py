"""WebSocket peers for the end-to-end tests, on the library `websockets`.

serve            an echo server on a free port, which it prints; runs until its input ends
client URL N MIB  N connections at once: frames of MIB MiB there and back, pings, the closing handshake,
                 and on one more connection a half-close behind the last frame; prints "all well".
                 With a CA file behind it the URL is wss, and there is no half-close: TLS of Python has none
"""

import asyncio
import os
import random
import socket
import ssl
import sys
import threading

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

LIMIT = 120


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def serve_forever():
    loop, end = asyncio.get_running_loop(), asyncio.Event()

    def watch():
        sys.stdin.read()
        loop.call_soon_threadsafe(end.set)

    threading.Thread(target=watch, daemon=True).start()
    options = dict(max_size=None, ping_interval=None)
    async with serve(echo, "127.0.0.1", 0, **options) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await end.wait()


async def talk(url, number, size, trust):
    dice = random.Random(number)
    options = dict(max_size=None, ping_interval=None, open_timeout=LIMIT, close_timeout=LIMIT)
    if trust:
        options["ssl"] = ssl.create_default_context(cafile=trust)
    # The odd ones compress, so that an extension has to pass, too.
    compression = "deflate" if number % 2 else None
    async with connect(url, compression=compression, **options) as connection:
        extensions = connection.response.headers.get("Sec-WebSocket-Extensions", "")
        assert ("permessage-deflate" in extensions) == bool(number % 2), extensions
        for length in (0, 1, 125, 126, 65535, 65536, size):
            # What compresses well is fast to compress, however large.
            data = bytes(length) if number % 2 else dice.randbytes(length)
            await connection.send(data)
            await asyncio.wait_for(await connection.ping(), LIMIT)
            assert await connection.recv() == data, f"{length} bytes came back as others"
        await connection.close(1000, "done")
        assert connection.close_code == 1000 and connection.close_reason == "done"


def half_close(url):
    """A FIN right behind the closing frame: the server's closing frame and its end still come."""
    uri = parse_uri(url)
    protocol = ClientProtocol(uri)
    with socket.create_connection((uri.host, uri.port), LIMIT) as stream:
        protocol.send_request(protocol.connect())
        flush(protocol, stream)
        while protocol.state is not OPEN:
            protocol.receive_data(stream.recv(65536))
            assert protocol.handshake_exc is None, protocol.handshake_exc
        protocol.send_text(b"last words")
        flush(protocol, stream)
        frames = []
        while not frames:
            protocol.receive_data(stream.recv(65536))
            frames += [event for event in protocol.events_received() if hasattr(event, "opcode")]
        protocol.send_close(1000)
        flush(protocol, stream)
        stream.shutdown(socket.SHUT_WR)
        while data := stream.recv(65536):
            protocol.receive_data(data)
        protocol.receive_eof()
        frames += [event for event in protocol.events_received() if hasattr(event, "opcode")]
        assert [frame.opcode for frame in frames] == [Opcode.TEXT, Opcode.CLOSE], frames
        assert frames[0].data == b"last words"


def flush(protocol, stream):
    for data in protocol.data_to_send():
        if data:
            stream.sendall(data)


async def clients(url, number, size, trust=None):
    await asyncio.gather(*(talk(url, at, size, trust) for at in range(number)))
    if not trust:
        await asyncio.to_thread(half_close, url)
    print("all well", os.getpid())


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve_forever())
    else:
        asyncio.run(clients(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) << 20, *sys.argv[5:]))
