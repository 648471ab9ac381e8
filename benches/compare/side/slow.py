"""An origin whose answers wait: `slow.py PORT`, a program of its own.

`/held` is answered with 128 bytes once somebody has asked for `/release`; `/count` tells at once how many wait.
"""

import asyncio
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from side.procs import use_all_descriptors  # noqa: E402

BODY = b"x" * 128


class Origin:
    """Who waits, and whether they still have to."""

    def __init__(self):
        self.waiting, self.released = 0, asyncio.Event()

    async def serve(self, reader, writer):
        """One connection, request after request."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await self.answer(head.split(b" ", 2)[1])
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def answer(self, path):
        """The body for a path."""
        if path == b"/release":
            self.released.set()
        if path == b"/held":
            self.waiting += 1
            await self.released.wait()
            self.waiting -= 1
            return BODY
        return b"%d" % self.waiting


async def main(port):
    """Serves for ever."""
    server = await asyncio.start_server(Origin().serve, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    use_all_descriptors()
    asyncio.run(main(int(sys.argv[1])))
