"""RFC 9113, 3 to 5: the start, frames, blocks of fields, streams and windows."""

import struct

import wire
from suite import case
from wire import (
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS,
    STREAMS, WINDOW, WINDOW_UPDATE, block, request, without,
)

# 3.4 The preface.


@case("3.4", "the server's settings come first", greet=False)
def _(c):
    c.send(PREFACE)
    c.set()
    c.until(lambda: c.settings and c.settings_acks)


@case("3.4", "something else than the preface", greet=False)
def _(c):
    c.send(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + bytes(40))
    c.fails("PROTOCOL", silent=True)


@case("3.4", "a request of HTTP/1.1", greet=False)
def _(c):
    c.send(b"GET / HTTP/1.1\r\nHost: site.example\r\n\r\n")
    c.fails("PROTOCOL", silent=True)


@case("3.4", "PING in front of SETTINGS", greet=False)
def _(c):
    c.send(PREFACE)
    c.frame(PING, 0, 0, bytes(8))
    c.fails("PROTOCOL", silent=True)


@case("3.4", "HEADERS in front of SETTINGS", greet=False)
def _(c):
    c.send(PREFACE)
    c.get()
    c.fails("PROTOCOL", silent=True)


@case("3.4", "the preface byte by byte", greet=False)
def _(c):
    for byte in PREFACE + c.bytes_of(SETTINGS, 0, 0):
        c.send(bytes([byte]))
    c.answer(c.get())


@case("3.4", "a request right behind the preface, in one piece", greet=False)
def _(c):
    head = c.bytes_of(HEADERS, END_HEADERS | END_STREAM, 1, block(request()))
    c.send(PREFACE + c.bytes_of(SETTINGS, 0, 0) + head)
    c.answer(1)


# 4.1 Frames.


@case("4.1", "unknown kinds of frames")
def _(c):
    c.frame(0x16, 0xFF, 0, b"unknown")
    stream = c.post()
    c.frame(0xFF, 0xFF, stream, b"")
    c.frame(0x0B, 0, stream + 100, bytes(1000))
    c.data(stream, b"body", end=True)
    assert c.answer(stream).body == b"body"


@case("4.1", "unknown flags")
def _(c):
    c.frame(PING, 0xFE, 0, b"flagfull")
    c.until(lambda: b"flagfull" in c.pongs)
    stream = c.next
    c.headers(stream, request(), flags=0xD2)
    c.answer(stream)


@case("4.1", "the reserved bit of a stream's number")
def _(c):
    c.frame(PING, 0, 1 << 31, b"reserved")
    c.until(lambda: b"reserved" in c.pongs)
    c.headers(1 << 31 | 1, request())
    c.answer(1)


@case("4.1", "a request byte by byte")
def _(c):
    head = c.bytes_of(HEADERS, END_HEADERS, 1, block(request("/echo", method="POST")))
    for byte in head + c.bytes_of(DATA, END_STREAM, 1, b"slowly"):
        c.send(bytes([byte]))
    assert c.answer(1).body == b"slowly"


@case("4.1", "ten requests in one piece")
def _(c):
    heads = [c.bytes_of(HEADERS, 5, 2 * n + 1, block(request(f"/bytes/{n}"))) for n in range(10)]
    c.send(b"".join(heads))
    for n in range(10):
        assert len(c.answer(2 * n + 1).body) == n


# 4.2 Sizes.


@case("4.2", "DATA of 16,384 bytes")
def _(c):
    stream = c.post()
    c.data(stream, bytes(16384), end=True)
    assert len(c.answer(stream).body) == 16384


@case("4.2", "DATA of 16,385 bytes")
def _(c):
    stream = c.post("/hold")
    c.data(stream, bytes(16385))
    c.stream_fails(stream, "FRAME_SIZE")


@case("4.2", "HEADERS of 16,385 bytes")
def _(c):
    c.headers(1, block(request("/", ("x", "y" * 16300))).ljust(16385, b"\x82"))
    c.fails("FRAME_SIZE")


@case("4.2", "an unknown frame of 16,385 bytes")
def _(c):
    c.frame(0x20, 0, 0, bytes(16385))
    c.fails("FRAME_SIZE")


def wrong_size(kind, title, length, codes, of_stream=True):
    @case("4.2", f"{title} of {length} bytes")
    def _(c):
        stream = c.post("/hold") if of_stream else 0
        c.frame(kind, 0, stream, bytes(length))
        if kind == PRIORITY:
            c.stream_fails(stream, *codes)
        else:
            c.fails(*codes)


