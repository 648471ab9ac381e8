"""Processes: starts them pinned, reads what the kernel accounts to them, ends them by their own id.

Owns every process that the comparison starts. Knows nothing of proxies or jobs.
"""

import os
import resource
import signal
import socket
import subprocess
import time

TICK = os.sysconf("SC_CLK_TCK")
READY_SECONDS = 10.0
STOP_SECONDS = 5.0


class Failure(Exception):
    """Something the user has to know and can mend; printed without a traceback."""


def open_file_limit():
    """Descriptors a process may be given here (the hard limit)."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def use_all_descriptors():
    """Raises this process's own soft limit to the hard one."""
    hard = open_file_limit()
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def free_port():
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_echo(process, port):
    """Returns when a datagram to `port` of 127.0.0.1 is answered; fails with the program's own words."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        process.check_alive()
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.1)
            probe.connect(("127.0.0.1", port))
            try:
                probe.send(b"ready?")
                probe.recv(16)
                return
            except OSError:
                time.sleep(0.02)
    raise Failure(f"`{process.argv[0]}` answers no datagram on port {port}: {process.said()}")


class Process:
    """One started program in a session of its own, with its descendants."""

    alive = []  # what close_all ends, newest last

    def __init__(self, argv, cores, log):
        self.argv = [str(a) for a in argv]
        self.log = log
        allowed = set(cores)

        def before_exec():
            os.sched_setaffinity(0, allowed)
            use_all_descriptors()

        with open(log, "wb") as out:
            self.child = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=before_exec,
            )
        Process.alive.append(self)

    @property
    def pid(self):
        return self.child.pid

    def said(self):
        """The end of what the program has printed, for messages."""
        with open(self.log, errors="replace") as log:
            return log.read()[-2000:].strip()

    def check_alive(self):
        """Fails with the program's own words when it has ended."""
        if self.child.poll() is not None:
            raise Failure(f"`{self.argv[0]}` ended at once ({self.child.returncode}): {self.said()}")

    def wait_for_port(self, port):
        """Returns when `port` of 127.0.0.1 accepts; fails with the program's own words."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                return
            except OSError:
                time.sleep(0.02)
        raise Failure(f"`{self.argv[0]}` does not listen on port {port}: {self.said()}")

    def tree(self):
        """Ids of this process and all its descendants."""
        children = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                fields = stat_fields(entry)
                if fields:
                    children.setdefault(int(fields[1]), []).append(int(entry))
        found, todo = [], [self.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += children.get(pid, [])
        return found

    def usage(self):
        """What the kernel has accounted so far to the whole tree."""
        return sum((Usage.of(pid) for pid in self.tree()), Usage())

    def resident_bytes(self):
        """Resident memory of the whole tree (smaps_rollup: exact, unlike VmRSS)."""
        total = 0
        for pid in self.tree():
            with open(f"/proc/{pid}/smaps_rollup") as rollup:
                total += sum(int(line.split()[1]) for line in rollup if line.startswith("Rss:"))
        return total * 1024

    def descriptors(self):
        """Open descriptors of the whole tree."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.tree())

    def close(self):
        """SIGTERM to the program, SIGKILL to its own process group when that does not help."""
        if self in Process.alive:
            Process.alive.remove(self)
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self.child.wait()


def close_all():
    """Ends whatever still runs, newest first."""
    for process in reversed(list(Process.alive)):
        process.close()


class Usage:
    """CPU time in seconds and context switches of a process tree."""

    def __init__(self, cpu=0.0, voluntary=0, involuntary=0):
        self.cpu, self.voluntary, self.involuntary = cpu, voluntary, involuntary

    @staticmethod
    def of(pid):
        """Usage of one process, all threads; utime + stime include threads that have ended."""
        fields = stat_fields(pid)
        if not fields:
            return Usage()
        usage = Usage(cpu=(int(fields[11]) + int(fields[12])) / TICK)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/status") as status:
                    for line in status:
                        if line.startswith("voluntary_ctxt"):
                            usage.voluntary += int(line.split()[1])
                        elif line.startswith("nonvoluntary_ctxt"):
                            usage.involuntary += int(line.split()[1])
        except (FileNotFoundError, ProcessLookupError):
            pass  # a thread ended while we looked; its time is in the process's sum
        return usage

    def __add__(self, other):
        return Usage(
            self.cpu + other.cpu,
            self.voluntary + other.voluntary,
            self.involuntary + other.involuntary,
        )

    def __sub__(self, other):
        return self + Usage(-other.cpu, -other.voluntary, -other.involuntary)


def stat_fields(pid):
    """/proc/PID/stat from the state on (the name may hold spaces); None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
