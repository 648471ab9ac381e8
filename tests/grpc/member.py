"""A gRPC member without generated code: messages are plain bytes.

member.py NAME [--no-health] [--tls CERTIFICATE KEY]

Prints its port, then a line for each call that a client gave up; ends with its input.
"""
import sys
import threading
import time
from concurrent import futures

import grpc

NAME = sys.argv[1]
SERVICE = "weir.test"
produced = 0


def unary(request, context):
    context.set_trailing_metadata((("kept", "yes"), ("member", NAME)))
    return request


def down(request, context):
    for at in range(int(request)):
        yield b"%d:" % at + b"d" * 2000


def flood(request, context):
    """Messages of 64 KiB, each counted when the one before has gone."""
    global produced
    for produced in range(1, int(request) + 1):
        yield b"f" * 65536


def count(request, context):
    return b"%d" % produced


def drip(request, context):
    """One message every 20 ms."""
    for at in range(int(request)):
        yield b"%d" % at
        time.sleep(0.02)


def up(requests, context):
    sizes = [len(request) for request in requests]
    return b"%d %d" % (len(sizes), sum(sizes))


def both(requests, context):
    for request in requests:
        yield request


def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "nothing of that name: ä")


def slow(request, context):
    gone = threading.Event()
    context.add_callback(gone.set)
    gone.wait(30)
    print("given up", flush=True)
    return b""


def check(request, context):
    # HealthCheckRequest { string service = 1 }, HealthCheckResponse { ServingStatus status = 1 }
    service = request[2:].decode()
    if service == "unknown":
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return b"\x08\x02" if service == "asleep" else b"\x08\x01"


def main():
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Flood": grpc.unary_stream_rpc_method_handler(flood),
        "Count": grpc.unary_unary_rpc_method_handler(count),
        "Drip": grpc.unary_stream_rpc_method_handler(drip),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
    }
    health = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server = grpc.server(futures.ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
    handlers = [grpc.method_handlers_generic_handler(SERVICE, methods)]
    if "--no-health" not in sys.argv:
        handlers.append(grpc.method_handlers_generic_handler("grpc.health.v1.Health", health))
    server.add_generic_rpc_handlers(tuple(handlers))
    if "--tls" in sys.argv:
        at = sys.argv.index("--tls")
        certificate, key = (open(path, "rb").read() for path in sys.argv[at + 1:at + 3])
        credentials = grpc.ssl_server_credentials([(key, certificate)])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    # Until whoever started it goes.
    sys.stdin.read()


main()
