"""Calls through a balancer, inside TLS, for app.example.

client.py ADDRESS CA calls          every kind of call, errors, deadlines; a line for each that went as it should
client.py ADDRESS CA spread N       N calls; a line for each member with how many it answered
client.py ADDRESS CA flood N        N messages of 64 KiB, of which none is read at first; what the member had sent then
client.py ADDRESS CA drip N CALLS   CALLS streams of N messages, one every 20 ms; "begun" when all have begun, then a
                                    line for each: code, details, messages
client.py ADDRESS CA ask            one call; its code and details
"""
import collections
import sys
import threading
import time

import grpc

LIMIT = 30


def calls(channel):
    unary = channel.unary_unary("/weir.test/Unary")
    for size in (0, 1, 1000, 100_000, 1_000_000):
        message = bytes(at * 31 % 251 for at in range(1000)) * (size // 1000) + b"x" * (size % 1000)
        answer, call = unary.with_call(message, timeout=LIMIT)
        assert answer == message, size
        assert ("kept", "yes") in [tuple(one) for one in call.trailing_metadata()], "no trailer"
    yield "unary"

    down = channel.unary_stream("/weir.test/Down")
    got = list(down(b"500", timeout=LIMIT))
    assert [int(one.split(b":")[0]) for one in got] == list(range(500))
    assert all(len(one) > 2000 for one in got)
    yield "server streaming"

    up = channel.stream_unary("/weir.test/Up")
    assert up((b"u" * 5000 for _ in range(300)), timeout=LIMIT) == b"300 1500000"
    yield "client streaming"

    # Each message goes only when the one before has come back.
    both = channel.stream_stream("/weir.test/Both")
    turn = threading.Semaphore(1)

    def talk():
        for at in range(200):
            turn.acquire()
            yield b"%d" % at

    heard = 0
    for at, answer in enumerate(both(talk(), timeout=LIMIT)):
        assert answer == b"%d" % at
        heard += 1
        turn.release()
    assert heard == 200
    yield "both ways"

    # 16 MiB each way at once.
    sizes = [len(answer) for answer in both((b"b" * 65536 for _ in range(256)), timeout=LIMIT)]
    assert sizes == [65536] * 256
    yield "much both ways"

    wanted = (("Fail", grpc.StatusCode.NOT_FOUND, "nothing of that name: ä"), ("Nothing", grpc.StatusCode.UNIMPLEMENTED, None))
    for method, code, details in wanted:
        error = failed(channel.unary_unary(f"/weir.test/{method}"), LIMIT)
        assert error.code() == code and details in (None, error.details()), error
    yield "errors"

    slow = channel.unary_unary("/weir.test/Slow")
    assert failed(slow, 1).code() == grpc.StatusCode.DEADLINE_EXCEEDED
    call = slow.future(b"", timeout=LIMIT)
    threading.Timer(0.5, call.cancel).start()
    try:
        call.result()
        raise AssertionError("it went well")
    except grpc.FutureCancelledError:
        pass
    yield "given up"

    # Many at once, on one connection.
    waiting = [unary.future(b"%d" % at, timeout=LIMIT) for at in range(300)]
    assert [one.result() for one in waiting] == [b"%d" % at for at in range(300)]
    yield "many at once"


def failed(method, limit):
    try:
        method(b"", timeout=limit)
        raise AssertionError("it went well")
    except grpc.RpcError as error:
        return error


def spread(channel, number):
    unary = channel.unary_unary("/weir.test/Unary")
    answered = collections.Counter()
    waiting = collections.deque()
    for at in range(int(number)):
        waiting.append(unary.future(b"%d" % at, timeout=LIMIT))
        if len(waiting) == 50:
            one = waiting.popleft()
            one.result()
            answered[dict(one.trailing_metadata())["member"]] += 1
    for one in waiting:
        one.result()
        answered[dict(one.trailing_metadata())["member"]] += 1
    for member in sorted(answered):
        yield f"{member} {answered[member]}"


def flood(channel, number):
    count = channel.unary_unary("/weir.test/Count")
    messages = channel.unary_stream("/weir.test/Flood")(number.encode(), timeout=LIMIT)
    next(messages)
    before = -1
    while (now := int(count(b"", timeout=LIMIT))) != before:
        before = now
        time.sleep(0.5)
    yield f"{before}"
    got = sum(len(message) for message in messages)
    assert got == (int(number) - 1) * 65536, got
    yield "whole"


def drip(channel, number, streams):
    method = channel.unary_stream("/weir.test/Drip")
    open_calls = [method(number.encode(), timeout=LIMIT) for _ in range(int(streams))]
    heard = [[next(call)] for call in open_calls]
    yield "begun"
    for call, messages in zip(open_calls, heard):
        try:
            messages.extend(call)
        except grpc.RpcError:
            pass
        assert messages == [b"%d" % at for at in range(len(messages))]
        yield f"{call.code().name} {call.details()!r} {len(messages)}"


def ask(channel):
    call = channel.unary_unary("/weir.test/Unary").future(b"", timeout=LIMIT)
    yield f"{call.code().name} {call.details()!r}"


def main():
    address, ca, command = sys.argv[1:4]
    options = [
        ("grpc.ssl_target_name_override", "app.example"),
        ("grpc.enable_http_proxy", 0),
        # What came of a call is for the test to see, not for the library to mend.
        ("grpc.enable_retries", 0),
    ]
    credentials = grpc.ssl_channel_credentials(open(ca, "rb").read())
    with grpc.secure_channel(address, credentials, options) as channel:
        for what in globals()[command](channel, *sys.argv[4:]):
            print(what, flush=True)


main()
