"""RFC 7541: header compression."""

import hpack
from suite import case
from wire import (
    CONTINUATION, END_HEADERS, END_STREAM, HEADERS, LIST_SIZE, block, indexed, literal, number, request, text,
)


def coded(bits):
    """A string literal in Huffman's code, of these bits as they are."""
    data = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    return number(len(data), 7, 0x80) + data


def broken(section, title, payload):
    """A block that can't be decoded ends the connection."""

    @case(section, title)
    def _(c):
        c.headers(1, block(request()) + payload)
        c.fails("COMPRESSION")


broken("7541-2.3.3", "index 61 of a table of 61 and its next", b"\xbe")
broken("7541-2.3.3", "an index far beyond the table", b"\xff\xff\x7f")
broken("7541-2.3.3", "the name of an index beyond the table", number(70, 6, 0x40) + text("value"))
broken("7541-4.2", "a table size behind a field", number(0, 5, 0x20))
broken("7541-5.1", "an integer without its end", b"\xff\xff")
broken("7541-5.1", "an integer of too many octets", b"\x7f" + b"\x80" * 10 + b"\x01")
broken("7541-5.1", "an integer beyond 2^64", b"\xff" + b"\xff" * 9 + b"\x7f")
broken("7541-5.2", "a name without its end", b"\x00\x05abc")
broken("7541-5.2", "a value without its end", b"\x00\x01a\x05abc")
broken("7541-5.2", "no value", b"\x00\x01a")
# `a` is 00011; the rest has to be ones, of the end of string's code, and fewer than eight.
broken("7541-5.2", "padding of zeros", b"\x00\x01a" + coded("00011" + "000"))
broken("7541-5.2", "padding of more than seven bits", b"\x00\x01a" + coded("00011" + "1" * 11))
broken("7541-5.2", "the end of string", b"\x00\x01a" + coded("1" * 30 + "11"))
broken("7541-5.2", "the end of string behind a letter", b"\x00\x01a" + coded("00011" + "1" * 30 + "11111"))
broken("7541-6.1", "index 0", b"\x80")


@case("7541-4.2", "a table size above the setting")
def _(c):
    c.headers(1, number(1 << 20, 5, 0x20) + block(request()))
    c.fails("COMPRESSION")


@case("7541-4.2", "a table size above the setting by one")
def _(c):
    size = c.settings.get(1, 4096)
    c.headers(1, number(size + 1, 5, 0x20) + block(request()))
    c.fails("COMPRESSION")


@case("7541-4.2", "two table sizes in front of a block")
def _(c):
    sizes = number(0, 5, 0x20) + number(c.settings.get(1, 4096), 5, 0x20)
    c.headers(1, sizes + block(request()))
    c.answer(1)


@case("7541-4.3", "a table of nothing keeps nothing")
def _(c):
    c.headers(1, block(request()) + indexed("x-kept", "1"))
    c.answer(1)
    c.headers(3, number(0, 5, 0x20) + block(request()) + indexed("x-kept", "1"))
    c.answer(3)
    c.headers(5, block(request()) + b"\xbe")
    c.fails("COMPRESSION")


@case("7541-4.4", "an entry larger than the table empties it")
def _(c):
    c.headers(1, block(request()) + indexed("x-kept", "1") + indexed("x-large", "y" * 5000))
    c.answer(1)
    c.headers(3, block(request()) + b"\xbe")
    c.fails("COMPRESSION")


@case("7541-4.4", "old entries are evicted")
def _(c):
    # Each is 100 bytes: of the default table's 4,096 forty find room.
    fields = b"".join(indexed(f"x-{n:03}", "v" * 63) for n in range(60))
    c.headers(1, block(request("/request")) + fields)
    c.answer(1)
    c.headers(3, block(request("/request")) + number(62 + 39, 7, 0x80))
    assert b"x-020" in c.answer(3).body
    c.headers(5, block(request("/request")) + number(62 + 40, 7, 0x80))
    c.fails("COMPRESSION")


@case("7541-6.1", "entries of both tables, over many requests")
def _(c):
    encoder = hpack.Encoder()
    for n in range(20):
        fields = request("/request", ("x-same", "always"), ("x-other", str(n)), ("user-agent", "a client"))
        c.headers(c.next, encoder.encode(fields, huffman=bool(n % 2)))
        body = c.answer(c.next).body
        assert b"always" in body and f'"{n}"'.encode() in body
        c.next += 2


@case("7541-6.2", "all kinds of literals, by name and by index")
def _(c):
    fields = b"".join(literal("x-kind", f"{first:x}", first, bits) for first, bits in ((0x40, 6), (0, 4), (0x10, 4)))
    fields += number(62, 6, 0x40) + text("by index") + number(58, 4, 0x10) + text("agent")
    c.headers(1, block(request("/request")) + fields)
    body = c.answer(1).body
    assert all(word in body for word in (b'"40"', b'"0"', b'"10"', b"by index", b"agent")), body


@case("7541-5.1", "an integer with useless octets is right or refused")
def _(c):
    c.headers(1, block(request()) + b"\x00\x01a\x7f\x81\x80\x80\x00" + b"v" * 128)
    if c.stream(1).status is None:
        c.until(lambda: c.stream(1).over or c.goaway)
    if c.goaway:
        c.fails("COMPRESSION")


@case("7541-5.2", "an empty string in Huffman's code")
def _(c):
    c.headers(1, block(request()) + b"\x00\x01a\x80")
    c.answer(1)


@case("7541", "an empty block is a request without its fields")
def _(c):
    c.headers(1, b"")
    c.is_malformed(1)


# 10.5.1 Limits of the server's.


@case("10.5.1", "a head beyond the server's limit")
def _(c):
    limit = c.settings.get(LIST_SIZE, 65536)
    whole = block(request("/", *((f"x-{n}", "v" * 1000) for n in range(limit // 1000 + 2))))
    pieces = [whole[at : at + 16384] for at in range(0, len(whole), 16384)]
    c.frame(HEADERS, END_STREAM, 1, pieces[0])
    for piece in pieces[1:-1]:
        c.frame(CONTINUATION, 0, 1, piece)
    c.frame(CONTINUATION, END_HEADERS, 1, pieces[-1])
    its = c.stream(1)
    while not its.over and its.status is None and c.read() is not None:
        pass
    assert its.status in (None, 400, 431), its.status
    if its.status is None and its.reset is None:
        c.fails("CALM", "PROTOCOL")


@case("10.5.1", "too many fields")
def _(c):
    c.headers(1, block(request()) + literal("x", "") * 900)
    its = c.stream(1)
    while not its.over and its.status is None and c.read() is not None:
        pass
    assert its.status in (None, 200, 400, 431), its.status
    if its.status is None and its.reset is None:
        c.fails("CALM", "PROTOCOL")