for length in (0, 3, 5, 8):
    wrong_size(RST_STREAM, "RST_STREAM", length, ["FRAME_SIZE"])
    wrong_size(WINDOW_UPDATE, "WINDOW_UPDATE", length, ["FRAME_SIZE"])
for length in (4, 6):
    wrong_size(PRIORITY, "PRIORITY", length, ["FRAME_SIZE"])
for length in (7, 9):
    wrong_size(PING, "PING", length, ["FRAME_SIZE"], of_stream=False)
wrong_size(SETTINGS, "SETTINGS", 5, ["FRAME_SIZE"], of_stream=False)
wrong_size(GOAWAY, "GOAWAY", 7, ["FRAME_SIZE"], of_stream=False)
wrong_size(WINDOW_UPDATE, "a connection's WINDOW_UPDATE", 3, ["FRAME_SIZE"], of_stream=False)


# 4.3 Blocks of fields.


def open_block(c, stream=1, end=True):
    """A block that goes on; what is missing of it."""
    whole = block(request())
    c.frame(HEADERS, END_STREAM if end else 0, stream, whole[:10])
    return whole[10:]


@case("4.3", "a block in pieces, one of them empty")
def _(c):
    rest = open_block(c)
    c.frame(CONTINUATION, 0, 1, rest[:7])
    c.frame(CONTINUATION, 0, 1, b"")
    c.frame(CONTINUATION, 0, 1, rest[7:])
    c.frame(CONTINUATION, END_HEADERS, 1, b"")
    c.answer(1)


@case("4.3", "a head of 60 KiB in four frames")
def _(c):
    whole = block(request("/request", *((f"x-{n}", "v" * 1000) for n in range(58))))
    c.frame(HEADERS, END_STREAM, 1, whole[:16384])
    c.frame(CONTINUATION, 0, 1, whole[16384:32768])
    c.frame(CONTINUATION, 0, 1, whole[32768:49152])
    c.frame(CONTINUATION, END_HEADERS, 1, whole[49152:])
    assert c.answer(1).body.count(b"v" * 1000) == 58


def interrupted(title, kind, stream, payload=b"", flags=0):
    @case("4.3", f"a block interrupted by {title}")
    def _(c):
        other = c.post("/hold")
        open_block(c, other + 2)
        c.frame(kind, flags, {"same": other + 2, "other": other, "new": other + 4}.get(stream, 0), payload)
        c.fails("PROTOCOL")


interrupted("PING", PING, "none", bytes(8))
interrupted("DATA of its stream", DATA, "same", b"x")
interrupted("DATA of another", DATA, "other", b"x")
interrupted("HEADERS of its stream", HEADERS, "same", block(request()), 5)
interrupted("HEADERS of another", HEADERS, "new", block(request()), 5)
interrupted("CONTINUATION of another", CONTINUATION, "other", b"", END_HEADERS)
interrupted("PRIORITY", PRIORITY, "same", bytes(5))
interrupted("SETTINGS", SETTINGS, "none")
interrupted("RST_STREAM", RST_STREAM, "same", bytes(4))
interrupted("WINDOW_UPDATE", WINDOW_UPDATE, "none", b"\0\0\0\1")
interrupted("an unknown frame", 0x42, "none", b"x")


@case("4.3", "a block that does not decode")
def _(c):
    c.headers(1, b"\x80")
    c.fails("COMPRESSION")


@case("4.3", "trailers that do not decode")
def _(c):
    stream = c.post("/hold")
    c.headers(stream, b"\x80")
    c.fails("COMPRESSION")


@case("4.3", "the table follows a request that was malformed")
def _(c):
    c.headers(1, block(without(request(), ":path")) + wire.indexed("x-kept", "in the table"))
    c.is_malformed(1)
    c.headers(3, block(request("/request")) + b"\xbe")
    assert b"in the table" in c.answer(3).body


# 5.1 States: idle.


@case("5.1", "idle: DATA")
def _(c):
    c.data(1, b"x")
    c.fails("PROTOCOL", "STREAM_CLOSED")


@case("5.1", "idle: RST_STREAM")
def _(c):
    c.reset(1)
    c.fails("PROTOCOL")


