"""What connections cost while they are open: holds them, and reads the proxy's resident memory.

A holder is a context manager with `open(count)` and `lost()`; jobs.py chooses one.
"""

import http.client
import socket
import subprocess
import time

from side.procs import Failure, use_all_descriptors
from side.results import read_result

QUIET_SECONDS = 5.0  # how long memory may take to settle
REACH_SECONDS = 20.0  # how long requests may take to reach the origin
FIRST = 8  # connections that pay for what exists once per process; the same in the C programs
ECHO = b"x" * 128  # what comes back ends an HTTP answer as well


def sample(holder, proxy, count):
    """Resident growth per connection, opened one after the other."""
    with holder as held:
        held.open(FIRST)
        before = settled_bytes(proxy)
        held.open(count)
        after = settled_bytes(proxy)
        descriptors = proxy.descriptors()
        lost = held.lost()
    return {"bytes_per_connection": (after - before) / count, "connections": count,
            "resident_before": before, "resident_after": after, "descriptors": descriptors, "errors": lost}


class Connections:
    """Connections of our own, closed at the end."""

    def __init__(self, port):
        use_all_descriptors()
        self.port, self.connections = port, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for connection in self.connections:
            connection.close()


class Opened(Connections):
    """Idle ones."""

    def __init__(self, port, job):
        super().__init__(port)
        self.ask = ECHO if job.protocol == "tcp" else b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"

    def open(self, count):
        """So many more."""
        self.connections += (ask_once(self.port, self.ask) for _ in range(count))

    def lost(self):
        """How many are not quiet any more."""
        return sum(not is_quiet(connection) for connection in self.connections)


class Held:
    """Idle connections or flows that one of our C programs makes, in two steps; see hold() there."""

    def __init__(self, argv):
        self.child = subprocess.Popen(
            [str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=use_all_descriptors)
        self.started = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        self.child.terminate()
        self.child.wait()
        self.child.stdout.close()

    def open(self, _):
        """The next step: FIRST of them, then all."""
        if self.line() not in ("first", "all"):
            raise Failure(f"`{' '.join(self.child.args)}` did not make its connections")

    def lost(self):
        """How many are not quiet any more."""
        return read_result(self.line())["errors"]

    def line(self):
        """The program's next line; it goes on when we ask for the one after it."""
        if self.started:
            self.child.stdin.write("\n")
            self.child.stdin.flush()
        self.started = True
        return self.child.stdout.readline().strip()


class Asking(Connections):
    """Those with a request under way each: the origin (slow.py) has it and does not answer yet."""

    def open(self, count):
        """So many more; returns when all requests have reached the origin."""
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", self.port), 5)
            connection.sendall(b"GET /held HTTP/1.1\r\nHost: bench\r\n\r\n")
            self.connections.append(connection)
        deadline = time.monotonic() + REACH_SECONDS
        while (reached := int(self.origin_says("/count"))) < len(self.connections):
            if time.monotonic() > deadline:
                raise Failure(f"only {reached} of {len(self.connections)} requests reached the origin")
            time.sleep(0.1)

    def lost(self):
        """How many do not get their answer once the origin gives it."""
        self.origin_says("/release")
        return sum(not is_answered(connection) for connection in self.connections)

    def origin_says(self, path):
        """What the origin answers at once, through the proxy."""
        asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            asked.request("GET", path)
            return asked.getresponse().read()
        finally:
            asked.close()


def ask_once(port, question):
    """A connection that has had one answer and stays open."""
    connection = socket.create_connection(("127.0.0.1", port), 5)
    connection.settimeout(5)
    connection.sendall(question)
    got = b""
    while not got.endswith(b"x" * 128):
        more = connection.recv(4096)
        if not more:
            raise Failure(f"the proxy closed an idle connection: {got[:200]!r}")
        got += more
    return connection


def is_quiet(connection):
    """True while the other side has neither closed nor sent anything more."""
    connection.setblocking(False)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def is_answered(connection):
    """True when the whole answer comes."""
    try:
        connection.settimeout(5)
        got = b""
        while not got.endswith(ECHO) and (more := connection.recv(4096)):
            got += more
        return got.startswith(b"HTTP/1.1 200 ") and got.endswith(ECHO)
    except OSError:
        return False


def settled_bytes(proxy):
    """Resident bytes once three readings in a row agree."""
    deadline, last = time.monotonic() + QUIET_SECONDS, []
    while time.monotonic() < deadline and not (len(last) == 3 and len(set(last)) == 1):
        last = last[-2:] + [proxy.resident_bytes()]
        time.sleep(0.1)
    return last[-1]
