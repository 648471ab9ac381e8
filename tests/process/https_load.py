"""Clients of an HTTPS server, until stdin ends: some with one connection for all of their requests, some with one
each. Arguments: address, port, CA file, name. Prints what came of it as JSON."""

import json
import socket
import ssl
import sys
import threading

address, port, authority, name = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
over = threading.Event()
lock = threading.Lock()
found = {"requests": 0, "connections": 0, "serials": [], "failures": []}


def connect(context):
    stream = socket.create_connection((address, port), timeout=20)
    secure = context.wrap_socket(stream, server_hostname=name)
    serial = secure.getpeercert()["serialNumber"]
    with lock:
        found["connections"] += 1
        if serial not in found["serials"]:
            found["serials"].append(serial)
    return secure


def request(secure, headers):
    secure.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\n{headers}\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"member"):
        piece = secure.recv(65536)
        if not piece:
            raise OSError(f"closed after {answer!r}")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise OSError(f"answered {answer!r}")
    with lock:
        found["requests"] += 1


def client(keeps):
    context = ssl.create_default_context(cafile=authority)
    try:
        kept = connect(context) if keeps else None
        while not over.is_set():
            if keeps:
                request(kept, "")
                over.wait(0.01)
            else:
                with connect(context) as secure:
                    request(secure, "Connection: close\r\n")
    except Exception as error:  # whatever it is, the test has to hear of it
        with lock:
            found["failures"].append(repr(error))


threads = [threading.Thread(target=client, args=(at % 2 == 0,)) for at in range(6)]
for thread in threads:
    thread.start()
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
print(json.dumps(found))
