"""RFC 9113, 8 and RFC 8441: requests and answers, and what makes them malformed."""

import json

from suite import case
from wire import CONNECT_PROTOCOL, CONTINUATION, END_HEADERS, HEADERS, Failure, block, request, without


def seen(c, stream):
    """The request as the member has seen it."""
    return json.loads(c.answer(stream).body)


def values(request_, name):
    return [value for field, value in request_["fields"] if field.lower() == name]


def refused(c, stream, *statuses):
    """The stream is reset, or answered with one of these."""
    its = c.stream(stream)
    c.until(lambda: its.over or its.status)
    if its.status is not None and its.status not in statuses:
        raise Failure(f"answered with {its.status}")


# 8.1 Exchanges.


@case("8.1", "GET, HEAD, POST and OPTIONS")
def _(c):
    assert c.answer(c.get("/bytes/5")).body == b"xxxxx"
    head = c.answer(c.get("/bytes/5", method="HEAD"))
    assert not head.body and head.fields["content-length"] == "5"
    stream = c.post()
    c.data(stream, b"posted", end=True)
    assert c.answer(stream).body == b"posted"
    c.answer(c.get("/", method="OPTIONS"))


@case("8.1", "a body without its length")
def _(c):
    stream = c.post("/request")
    c.data(stream, b"12345")
    c.data(stream, b"678", end=True)
    assert seen(c, stream)["length"] == 8


@case("8.1", "an empty body, ended behind the head")
def _(c):
    stream = c.post("/request", ("content-length", "0"))
    c.data(stream, end=True)
    assert seen(c, stream)["length"] == 0


@case("8.1", "an interim answer")
def _(c):
    its = c.answer(c.get("/interim"))
    assert [dict(head)[":status"] for head in its.heads] == ["103", "200"]
    assert dict(its.heads[0])["link"] == "</style.css>"


@case("8.1", "100-continue")
def _(c):
    stream = c.post("/echo", ("expect", "100-continue"), ("content-length", "4"))
    c.until(lambda: c.stream(stream).heads, "100")
    c.data(stream, b"body", end=True)
    its = c.answer(stream)
    assert its.body == b"body" and dict(its.heads[0])[":status"] == "100"


@case("8.1", "trailers of a request")
def _(c):
    stream = c.post("/request")
    c.data(stream, b"body")
    c.headers(stream, [("x-check", "sum")])
    answer = seen(c, stream)
    assert answer["length"] == 4 and "x-check: sum" in answer["trailers"], answer


@case("8.1", "trailers of a request, without a body and in two frames")
def _(c):
    stream = c.post("/request")
    trailers = block([("x-check", "sum"), ("x-more", "1")])
    c.frame(HEADERS, 1, stream, trailers[:4])
    c.frame(CONTINUATION, END_HEADERS, stream, trailers[4:])
    assert "x-more: 1" in seen(c, stream)["trailers"]


@case("8.1", "trailers of an answer")
def _(c):
    its = c.answer(c.get("/trailers"))
    assert its.body == b"body" and its.trailers == [("x-check", "done")], its.trailers


@case("8.1", "trailers with a pseudo-header field")
def _(c):
    stream = c.post("/hold")
    c.headers(stream, [("x-check", "sum"), (":path", "/other")])
    c.is_malformed(stream)


@case("8.1", "trailers that do not end the stream")
def _(c):
    stream = c.post("/hold")
    c.headers(stream, [("x-check", "sum")], end=False)
    c.is_malformed(stream)


@case("8.1", "trailers in capital letters")
def _(c):
    stream = c.post("/hold")
    c.headers(stream, [("X-Check", "sum")])
    c.is_malformed(stream)


@case("8.1", "answers come in the order of the members'")
def _(c):
    held, quick = c.get("/hold"), c.get("/")
    c.answer(quick)
    assert not c.stream(held).over


# 8.1.1 Malformed messages: lengths.


def length_mismatch(title, length, pieces, end_with_head=False):
    @case("8.1.1", title)
    def _(c):
        stream = c.get("/hold", ("content-length", length), method="POST", end=end_with_head)
        for at, piece in enumerate(pieces):
            c.data(stream, piece, end=at == len(pieces) - 1)
        c.is_malformed(stream)
        c.answer(c.get())


length_mismatch("less body than its length", "10", [b"12345"])
length_mismatch("less body in two pieces", "10", [b"12345", b"6789"])
length_mismatch("no body, but a length", "10", [b""])
length_mismatch("a head that ends the stream, but a length", "1", [], end_with_head=True)
length_mismatch("more body than its length", "4", [b"12345", b"6"])
length_mismatch("a length that is no number", "4x", [b"1234"])
length_mismatch("a negative length", "-1", [b""])
length_mismatch("a length beyond 2^64", "18446744073709551617", [b"1"])


