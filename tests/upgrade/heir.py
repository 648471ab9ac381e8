"""New programs of an upgrade that go wrong in the last moment; they are handed everything on standard input.

heir.py fails              says that it could serve, takes all there is, and is gone
heir.py hangs FOLDER       does the same, and then says nothing more; makes the file `told` in FOLDER, and `left` when the
                           serving process has closed the channel
heir.py asks               begins to take bindings, and meanwhile asks the service by a datagram
heir.py breaks PROGRAM …   starts PROGRAM with what follows, and passes on what the two processes say; but the last of the
                           listening sockets that it hands on is none
heir.py leaves PROGRAM …   does the same with all sockets; but that PROGRAM serves it does not pass on: it has it drain
"""

import array
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading

# Descriptors that one message carries at most.
MOST = 253
PR_SET_PDEATHSIG = 1
# An answer takes no longer on a working machine; the serving process waits a little longer for us.
LIMIT = 3


def exactly(peer, n):
    data = bytearray()
    while len(data) < n:
        part = peer.recv(n - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def receive(peer):
    """The text of a message, and its descriptors."""
    length, count = struct.unpack("<II", exactly(peer, 8))
    text, rights = exactly(peer, length), array.array("i")
    while len(rights) < count:
        _, control, _, _ = peer.recvmsg(1, socket.CMSG_SPACE(MOST * rights.itemsize))
        for _, _, data in control:
            rights.frombytes(data)
    return text, list(rights)


def send(peer, text, rights=()):
    peer.sendall(struct.pack("<II", len(text), len(rights)) + text)
    for at in range(0, len(rights), MOST):
        some = array.array("i", rights[at : at + MOST])
        peer.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, some)])


def prepare(peer):
    """Says that it could serve, and go on with all flows; the addresses of UDP listeners."""
    manifest = json.loads(receive(peer)[0])
    doors = [door for door in manifest["doors"] if door["door"]["udp"]]
    flows_of = [[door["door"]["address"], door["free_port_of"]] for door in doors]
    send(peer, json.dumps({"kind": "prepared", "flows_of": flows_of}).encode())
    return [address for address, _ in flows_of]


def take_all(peer):
    """Takes what is handed over last; how many flows there were."""
    flows, last = 0, {}
    while last.get("kind") != "go":
        text, rights = receive(peer)
        last = json.loads(text)
        flows += len(last["flows"]) if last["kind"] == "flows" else 0
        for descriptor in rights:
            os.close(descriptor)
    return flows


def fails(peer):
    prepare(peer)
    print(take_all(peer), "flows were handed over", file=sys.stderr)


def hangs(peer, folder):
    prepare(peer)
    take_all(peer)
    open(os.path.join(folder, "told"), "w").close()
    peer.recv(1)
    open(os.path.join(folder, "left"), "w").close()


def asks(peer):
    address = prepare(peer)[0]
    # Of what comes first no more than the length, so that the rest of it has yet to be sent.
    length, _ = struct.unpack("<II", exactly(peer, 8))
    kind = json.loads(exactly(peer, 18) + b"}")["kind"]
    host, port = address.rsplit(":", 1)
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(LIMIT)
    client.sendto(b"anybody there", (host, int(port)))
    try:
        answer = client.recv(2048)
    except TimeoutError:
        answer = b"nothing"
    print(f"while {length} bytes of {kind} came, {answer.decode()} was the answer", file=sys.stderr)


def pass_on(source, target, change):
    try:
        while True:
            text, rights = receive(source)
            send(target, text, change(text, rights))
            for descriptor in rights:
                os.close(descriptor)
    except (OSError, EOFError):
        # Who reads or writes beyond that is told by the end.
        for end in source, target:
            end.close()


def as_it_is(_, rights):
    return rights


def begin(command):
    """Starts a program that is to take over, and our end of its channel."""
    here, there = socket.socketpair()
    # It goes with us, whatever becomes of a test.
    with_us = lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    child = subprocess.Popen(command, stdin=there, preexec_fn=with_us)
    there.close()
    return child, here


def stand_between(peer, here, child, there=as_it_is, back=as_it_is):
    """Passes on what both say, until the child ends."""
    threading.Thread(target=pass_on, args=(peer, here, there), daemon=True).start()
    threading.Thread(target=pass_on, args=(here, peer, back), daemon=True).start()
    sys.exit(child.wait())


def breaks(peer, *command):
    child, here = begin(command)

    def broken(text, rights):
        if json.loads(text)["kind"] == "manifest":
            rights[-1] = os.open("/dev/null", os.O_RDWR)
        return rights

    stand_between(peer, here, child, there=broken)


def leaves(peer, *command):
    child, here = begin(command)

    def unheard(text, rights):
        if json.loads(text)["kind"] == "serving":
            child.terminate()
            child.wait()
            raise EOFError
        return rights

    stand_between(peer, here, child, back=unheard)


programs = {"fails": fails, "hangs": hangs, "asks": asks, "breaks": breaks, "leaves": leaves}
programs[sys.argv[1]](socket.socket(fileno=0), *sys.argv[2:])
sys.exit(3)
