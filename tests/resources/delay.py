"""A slow cable between two network namespaces, for a kernel without netem: a TUN interface `slow` in each.

    delay.py PID MILLISECONDS     from the namespace that it runs in to that of PID; each packet takes so long

Says "ready" when both interfaces are there, and ends with its input.
"""

import ctypes
import fcntl
import heapq
import os
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
TUN_WITHOUT_HEADER = 0x1001


def tun():
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", b"slow", TUN_WITHOUT_HEADER))
    return device


def enter(pid):
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(namespace, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def forward(ends, delay):
    waiting, number = [], 0
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select([*ends, sys.stdin], [], [], pause)
        if sys.stdin in ready:
            return
        for end in ready:
            packet, other = os.read(end, 65535), ends[1 - ends.index(end)]
            heapq.heappush(waiting, (time.monotonic() + delay, number, other, packet))
            number += 1
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, other, packet = heapq.heappop(waiting)
            try:
                os.write(other, packet)
            except OSError:
                pass  # as a cable loses it


if __name__ == "__main__":
    near = tun()
    enter(sys.argv[1])
    both = [near, tun()]
    print("ready", flush=True)
    forward(both, float(sys.argv[2]) / 1000)
