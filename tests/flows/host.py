"""What the hosts around the balancer do in the tests of tests/flows that have network namespaces.

    host.py serve ADDRESS PORT…         TCP and UDP: answers what comes with "PEER-ADDRESS PEER-PORT WORDS"
    host.py ask tcp|udp SOURCE ADDRESS PORT WORDS
                                        says the words from SOURCE and prints the answer, or "failed: WHY"
    host.py hold tcp|udp SOURCE ADDRESS PORT
                                        one connection or flow: says each line that it reads, prints the answer
    host.py load tcp|udp SOURCE ADDRESS PORT
                                        one new connection or flow after the other, until its input ends; prints
                                        how many there were, each failure, and each "PEER-ADDRESS" that was seen
    host.py syn PREFIX ADDRESS PORT N   sends N SYNs from made-up IPv4 addresses PREFIX.x and never answers
"""

import socket
import struct
import sys
import threading

LIMIT = 20.0


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def seen(peer, words):
    return f"{peer[0]} {peer[1]} ".encode() + words


def serve(address, *ports):
    def each(connection, peer):
        try:
            while words := connection.recv(2048):
                connection.sendall(seen(peer, words))
        except OSError:
            pass
        connection.close()

    def tcp(listener):
        while True:
            connection, peer = listener.accept()
            threading.Thread(target=each, args=(connection, peer), daemon=True).start()

    def udp(datagrams):
        while True:
            words, peer = datagrams.recvfrom(2048)
            datagrams.sendto(seen(peer, words), peer)

    threads = []
    for port in map(int, ports):
        listener = socket.create_server((address, port), family=family(address), backlog=128)
        datagrams = socket.socket(family(address), socket.SOCK_DGRAM)
        datagrams.bind((address, port))
        threads += [threading.Thread(target=tcp, args=(listener,), daemon=True),
                    threading.Thread(target=udp, args=(datagrams,), daemon=True)]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    threads[0].join()


def ask(protocol, source, address, port, words):
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    asking = socket.socket(family(address), kind)
    try:
        asking.bind((source, 0))
        asking.settimeout(LIMIT if kind == socket.SOCK_STREAM else 1.0)
        asking.connect((address, int(port)))
        for _ in range(1 if kind == socket.SOCK_STREAM else 3):
            asking.send(words.encode())
            try:
                answer = asking.recv(2048)
            except TimeoutError:
                continue
            print(answer.decode(errors="replace") if answer else "failed: closed")
            return
        print("failed: silence")
    except OSError as error:
        print(f"failed: {type(error).__name__}")


def hold(protocol, source, address, port):
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family(address), kind) as held:
        held.bind((source, 0))
        held.settimeout(LIMIT)
        held.connect((address, int(port)))
        for line in sys.stdin:
            held.sendall(line.encode())
            print(held.recv(2048).decode(), end="", flush=True)


def load(protocol, source, address, port):
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    count, failures, peers = 0, [], set()
    # A pause in between, so that the ports last.
    while not over.wait(0.002):
        count += 1
        try:
            with socket.socket(family(address), kind) as asking:
                asking.bind((source, 0))
                asking.settimeout(LIMIT)
                asking.connect((address, int(port)))
                asking.send(b"hello")
                peers.add(asking.recv(2048).split(b" ")[0].decode() or "closed")
        except OSError as error:
            failures.append(type(error).__name__)
    print(count, "failures:", *failures, "peers:", *sorted(peers))


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def syn(prefix, address, port, n):
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    target = socket.inet_aton(address)
    for number in range(int(n)):
        source = socket.inet_aton(f"{prefix}.{number % 250 + 1}")
        ports = struct.pack("!HH", 1024 + number % 60000, int(port))
        rest = struct.pack("!IIBBH", number, 0, 5 << 4, 0x02, 65535)
        pseudo = source + target + struct.pack("!BBH", 0, socket.IPPROTO_TCP, 20)
        check = checksum(pseudo + ports + rest + b"\0\0\0\0")
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0)
        raw.sendto(ip + source + target + ports + rest + struct.pack("!HH", check, 0), (address, 0))


if __name__ == "__main__":
    {"serve": serve, "ask": ask, "hold": hold, "load": load, "syn": syn}[sys.argv[1]](*sys.argv[2:])
