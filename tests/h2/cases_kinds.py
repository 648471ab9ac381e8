"""RFC 9113, 6 and 7: each kind of frame, and the codes of errors."""

import struct

from suite import case
from wire import (
    ACK, CONTINUATION, DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, FRAME_SIZE, GOAWAY, HEADERS, LIST_SIZE, PADDED, PING,
    PRIORITIZED, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, STREAMS, TABLE_SIZE, WINDOW, WINDOW_UPDATE, block,
    request,
)


def of_wrong_stream(section, title, kind, stream, payload):
    @case(section, title)
    def _(c):
        c.post("/hold")
        c.frame(kind, END_HEADERS, stream, payload)
        c.fails("PROTOCOL")


of_wrong_stream("6.1", "DATA of the connection", DATA, 0, b"x")
of_wrong_stream("6.2", "HEADERS of the connection", HEADERS, 0, block(request()))
of_wrong_stream("6.3", "PRIORITY of the connection", PRIORITY, 0, bytes(4) + b"\x10")
of_wrong_stream("6.4", "RST_STREAM of the connection", RST_STREAM, 0, bytes(4))
of_wrong_stream("6.5", "SETTINGS of a stream", SETTINGS, 1, b"")
of_wrong_stream("6.6", "PUSH_PROMISE", PUSH_PROMISE, 1, b"\0\0\0\2" + block(request()))
of_wrong_stream("6.7", "PING of a stream", PING, 1, bytes(8))
of_wrong_stream("6.8", "GOAWAY of a stream", GOAWAY, 1, bytes(8))
of_wrong_stream("6.10", "CONTINUATION of the connection", CONTINUATION, 0, b"")
of_wrong_stream("6.10", "CONTINUATION of nothing", CONTINUATION, 1, b"")


# 6.1 DATA.


@case("6.1", "padding")
def _(c):
    stream = c.post()
    c.data(stream, b"\x05hello" + bytes(5), flags=PADDED)
    c.data(stream, b"\x00", flags=PADDED)
    c.data(stream, b"\xff" + bytes(255), flags=PADDED)
    c.data(stream, b"\x01!" + bytes(1), flags=PADDED, end=True)
    assert c.answer(stream).body == b"hello!"


@case("6.1", "padding as long as its frame")
def _(c):
    stream = c.post("/hold")
    c.data(stream, b"\x04" + bytes(3), flags=PADDED)
    c.fails("PROTOCOL")


@case("6.1", "padding without its length")
def _(c):
    stream = c.post("/hold")
    c.data(stream, b"", flags=PADDED)
    c.fails("FRAME_SIZE", "PROTOCOL")


@case("6.1", "padding counts for the windows, which reopen all the same")
def _(c):
    stream = c.post()
    for _ in range(4000):
        c.until(lambda: min(c.credit[0], c.room(stream)) >= 256)
        c.spend(stream, 256)
        c.data(stream, b"\xfe." + bytes(254), flags=PADDED)
    c.data(stream, end=True)
    assert c.answer(stream).body == b"." * 4000


@case("6.1", "an end without bytes")
def _(c):
    stream = c.post()
    c.data(stream, b"all")
    c.data(stream)
    c.data(stream, end=True)
    assert c.answer(stream).body == b"all"


# 6.2 HEADERS.


@case("6.2", "padding and priority")
def _(c):
    fields = block(request())
    for flags, payload in (
        (PADDED, b"\x03" + fields + bytes(3)),
        (PADDED, b"\x00" + fields),
        (PRIORITIZED, bytes(4) + b"\xff" + fields),
        (PRIORITIZED, b"\x80\0\0\x63\x00" + fields),
        (PADDED | PRIORITIZED, b"\x09" + bytes(4) + b"\x10" + fields + bytes(9)),
    ):
        c.headers(c.next, payload, flags=flags)
        c.answer(c.next)
        c.next += 2


@case("6.2", "padding longer than its frame")
def _(c):
    c.headers(1, b"\xff" + block(request()), flags=PADDED)
    c.fails("PROTOCOL")


@case("6.2", "padding that leaves no room for the priority")
def _(c):
    c.headers(1, b"\x04" + bytes(5), flags=PADDED | PRIORITIZED)
    c.fails("PROTOCOL", "FRAME_SIZE")


@case("6.2", "priority without its five bytes")
def _(c):
    c.headers(1, b"\x00\x00", flags=PRIORITIZED)
    c.fails("FRAME_SIZE", "PROTOCOL")


