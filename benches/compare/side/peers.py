"""The proxies that are compared, and what stands behind them: who they are and how they are started.

Their configurations are configs.py's.
"""

import os
import re
import resource
import shutil
import subprocess
import sys

from side import configs
from side.features import Variant
from side.procs import Failure, Process, free_port, wait_for_echo

NO_VARIANT = Variant("", "")
# Files that the origin has, by path.
BODIES = {"kib": 1 << 10, "large": 1 << 20, "16mib": 16 << 20}
UDP_MEMBERS = 8


class Peer:
    """One proxy build: its name in the table, its kind, its program and the version it names."""

    def __init__(self, name, program):
        found = shutil.which(program)
        if not found:
            raise Failure(f"{name}: no program `{program}`; install it or name one: --peer {name}=PATH")
        self.name, self.program = name, os.path.realpath(found)
        self.kind, self.version = identify(self.program)

    def config(self, job, port, origins, cores, work, options, variant):
        """The text of this proxy's configuration file for `job`."""
        held = job.held or options.idle_connections if job.measure == "memory" else job.connections
        # nginx closes connections that have not said anything yet when 15 of 16 of its own are in use.
        connections = max(1024, held * (3 if job.mode == "active" else 2) + 512)
        if self.kind == "nginx":
            module = stream_module(self.program) if job.protocol in ("tcp", "udp") else ""
            return configs.nginx_proxy(
                job, port, origins, work, connections, options.nginx_unbuffered, variant, module)
        if self.kind == "haproxy":
            if job.policies:
                with open(os.path.join(work, "paths.map"), "w") as file:
                    file.write(configs.haproxy_map(job.policies))
            # It refuses to start unless the descriptors suffice for two a connection, and its pipes.
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            return configs.haproxy(job, port, origins, work, min(connections, (soft - 1000) // 2))
        return configs.weir(job, port, free_port(), origins, cores, work, variant or NO_VARIANT)

    def start(self, job, origins, cores, work, options, variant=None):
        """Starts this proxy pinned to `cores` in front of the origin's ports."""
        work = os.path.join(work, self.name)
        os.makedirs(work, exist_ok=True)
        port = free_port()
        path = os.path.join(work, "config")
        text = self.config(job, port, origins, cores, work, options, variant)
        with open(path, "w") as file:
            file.write(text)
        argv = {
            "nginx": [self.program, "-p", work, "-c", path],
            "haproxy": [self.program, "-db", "-f", path],
            "weir": [self.program, "serve", "--config", path],
        }[self.kind]
        process = Process(argv, cores, os.path.join(work, "log"))
        if job.protocol == "udp":
            wait_for_echo(process, port)
        else:
            process.wait_for_port(port)
        return process, port, text.replace(work, "DIR")


def identify(program):
    """Kind and version of a proxy program, by what it says about itself."""
    for flag in ("-v", "--version"):
        run = subprocess.run([program, flag], capture_output=True, text=True, timeout=10)
        said = (run.stdout + run.stderr).strip()
        first = said.splitlines()[0] if said else ""
        for kind, pattern in (
            ("nginx", r"nginx/(\S+)"),
            ("haproxy", r"HAProxy version (\S+)"),
            ("weir", r"^weir (.+)$"),
        ):
            match = re.search(pattern, first, re.IGNORECASE)
            if match:
                return kind, match.group(1)
    raise Failure(f"`{program}` is neither Weir nor nginx nor HAProxy, by what it says of its version")


def stream_module(program):
    """The line that loads nginx's stream module; empty when it is built in."""
    said = subprocess.run([program, "-V"], capture_output=True, text=True, timeout=10).stderr
    if re.search(r"--with-stream(\s|$)", said):
        return ""
    folder = re.search(r"--modules-path=(\S+)", said)
    path = os.path.join(folder.group(1) if folder else "", "ngx_stream_module.so")
    if not os.path.exists(path):
        raise Failure(f"nginx has no stream module at {path}: install libnginx-mod-stream")
    return f"load_module {path};\n"


def start_origin(job, cores, work, programs):
    """What stands behind the proxies, in the order of the ports that they are given."""
    if job.tool == "iperf3":
        port = free_port()
        process = Process(["iperf3", "-s", "-B", "127.0.0.1", "-p", port], cores, os.path.join(work, "iperf3.log"))
        process.wait_for_port(port)
        return [port]
    if job.protocol in ("tcp", "udp"):
        return start_members(job, cores, work, programs)
    if job.mode == "active":
        return [start_slow(cores, work)]
    return [start_http("nginx", cores, work)]


def start_slow(cores, work):
    """An origin that holds its answers back."""
    port = free_port()
    program = os.path.join(os.path.dirname(os.path.realpath(__file__)), "slow.py")
    process = Process([sys.executable, "-B", program, port], cores, os.path.join(work, "slow.log"))
    process.wait_for_port(port)
    return port


def start_members(job, cores, work, programs):
    """Members of our own that echo."""
    udp = job.protocol == "udp"
    ports = [free_port() for _ in range(UDP_MEMBERS if udp else 1)]
    mode = ["echo-udp"] if udp else ["echo-tcp-once"] if job.close else ["echo-tcp"]
    size = [job.size] if job.close else []
    process = Process([programs.flows, *mode, *ports, *size], cores, os.path.join(work, "members.log"))
    if udp:
        for port in ports:
            wait_for_echo(process, port)
    else:
        process.wait_for_port(ports[0])
    return ports


def start_http(nginx, cores, work, more=""):
    """An nginx that answers 128 bytes on / and below /p/, and files of BODIES; `more` goes into its server block."""
    work = os.path.join(work, "the-origin")
    os.makedirs(os.path.join(work, "www"), exist_ok=True)
    for name, size in BODIES.items():
        with open(os.path.join(work, "www", name), "wb") as file:
            file.write(bytes(range(256)) * (size // 256))
    port = free_port()
    path = os.path.join(work, "config")
    rest = configs.NGINX_ORIGIN.format(port=port, dir=work, body=configs.SMALL_BODY, more=more)
    with open(path, "w") as file:
        file.write(configs.nginx(work, 4096, rest))
    process = Process([nginx, "-p", work, "-c", path], cores, os.path.join(work, "log"))
    process.wait_for_port(port)
    return port
