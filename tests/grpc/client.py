"""Calls through a balancer: every kind of call, errors, deadlines. Prints a line for each that went as it should.

client.py ADDRESS CA NAME     over TLS, for NAME
client.py ADDRESS             in clear text
"""
import sys
import threading

import grpc

LIMIT = 20


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

    for method, code in (("Fail", grpc.StatusCode.NOT_FOUND), ("Nothing", grpc.StatusCode.UNIMPLEMENTED)):
        try:
            channel.unary_unary(f"/weir.test/{method}")(b"", timeout=LIMIT)
            raise AssertionError("it went well")
        except grpc.RpcError as error:
            assert error.code() == code, error
    yield "errors"

    slow = channel.unary_unary("/weir.test/Slow")
    try:
        slow(b"", timeout=1)
        raise AssertionError("it went well")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
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


def main():
    address = sys.argv[1]
    if len(sys.argv) == 4:
        ca = open(sys.argv[2], "rb").read()
        options = [("grpc.ssl_target_name_override", sys.argv[3]), ("grpc.enable_http_proxy", 0)]
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca), options)
    else:
        channel = grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)])
    with channel:
        for what in calls(channel):
            print(what, flush=True)


main()
