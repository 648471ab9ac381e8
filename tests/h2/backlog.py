"""Uploads in small pieces, each on its way by itself, to a member that takes none, until the windows are used up.

backlog.py PORT   prints `held` then, and waits for the end of its input
"""

import sys

import wire

PIECE = bytes(1024)


def main():
    connection = wire.Connection(("127.0.0.1", int(sys.argv[1])))
    connection.deadline += 100
    length = ("content-length", str(64 << 20))
    streams = [connection.post("/", length) for _ in range(2)]
    sent = 0
    while True:
        stream = max(streams, key=connection.room)
        if min(connection.credit[0], connection.room(stream)) < len(PIECE):
            # The windows are opened again as long as the members' sockets take something.
            if connection.read(0.5) is None:
                break
            continue
        connection.spend(stream, len(PIECE))
        connection.data(stream, PIECE)
        sent += 1
        number = sent.to_bytes(8, "big")
        connection.frame(wire.PING, 0, 0, number)
        connection.until(lambda: number in connection.pongs[-1:], "a PONG")
    print("held", flush=True)
    sys.stdin.read()


main()