@case("6.2", "END_STREAM, and the block goes on")
def _(c):
    fields = block(request())
    c.frame(HEADERS, END_STREAM, 1, fields[:5])
    c.frame(CONTINUATION, END_HEADERS, 1, fields[5:])
    c.answer(1)


# 6.3 PRIORITY: it means nothing any more, and does no harm.


@case("6.3", "PRIORITY in every state")
def _(c):
    before = c.post()
    for stream in (before, 9, 2, 0x7FFFFFFF):
        c.frame(PRIORITY, 0, stream, struct.pack(">IB", 1 << 31 | 3, 255))
    c.data(before, b"x", end=True)
    c.answer(before)
    c.frame(PRIORITY, 0, before, bytes(4) + b"\x10")
    c.answer(c.get())


@case("6.3", "a stream that depends on itself")
def _(c):
    stream = c.get("/hold")
    c.frame(PRIORITY, 0, stream, struct.pack(">IB", stream, 1))
    c.frame(PING, 0, 0, b"afterall")
    its = c.stream(stream)
    # An error of the stream in RFC 7540, nothing in RFC 9113.
    c.until(lambda: its.over or c.goaway or b"afterall" in c.pongs)
    if its.reset is not None or c.goaway:
        c.stream_fails(stream, "PROTOCOL")


# 6.4 RST_STREAM.


@case("6.4", "RST_STREAM twice, with unknown codes")
def _(c):
    stream = c.get("/hold")
    c.reset(stream, 0xFFFFFFFF)
    c.reset(stream, 0x1234)
    c.answer(c.get())


@case("6.4", "RST_STREAM within the body")
def _(c):
    stream = c.post("/hold")
    c.data(stream, b"some")
    c.reset(stream, 0)
    c.answer(c.get())


# 6.5 SETTINGS.


def wrong_setting(title, code, *pairs):
    @case("6.5.2", title)
    def _(c):
        c.set(*pairs)
        c.fails(code)


wrong_setting("ENABLE_PUSH of 2", "PROTOCOL", (ENABLE_PUSH, 2))
wrong_setting("INITIAL_WINDOW_SIZE of 2^31", "FLOW_CONTROL", (WINDOW, 1 << 31))
wrong_setting("MAX_FRAME_SIZE of 16,383", "PROTOCOL", (FRAME_SIZE, 16383))
wrong_setting("MAX_FRAME_SIZE of 2^24", "PROTOCOL", (FRAME_SIZE, 1 << 24))
wrong_setting("a wrong one behind right ones", "PROTOCOL", (STREAMS, 1), (WINDOW, 5), (FRAME_SIZE, 1))


@case("6.5", "an acknowledgement with a payload")
def _(c):
    c.frame(SETTINGS, ACK, 0, bytes(6))
    c.fails("FRAME_SIZE")


@case("6.5", "an acknowledgement that nobody waits for")
def _(c):
    c.frame(SETTINGS, ACK, 0)
    # A server may mind it.
    c.frame(PING, 0, 0, b"afterall")
    c.until(lambda: c.goaway or b"afterall" in c.pongs)


@case("6.5", "the server's settings are in their ranges")
def _(c):
    assert c.settings.get(ENABLE_PUSH, 0) == 0
    assert c.settings.get(WINDOW, 65535) < 1 << 31
    assert 16384 <= c.settings.get(FRAME_SIZE, 16384) < 1 << 24
    assert c.settings.get(8, 0) in (0, 1)


@case("6.5", "each of three is acknowledged")
def _(c):
    acks = c.settings_acks
    c.set((STREAMS, 0), (LIST_SIZE, 100))
    c.set()
    c.set((WINDOW, 70000), (WINDOW, 80000), (FRAME_SIZE, 20000), (FRAME_SIZE, 16384))
    c.until(lambda: c.settings_acks == acks + 3)
    assert len(c.answer(c.get("/bytes/1000")).body) == 1000


@case("6.5.2", "the values of limits", settings=[(WINDOW, 0x7FFFFFFF), (FRAME_SIZE, 0xFFFFFF), (ENABLE_PUSH, 0)])
def _(c):
    c.frame_size = 0xFFFFFF
    assert len(c.answer(c.get("/bytes/60000")).body) == 60000


@case("6.5.2", "push may be enabled, and nothing is pushed", settings=[(ENABLE_PUSH, 1)])
def _(c):
    c.answer(c.get())


@case("6.5.2", "a header table of nothing", settings=[(TABLE_SIZE, 0)])
def _(c):
    # Were the server's blocks to keep entries, hpack would fail at them.
    c.decoder.max_allowed_table_size = 0
    for _ in range(4):
        c.answer(c.get("/request"))