@case("5.1", "idle: WINDOW_UPDATE")
def _(c):
    c.update(1, 1)
    c.fails("PROTOCOL")


@case("5.1", "idle: CONTINUATION")
def _(c):
    c.frame(CONTINUATION, END_HEADERS, 1, block(request()))
    c.fails("PROTOCOL")


@case("5.1", "idle: PRIORITY is right")
def _(c):
    c.frame(PRIORITY, 0, 7, bytes(4) + b"\x10")
    c.answer(c.get())


@case("5.1", "idle, one of the server's: DATA")
def _(c):
    c.data(2, b"x")
    c.fails("PROTOCOL", "STREAM_CLOSED")


# 5.1 States: half-closed (remote).


@case("5.1", "half-closed: DATA")
def _(c):
    stream = c.get("/hold")
    c.data(stream, b"x")
    c.stream_fails(stream, "STREAM_CLOSED")


@case("5.1", "half-closed: HEADERS")
def _(c):
    stream = c.get("/hold")
    c.headers(stream, [("x-late", "1")])
    c.stream_fails(stream, "STREAM_CLOSED")


@case("5.1", "half-closed: CONTINUATION")
def _(c):
    stream = c.get("/hold")
    c.frame(CONTINUATION, END_HEADERS, stream, block([("x-late", "1")]))
    c.fails("PROTOCOL", "STREAM_CLOSED")


@case("5.1", "half-closed: WINDOW_UPDATE and PRIORITY are right", settings=[(WINDOW, 0)])
def _(c):
    stream = c.get("/bytes/10")
    c.update(stream, 4)
    c.frame(PRIORITY, 0, stream, bytes(4) + b"\x10")
    c.update(stream, 6)
    assert len(c.answer(stream).body) == 10


@case("5.1", "half-closed: RST_STREAM is right")
def _(c):
    c.reset(c.get("/hold"))
    c.ping()
    c.answer(c.get())


# 5.1 States: closed.


def ended(c, how):
    """A stream that has ended: by both sides, or by our reset."""
    if how == "in full":
        stream = c.get()
        c.answer(stream)
    else:
        stream = c.post("/hold")
        c.reset(stream)
        c.ping()
    return stream


for how in ("in full", "by reset"):

    @case("5.1", f"closed {how}: DATA")
    def _(c, how=how):
        stream = ended(c, how)
        c.data(stream, b"x")
        its = c.stream(stream)
        its.reset = None
        c.stream_fails(stream, "STREAM_CLOSED")

    @case("5.1", f"closed {how}: HEADERS")
    def _(c, how=how):
        stream = ended(c, how)
        c.headers(stream, request())
        c.fails("STREAM_CLOSED", "PROTOCOL")

    @case("5.1", f"closed {how}: CONTINUATION")
    def _(c, how=how):
        c.frame(CONTINUATION, END_HEADERS, ended(c, how), block([("x-late", "1")]))
        c.fails("STREAM_CLOSED", "PROTOCOL")

    @case("5.1", f"closed {how}: WINDOW_UPDATE, RST_STREAM and PRIORITY are right")
    def _(c, how=how):
        stream = ended(c, how)
        c.update(stream, 1)
        c.reset(stream)
        c.frame(PRIORITY, 0, stream, bytes(4) + b"\x10")
        c.answer(c.get())


@case("5.1", "closed by the server's reset: what was under way is ignored")
def _(c):
    stream = c.post("/hold", ("content-length", "1"))
    more = c.bytes_of(DATA, 0, stream, b"xy") + c.bytes_of(DATA, 0, stream, b"z")
    more += c.bytes_of(HEADERS, 5, stream, block([("x-trailer", "1")]))
    c.send(more + c.bytes_of(WINDOW_UPDATE, 0, stream, b"\0\0\0\1"))
    c.stream_fails(stream, "PROTOCOL")
    c.answer(c.get())


# 5.1.1 Numbers.


@case("5.1.1", "an even number")
def _(c):
    c.headers(2, request())
    c.fails("PROTOCOL")


@case("5.1.1", "a number below one that was used")
def _(c):
    c.headers(5, request())
    c.answer(5)
    c.headers(3, request())
    c.fails("PROTOCOL", "STREAM_CLOSED")


@case("5.1.1", "numbers that are passed over")
def _(c):
    for number in (1, 5, 101, 0x7FFFFFFD):
        c.headers(number, request())
        c.answer(number)


