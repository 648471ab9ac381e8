#!/usr/bin/env python3
"""How long UDP flows are held up by an upgrade, and how many are kept.

upgrades.py WEIR FLOWS ROUNDS [--members N] [--cores LIST]

Has FLOWS flows begun through WEIR (a program), each by an address of its own, replaces the process ROUNDS times, and asks by
each flow again after each. Prints a line a round: flows that went over by the log, flows that are kept (the same member
answers, and sees the same address and port), how long it took to hand them over, from the word to the new process to its
service, which is how long datagrams wait at most, and the CPU time of both processes until then, which says more of a busy
machine.
"""

import argparse
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

# Flows that wait for an answer at a time: what the default receive buffers hold.
WINDOW = 64
# Nothing takes longer on a working machine.
LIMIT = 120
# An answer that has not come after so long does not come.
LOST = 0.5
# With so many of them something else is wrong.
MOST_LOST = 5_000
# The first client's address, 127.1.0.1, and a number that Python has no name for.
FIRST, IP_PKTINFO = 0x7F010001, 8
WENT_OVER = re.compile(r"(\d+) UDP flows over (\d+) sockets went over in ([\d.]+) ms")
SERVES = re.compile(r"process (\d+) serves, ([\d.]+) ms after it was told to")


def members(count):
    """Members in a process of their own, which says what address it saw: its id and their ports."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    pid = os.fork()
    if pid:
        return pid, ports
    poll = select.poll()
    known = {one.fileno(): one for one in sockets}
    for one in sockets:
        one.setblocking(False)
        poll.register(one, select.POLLIN)
    while os.getppid() != 1:
        for descriptor, _ in poll.poll(1000):
            one = known[descriptor]
            port = one.getsockname()[1]
            try:
                while True:
                    _, peer = one.recvfrom(2048)
                    one.sendto(f"{port} {peer[0]} {peer[1]}".encode(), peer)
            except BlockingIOError:
                pass
    os._exit(0)


def config(folder, port, ports, cores, flows):
    path = os.path.join(folder, "weir.toml")
    all_ = ", ".join(f'{{ address = "127.0.0.1", protocol_port = {member} }}' for member in ports)
    with open(path, "w") as file:
        file.write(
            f'version = 1\n[runtime]\ncores = {cores}\nshutdown_timeout = 1\n'
            f'max_connections = {flows + 1000}\nrun_dir = "{folder}/run"\n'
            '[[loadbalancer]]\nname = "front"\nvip_address = "127.0.0.1"\n'
            f'[[listener]]\nname = "dns"\nloadbalancer = "front"\nprotocol = "UDP"\nprotocol_port = {port}\n'
            'default_pool = "dns"\nkeepalive_timeout = 4000\n'
            f'[[pool]]\nname = "dns"\nprotocol = "UDP"\nlb_algorithm = "ROUND_ROBIN"\nmembers = [{all_}]\n'
        )
    return path


class Flows:
    """Clients with an address each and one socket for all of them, since descriptors are few."""

    def __init__(self, count, port):
        self.count, self.door, self.lost = count, ("127.0.0.1", port), 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self.socket.bind(("0.0.0.0", 0))
        self.socket.settimeout(LOST)

    def ask(self, number):
        source = struct.pack("=I4s4s", 0, (FIRST + number).to_bytes(4, "big"), bytes(4))
        self.socket.sendmsg([b"who"], [(socket.IPPROTO_IP, IP_PKTINFO, source)], 0, self.door)

    def hear(self):
        """Who is answered, and what."""
        data, control, _, _ = self.socket.recvmsg(2048, 256)
        facts = next(facts for _, kind, facts in control if kind == IP_PKTINFO)
        return int.from_bytes(facts[8:12], "big") - FIRST, data

    def homes(self):
        """What each flow is answered; None = nothing."""
        found = [None] * self.count
        for at in range(0, self.count, WINDOW):
            waiting = set(range(at, min(at + WINDOW, self.count)))
            for number in waiting:
                self.ask(number)
            try:
                while waiting:
                    number, answer = self.hear()
                    found[number] = answer
                    waiting.discard(number)
            except TimeoutError:
                self.lost += len(waiting)
                if self.lost > MOST_LOST:
                    sys.exit(f"{self.lost} of {at + WINDOW} datagrams are not answered")
        return found


def cpu(pid):
    """User and system time of a process so far, in milliseconds."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 // os.sysconf("SC_CLK_TCK")


def wait_for(path, words, since=0):
    """The first match in the log behind `since`."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        with open(path) as file:
            file.seek(since)
            if found := re.search(words, file.read()):
                return found
        time.sleep(0.01)
    sys.exit(f"no {words} in {path}: {open(path).read()}")


def measure(weir, count, rounds, member_count, cores):
    echo, ports = members(member_count)
    serving = None
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "log")
        port = free_port()
        path = config(folder, port, ports, cores, count)
        try:
            with open(log, "w") as out:
                first = subprocess.Popen([weir, "serve", "--config", path], stderr=out, stdout=out)
            serving = first.pid
            wait_for(log, "weir: ready")
            flows = Flows(count, port)
            before = flows.homes()
            print(f"{count} flows, {sum(home is not None for home in before)} begun, to {member_count} members", flush=True)
            for number in range(rounds):
                since, former, used = os.path.getsize(log), serving, cpu(serving)
                done = subprocess.run([weir, "upgrade", "--config", path], capture_output=True, text=True)
                if done.returncode:
                    sys.exit(done.stdout + done.stderr)
                pid, held = wait_for(log, SERVES, since).groups()
                serving = int(pid)
                used = [cpu(former) - used, cpu(serving)]
                over, sockets, took = wait_for(log, WENT_OVER, since).groups()
                kept = sum(was is not None and was == now for was, now in zip(before, flows.homes()))
                print(
                    f"round {number + 1}: {over} flows over {sockets} sockets went over in {took} ms, "
                    f"{held} ms from the word to service, CPU {used[0]} and {used[1]} ms; {kept} kept",
                    flush=True,
                )
        finally:
            if serving:
                os.kill(serving, signal.SIGTERM)
            os.kill(echo, signal.SIGKILL)
            os.waitpid(echo, 0)
            first.wait()


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("weir")
    parser.add_argument("flows", type=int)
    parser.add_argument("rounds", type=int)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--cores", default='"auto"')
    options = parser.parse_args()
    measure(options.weir, options.flows, options.rounds, options.members, options.cores)


main()
