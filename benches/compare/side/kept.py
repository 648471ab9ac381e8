"""What a kept run says of where and how it was made, and the writing of it. Used by compare and accuracy."""

import json
import os
import platform
import subprocess
import sys
import time

from side.procs import Failure


def circumstances(root, program):
    """Date, command, revision and machine: what a reader needs to judge or repeat a run of `program`."""
    with open("/proc/cpuinfo") as info:
        models = [line.split(":", 1)[1].strip() for line in info if line.startswith("model name")]
    revision = subprocess.run(["git", "-C", root, "describe", "--always", "--dirty"],
                              capture_output=True, text=True).stdout.strip()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": " ".join([program] + [shown(argument) for argument in sys.argv[1:]]),
        "revision": revision,
        "kernel": platform.release(),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
    }


def shown(argument):
    """An argument without the folders of this machine."""
    name, equals, value = argument.rpartition("=")
    return name + equals + (os.path.basename(value) if value.startswith("/") else value)


def keep(path, run, page):
    """Writes the raw run and its page."""
    with open(path, "w") as file:
        json.dump(run, file, indent=1, sort_keys=True)
        file.write("\n")
    with open(os.path.splitext(path)[0] + ".md", "w") as file:
        file.write(page)


def check_cores(target, load, flags):
    """Two different cores that we are allowed to use; this process goes to that of the load."""
    allowed = os.sched_getaffinity(0)
    if target == load or not {target, load} <= allowed:
        raise Failure(f"two different cores are needed; allowed here: {sorted(allowed)} ({flags})")
    os.sched_setaffinity(0, {load})