@case("8.1.1", "two lengths")
def _(c):
    stream = c.post("/hold", ("content-length", "4"), ("content-length", "5"))
    c.data(stream, b"1234", end=True)
    c.is_malformed(stream)


@case("8.1.1", "less body than its length, then trailers")
def _(c):
    stream = c.post("/hold", ("content-length", "5"))
    c.data(stream, b"1234")
    c.headers(stream, [("x-check", "sum")])
    c.is_malformed(stream)


@case("8.1.1", "just its length")
def _(c):
    stream = c.post("/request", ("content-length", "4"))
    c.data(stream, b"12")
    c.data(stream, b"34")
    c.data(stream, end=True)
    answer = seen(c, stream)
    assert answer["length"] == 4 and values(answer, "content-length") == ["4"]


# 8.2 Fields.


def malformed(section, title, fields):
    @case(section, title)
    def _(c):
        stream = c.next
        c.headers(stream, fields)
        c.next += 2
        c.is_malformed(stream)
        c.answer(c.get())


for title, field, value in (
    ("a name in capital letters", "X-Capital", "1"),
    ("a name with one capital letter", "capitaL", "1"),
    ("a name with a space", "x name", "1"),
    ("a name with a colon", "x:name", "1"),
    ("a name with a line's end", "x-name\r\nx-other", "1"),
    ("a name with NUL", "x\0name", "1"),
    ("a name with DEL", "x\x7fname", "1"),
    ("a name beyond ASCII", b"x\xe4name", "1"),
    ("an empty name", "", "1"),
    ("a value with NUL", "x-name", "a\0b"),
    ("a value with CR", "x-name", "a\rb"),
    ("a value with LF", "x-name", "a\nb"),
    ("a value that brings a field", "x-name", "a\r\nx-other: b"),
    ("a value behind a space", "x-name", " a"),
    ("a value before a space", "x-name", "a "),
    ("a value behind a tab", "x-name", "\ta"),
    ("a value before a tab", "x-name", "a\t"),
):
    malformed("8.2.1", title, request("/", (field, value)))


@case("8.2.1", "values with tabs, commas, letters beyond ASCII, and none")
def _(c):
    fields = (("x-a", "a\tb, c"), ("x-b", b"\xc3\xa4"), ("x-c", ""), ("x_d!#$%&'*+-.^`|~9", "token"))
    answer = seen(c, c.get("/request", *fields))
    assert values(answer, "x-a") == ["a\tb, c"] and values(answer, "x-c") == [""], answer
    assert values(answer, "x-b") == [b"\xc3\xa4".decode("latin-1")]


for field, value in (
    ("connection", "close"),
    ("connection", "x-name"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "keep-alive"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "websocket"),
    ("te", "gzip"),
    ("te", "trailers, gzip"),
):
    malformed("8.2.2", f"{field}: {value}", request("/", (field, value)))


@case("8.2.2", "te: trailers is right")
def _(c):
    c.answer(c.get("/", ("te", "trailers")))


@case("8.2.2", "an answer has no fields of the member's connection")
def _(c):
    for path in ("/", "/trailers", "/bytes/3"):
        names = set(c.answer(c.get(path)).fields)
        assert not names & {"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"}, names


@case("8.2.3", "crumbs of a cookie are put together")
def _(c):
    crumbs = [("cookie", "a=1"), ("x-between", "1"), ("cookie", "b=2"), ("cookie", "c=3; d=4")]
    answer = seen(c, c.get("/request", *crumbs))
    assert values(answer, "cookie") == ["a=1; b=2; c=3; d=4"], answer


@case("8.2.3", "one crumb stays as it is")
def _(c):
    assert values(seen(c, c.get("/request", ("cookie", "a=1; b=2"))), "cookie") == ["a=1; b=2"]


# 8.3 Pseudo-header fields.

good = request()
for title, fields in (
    ("a pseudo-header field behind another", good[:3] + [("x-name", "1"), good[3]]),
    ("an unknown pseudo-header field", good + [(":unknown", "1")]),
    (":status in a request", good + [(":status", "200")]),
    ("an empty pseudo-header name", good + [(":", "1")]),
    ("capital letters in a pseudo-header name", [(":Method", "GET")] + good[1:]),
):
    malformed("8.3", title, fields)
for field, value in good:
    malformed("8.3", f"{field} twice", [(field, value)] + good)
    if field != ":authority":
        malformed("8.3.1", f"no {field}", without(good, field))
        malformed("8.3.1", f"an empty {field}", without(good, field) + [(field, "")])