@case("5.1.1", "the last number")
def _(c):
    c.headers(0x7FFFFFFF, request())
    c.answer(0x7FFFFFFF)
    c.ping()


@case("5.1.1", "a number passed over: RST_STREAM")
def _(c):
    c.headers(5, request())
    c.answer(5)
    c.reset(1)
    c.ping()


# 5.1.2 Concurrency.


@case("5.1.2", "one stream more than allowed")
def _(c):
    most = c.settings.get(STREAMS)
    assert most and 100 <= most <= 1000, f"{most} streams"
    held = [c.get("/hold") for _ in range(most)]
    refused = c.get()
    c.stream_fails(refused, "REFUSED", "PROTOCOL")
    c.reset(held[0])
    c.ping()
    c.answer(c.get())
    assert all(c.stream(stream).reset is None for stream in held[1:])


# 5.2 Windows.


@case("5.2", "a stream's window, byte by byte", settings=[(WINDOW, 1)])
def _(c):
    stream = c.get("/bytes/10")
    for n in range(1, 10):
        c.until(lambda: len(c.stream(stream).body) == n)
        c.update(stream, 1)
    assert len(c.answer(stream).body) == 10


@case("5.2", "a window of nothing holds the body, not the head", settings=[(WINDOW, 0)])
def _(c):
    stream = c.get("/bytes/10")
    c.until(lambda: c.stream(stream).status == 200)
    c.ping()
    assert not c.stream(stream).body
    c.update(stream, 100)
    assert len(c.answer(stream).body) == 10


@case("5.2", "an answer without a body needs no window", settings=[(WINDOW, 0)])
def _(c):
    c.answer(c.get("/bytes/0"))
    c.answer(c.get("/bytes/9", method="HEAD"))


@case("5.2", "the connection's window", settings=[(WINDOW, 1 << 20)])
def _(c):
    stream = c.get("/bytes/200000")
    c.until(lambda: len(c.stream(stream).body) == 65535)
    c.ping()
    c.update(0, 100)
    c.until(lambda: len(c.stream(stream).body) == 65635)
    c.update(0, 1 << 20)
    assert len(c.answer(stream).body) == 200000


@case("5.2", "a stream that may not send holds no other up", settings=[(WINDOW, 0)])
def _(c):
    held, other = c.get("/bytes/1000"), c.get("/bytes/2000")
    c.update(other, 2000)
    assert len(c.answer(other).body) == 2000
    assert not c.stream(held).body
    c.update(held, 1000)
    c.answer(held)


@case("5.2", "windows reopen for a long body")
def _(c):
    stream = c.post()
    body = bytes(range(256)) * 8192
    c.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30))
    c.window += 1 << 30
    c.update(stream, 1 << 30)
    c.upload(stream, body)
    assert c.answer(stream).body == body


@case("5.2", "more body than the server's window")
def _(c):
    stream = c.post("/hold")
    block_size = 16384
    # Within the windows, until nothing more is let through, though the server has had its time.
    for _ in range(4096):
        room = min(c.credit[0], c.room(stream), block_size)
        if room > 0:
            c.spend(stream, room)
            c.data(stream, bytes(room))
        elif c.read(wait=1) is None:
            break
    assert min(c.credit[0], c.room(stream)) <= 0, "the windows never close"
    c.data(stream, bytes(block_size))
    c.stream_fails(stream, "FLOW_CONTROL")


# 5.4 Errors.


@case("5.4.1", "GOAWAY names the last stream that was taken")
def _(c):
    c.answer(c.get())
    c.headers(2, request())
    c.fails("PROTOCOL")
    assert c.goaway[1] == 1, c.goaway


@case("5.4.2", "RST_STREAM is not answered with RST_STREAM")
def _(c):
    stream = c.get("/hold")
    c.reset(stream)
    c.ping()
    c.ping()
    assert c.stream(stream).reset is None


@case("5.4.2", "an error of a stream harms no other")
def _(c):
    other = c.post()
    c.headers(c.next, without(request(), ":method"))
    c.is_malformed(c.next)
    c.data(other, b"unharmed", end=True)
    assert c.answer(other).body == b"unharmed"


@case("5.5", "unknown settings")
def _(c):
    acks = c.settings_acks
    c.set((0xFFFF, 0xFFFFFFFF), (0x0, 1), (0x0A0A, 3))
    c.until(lambda: c.settings_acks > acks)
    c.answer(c.get())