@case("6.5.2", "a header table that shrinks and grows")
def _(c):
    for size in (4096, 100, 0, 4096, 65536, 60):
        acks = c.settings_acks
        c.set((TABLE_SIZE, size))
        c.until(lambda: c.settings_acks > acks)
        c.decoder.max_allowed_table_size = size
        for _ in range(3):
            c.answer(c.get("/request"))


# 6.7 PING.


@case("6.7", "PING is answered with its bytes, in their order")
def _(c):
    for n in range(5):
        c.frame(PING, 0, 0, struct.pack(">Q", n))
    c.until(lambda: len(c.pongs) == 5)
    assert c.pongs == [struct.pack(">Q", n) for n in range(5)]


@case("6.7", "an answer is not answered")
def _(c):
    c.frame(PING, ACK, 0, b"unasked.")
    c.ping()
    assert b"unasked." not in c.pongs


@case("6.7", "PING within a body")
def _(c):
    stream = c.post()
    c.data(stream, b"one ")
    c.ping()
    c.data(stream, b"two", end=True)
    assert c.answer(stream).body == b"one two"


# 6.8 GOAWAY.


@case("6.8", "a client that goes away gets its answers")
def _(c):
    stream = c.post()
    c.data(stream, b"half")
    c.frame(GOAWAY, 0, 0, bytes(8) + b"debug data")
    c.data(stream, b"whole", end=True)
    assert c.answer(stream).body == b"halfwhole"


@case("6.8", "GOAWAY with an unknown code")
def _(c):
    stream = c.get()
    c.frame(GOAWAY, 0, 0, struct.pack(">II", 0xFFFFFFFF, 0xFFFF))
    c.answer(stream)


# 6.9 WINDOW_UPDATE.


@case("6.9", "WINDOW_UPDATE of nothing, for a stream")
def _(c):
    stream = c.get("/hold")
    c.update(stream, 0)
    c.stream_fails(stream, "PROTOCOL")


@case("6.9", "WINDOW_UPDATE of nothing, for the connection")
def _(c):
    c.update(0, 0)
    c.fails("PROTOCOL")


@case("6.9", "the reserved bit of an increment", settings=[(WINDOW, 0)])
def _(c):
    stream = c.get("/bytes/10")
    c.stream(stream).window += 10
    c.frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", 1 << 31 | 10))
    c.answer(stream)


@case("6.9.1", "a stream's window of 2^31-1, and one more")
def _(c):
    stream = c.get("/hold")
    c.update(stream, 0x7FFFFFFF - 65535)
    c.ping()
    c.update(stream, 1)
    c.stream_fails(stream, "FLOW_CONTROL")


@case("6.9.1", "the connection's window of 2^31-1, and one more")
def _(c):
    c.update(0, 0x7FFFFFFF - c.window)
    c.ping()
    c.update(0, 1)
    c.fails("FLOW_CONTROL")


@case("6.9.2", "a window that grows in the middle of a stream", settings=[(WINDOW, 10)])
def _(c):
    stream = c.get("/bytes/1000")
    c.until(lambda: len(c.stream(stream).body) == 10)
    c.set((WINDOW, 30))
    c.until(lambda: len(c.stream(stream).body) == 30)
    c.set((WINDOW, 65535))
    assert len(c.answer(stream).body) == 1000


@case("6.9.2", "a window below nothing", settings=[(WINDOW, 1000)])
def _(c):
    stream = c.get("/bytes/3000")
    its = c.stream(stream)
    c.until(lambda: len(its.body) == 1000)
    acks = c.settings_acks
    c.set((WINDOW, 200))
    c.until(lambda: c.settings_acks > acks)
    assert its.window == -800
    c.update(stream, 800)
    c.ping()
    c.ping()
    assert len(its.body) == 1000, "body beyond the window"
    c.update(stream, 5)
    c.until(lambda: len(its.body) == 1005)
    c.set((WINDOW, 4000))
    assert len(c.answer(stream).body) == 3000


@case("6.9.2", "a setting that takes a window beyond 2^31-1")
def _(c):
    stream = c.get("/hold")
    c.update(stream, 0x7FFFFFFF - 65535)
    c.ping()
    c.set((WINDOW, 65536))
    c.fails("FLOW_CONTROL")


@case("6.9.2", "the connection's window is none of the settings'", settings=[(WINDOW, 1 << 20)])
def _(c):
    stream = c.get("/bytes/100000")
    c.until(lambda: len(c.stream(stream).body) == 65535)
    c.set((WINDOW, 1 << 21))
    c.ping()
    assert len(c.stream(stream).body) == 65535
    c.update(0, 1 << 20)
    c.answer(stream)