for title, fields in (
    ("a path without a slash", request("path")),
    ("a path with a space", request("/a b")),
    ("an absolute path", request("https://site.example/")),
    ("an asterisk, and not OPTIONS", request("*")),
    ("a method with a space", request(method="GET /")),
    ("neither authority nor host", without(good, ":authority")),
    ("an empty authority", request(authority="")),
    ("an authority with a user", request(authority="user@site.example")),
    ("another host than the authority", request("/", ("host", "other.example"))),
    ("two hosts", without(good, ":authority") + [("host", "site.example"), ("host", "other.example")]),
):
    malformed("8.3.1", title, fields)


@case("8.3.1", "pseudo-header fields in any order")
def _(c):
    c.headers(1, list(reversed(request("/request", method="PUT"))))
    assert seen(c, 1)["method"] == "PUT"


@case("8.3.1", "host in place of the authority")
def _(c):
    c.headers(1, without(request("/request"), ":authority") + [("host", "other.example")])
    assert values(seen(c, 1), "host") == ["other.example"]


@case("8.3.1", "the authority becomes host, once")
def _(c):
    first = seen(c, c.get("/request", authority="site.example:8443"))
    assert values(first, "host") == ["site.example:8443"], first
    second = seen(c, c.get("/request", ("host", "site.example")))
    assert values(second, "host") == ["site.example"], second


@case("8.3.1", "OPTIONS of everything")
def _(c):
    stream = c.get("*", method="OPTIONS")
    its = c.stream(stream)
    c.until(lambda: its.over)
    assert its.status in (200, 400, 404, 405, 501), its.status


@case("8.3.1", "the path keeps its bytes")
def _(c):
    path = "/request?a=b&c=%20%2F//;x=~!$'()*+,"
    assert seen(c, c.get(path))["path"] == path


@case("8.3.1", "another scheme does no harm")
def _(c):
    stream = c.next
    c.headers(stream, [(":scheme", "http")] + without(good, ":scheme"))
    refused(c, stream, 200, 400, 421)
    c.ping()


@case("8.3.2", "an answer has one status, in front")
def _(c):
    head = c.answer(c.get()).heads[-1]
    assert head[0] == (":status", "200") and sum(name.startswith(":") for name, _ in head) == 1


@case("8.4", "nothing is pushed")
def _(c):
    for _ in range(3):
        c.answer(c.get())
    c.ping()
    assert all(stream % 2 for stream in c.streams)


# 8.5 CONNECT, and 8441.


@case("8.5", "CONNECT is refused, and harms nothing")
def _(c):
    stream = c.next
    c.next += 2
    c.headers(stream, [(":method", "CONNECT"), (":authority", "site.example:443")], end=False)
    refused(c, stream, 400, 403, 404, 405, 501)
    c.answer(c.get())


malformed("8.5", "CONNECT with a path", [(":method", "CONNECT"), (":authority", "a.example:1"), (":path", "/")])
malformed("8.5", "CONNECT with a scheme", [(":method", "CONNECT"), (":authority", "a.example:1"), (":scheme", "https")])
malformed("8.5", "CONNECT without an authority", [(":method", "CONNECT")])


def protocol(value, *fields, method="CONNECT"):
    return request("/", *fields, method=method)[:4] + [(":protocol", value)] + list(fields)


@case("8441-3", "extended CONNECT is told of")
def _(c):
    assert c.settings.get(CONNECT_PROTOCOL) == 1


malformed("8441-4", ":protocol, and not CONNECT", protocol("websocket", method="GET"))
malformed("8441-4", "extended CONNECT without a path", without(protocol("websocket"), ":path"))
malformed("8441-4", "extended CONNECT without a scheme", without(protocol("websocket"), ":scheme"))
malformed("8441-4", ":protocol twice", [(":protocol", "websocket")] + protocol("websocket"))


@case("8441-4", "a protocol that nobody knows")
def _(c):
    stream = c.next
    c.next += 2
    c.headers(stream, protocol("x-unknown"), end=False)
    refused(c, stream, 400, 404, 405, 501)
    c.answer(c.get())


@case("8441-5", "a member that does not switch")
def _(c):
    stream = c.next
    c.next += 2
    c.headers(stream, protocol("websocket", ("sec-websocket-version", "13")), end=False)
    its = c.stream(stream)
    c.until(lambda: its.over or its.status, "an answer")
    # The member's 200 is not one to CONNECT, which it would be if it were passed on.
    assert its.status is None or its.status >= 400, its.status
    c.answer(c.get())
