"""Our origin with known delays (origin.c): builds it, runs it, reads what it has recorded."""

import array
import math
import os

from side.procs import Failure, Process, free_port
from side.tools import Tools

HERE = os.path.dirname(os.path.realpath(__file__))


def build(work):
    """Compiles origin.c into the work folder and gives the program."""
    program = os.path.join(work, "origin")
    Tools.call(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, os.path.join(HERE, "origin.c")],
               "gcc is needed")
    return program


class Origin:
    """One running origin, pinned to a core. `delays` is its argument: µs, or µs,µs@percent."""

    def __init__(self, program, core, work, delays, stall=()):
        self.path = os.path.join(work, "record")
        self.port = free_port()
        self.process = Process([program, self.port, self.path, delays, *stall], [core],
                               os.path.join(work, "origin.log"))
        self.process.wait_for_port(self.port)

    def end(self, last):
        """Ends it; gives the arrivals (ns, ascending) and the waits (ns) of the last `last` requests that came."""
        self.process.close()
        if self.process.child.returncode != 0:
            raise Failure(f"the origin failed: {self.process.said()}")
        flat = array.array("q")
        with open(self.path, "rb") as file:
            flat.frombytes(file.read())
        rows = sorted(zip(flat[0::2], flat[1::2]))[-last:]
        if len(rows) < last:
            raise Failure(f"loadgen counted {last} requests and only {len(rows)} reached the origin")
        return [came for came, _ in rows], [waited for _, waited in rows]


def quantile(ordered, share):
    """The least of `ordered` (ascending) that the share does not exceed; the rule of loadgen's histogram."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
