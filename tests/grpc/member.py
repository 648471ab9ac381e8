"""A gRPC member without generated code: messages are plain bytes.

member.py [CERTIFICATE KEY]   prints its port, then a line for each call that a client gave up
"""
import sys
import threading
from concurrent import futures

import grpc

NAME = "weir.test"


def unary(request, context):
    context.send_initial_metadata((("seen-host", dict(context.invocation_metadata()).get("x-real-ip", "")),))
    context.set_trailing_metadata((("kept", "yes"),))
    return request


def down(request, context):
    for at in range(int(request)):
        yield b"%d:" % at + b"d" * 2000


def up(requests, context):
    sizes = [len(request) for request in requests]
    return b"%d %d" % (len(sizes), sum(sizes))


def both(requests, context):
    for request in requests:
        yield request


def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "nothing of that name")


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
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
    }
    health = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler(NAME, methods),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", health),
    ))
    if len(sys.argv) == 3:
        certificate, key = (open(path, "rb").read() for path in sys.argv[1:])
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    # Until whoever started it goes.
    sys.stdin.read()


main()
