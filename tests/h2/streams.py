"""What happens to one stream, or to one connection, and to nothing beside it.

streams.py PORT CASE   runs a function of this file; prints "all well"
"""

import sys

import wire
from wire import WINDOW


def cut(c):
    """The member's answer breaks off: the stream is reset, others go on."""
    broken, good = c.get("/cut"), c.get("/whole")
    c.stream_fails(broken, "INTERNAL")
    assert c.stream(broken).status == 200 and not c.stream(broken).ended
    assert c.answer(good).body == b"whole"


def given_up(c):
    """The client resets one stream of two; the other one is answered."""
    gone, good = c.get("/hold"), c.get("/bytes/10")
    c.answer(good)
    c.reset(gone)
    c.answer(c.get("/bytes/10"))


def left(c):
    """The client closes its connection with a request under way."""
    c.get("/hold")
    c.ping()


def slow_body(c):
    """A gap in one request's body: 408; another one's body may come meanwhile."""
    slow, quick = c.post("/echo"), c.post("/echo")
    c.data(slow, b"begun")
    while not c.stream(slow).over:
        c.data(quick, b"more" * 64)
        c.read(wait=0.2)
    assert c.stream(slow).status == 408, c.told()
    c.data(quick, b"done", end=True)
    assert c.answer(quick).body.endswith(b"done")


def shut_window(c):
    """A stream whose window stays shut is given up; others are served."""
    c.set((WINDOW, 1000))
    shut = c.get("/bytes/100000")
    while c.stream(shut).reset is None:
        open_ = c.get("/bytes/10")
        c.answer(open_)
        c.read(wait=0.2)
    assert len(c.stream(shut).body) == 1000 and not c.stream(shut).ended
    c.answer(c.get("/bytes/10"))


def finished_and_shut(c):
    """The same when the member has said all, and the rest waits for the client alone."""
    c.set((WINDOW, 1000))
    shut = c.get("/bytes/2000")
    c.until(lambda: c.stream(shut).reset is not None, "the reset")
    assert len(c.stream(shut).body) == 1000
    c.answer(c.get("/bytes/10"))


def idle(c):
    """A connection without streams is told to end, and ends."""
    c.answer(c.get("/bytes/10"))
    while c.read() is not None:
        pass
    assert c.closed and c.goaway == (0, 1), c.goaway


def silent(c):
    """So is one that never asked."""
    while c.read() is not None:
        pass
    assert c.closed and c.goaway == (0, 0), c.goaway


def many(c):
    """All streams at once, several times over, each with its own answer."""
    for _ in range(3):
        streams = {c.get(f"/bytes/{size}"): size for size in range(1, 101)}
        for stream, size in streams.items():
            assert len(c.answer(stream).body) == size
        c.update(0, 10000)


def main():
    connection = wire.Connection(("127.0.0.1", int(sys.argv[1])))
    globals()[sys.argv[2]](connection)
    connection.close()
    print("all well")


main()
