"""The proxies that are compared, and the origin behind them: how each is configured and started.

Every proxy gets the same job in its own words: one worker, shard or thread, access log off,
X-Forwarded-For added, upstream connections kept alive. What differs is written here and nowhere else.
"""

import os
import resource
import re
import shutil
import subprocess

from side.features import Variant
from side.procs import Failure, Process, free_port

NO_VARIANT = Variant("", "")
SMALL_BODY = "x" * 128
LARGE_BODY_BYTES = 1 << 20

NGINX = """\
{user}daemon off;
master_process on;
worker_processes 1;
worker_rlimit_nofile {files};
error_log stderr crit;
pid {dir}/nginx.pid;
events {{ worker_connections {connections}; }}
http {{
{log}  default_type text/plain;
  tcp_nodelay on;
  sendfile on;
  keepalive_requests 1000000000;
  keepalive_timeout 3600s;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
{rest}}}
"""

NGINX_NO_LOG = "  access_log off;\n"

NGINX_PROXY = """\
  upstream origin {{
    server 127.0.0.1:{origin};
    keepalive 128;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
{bulk}    }}
  }}
"""

# Bodies of 1 MiB: buffering stays on, nothing goes to disk; `run --nginx-unbuffered` tries the other.
NGINX_BULK = "      proxy_max_temp_file_size 0;\n"
NGINX_UNBUFFERED = "      proxy_buffering off;\n"

NGINX_ORIGIN = """\
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root {dir}/www;
    location = / {{ return 200 "{body}"; }}
    location /large {{ }}
  }}
"""

HAPROXY = """\
global
    nbthread 1
    maxconn {connections}
defaults
    mode http
    option forwardfor
    option http-keep-alive
    http-reuse always
{bulk}    timeout connect 5s
    timeout client 3600s
    timeout server 3600s
    timeout http-keep-alive 3600s
frontend bench
    bind 127.0.0.1:{port} backlog 4096
    default_backend origin
backend origin
    server origin 127.0.0.1:{origin}
"""

HAPROXY_BULK = "    option splice-auto\n"

WEIR = """\
version = 1

[runtime]
cores = [{cores}]

[admin]
listen = "127.0.0.1:{admin}"

[[listener]]
name = "bench"
protocol = "HTTP"
protocol_port = {port}
default_pool = "origin"
keepalive_timeout = 3600
{settings}
[[pool]]
name = "origin"
protocol = "HTTP"
lb_algorithm = "ROUND_ROBIN"
{pool}members = [{{ name = "origin", address = "127.0.0.1", protocol_port = {origin} }}]
{rest}"""


class Peer:
    """One proxy build: its name in the table, its kind, its program and the version it names."""

    def __init__(self, name, program):
        found = shutil.which(program)
        if not found:
            raise Failure(f"{name}: no program `{program}`; install it or name one: --peer {name}=PATH")
        self.name, self.program = name, os.path.realpath(found)
        self.kind, self.version = identify(self.program)

    def config(self, job, port, origin, cores, work, options, variant):
        """The text of this proxy's configuration file for `job`."""
        open_at_once = options.idle_connections if job.measure == "memory" else job.connections
        connections = max(1024, open_at_once * 2 + 512)
        if self.kind == "nginx":
            unbuffered = NGINX_UNBUFFERED if options.nginx_unbuffered else NGINX_BULK
            rest = NGINX_PROXY.format(port=port, origin=origin, bulk=unbuffered if job.bulk else "")
            log = variant.rest.replace("{dir}", work) if variant and variant.rest else NGINX_NO_LOG
            return nginx_config(work, connections, rest, log)
        if self.kind == "haproxy":
            bulk = HAPROXY_BULK if job.bulk else ""
            # It refuses to start unless the descriptors suffice for two a connection.
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            most = min(connections, (soft - 200) // 2)
            return HAPROXY.format(port=port, origin=origin, connections=most, bulk=bulk)
        listed = ", ".join(str(core) for core in cores)
        variant = variant or NO_VARIANT
        return WEIR.format(port=port, origin=origin, cores=listed, admin=free_port(), pool=variant.pool,
                           settings=variant.settings, rest=variant.rest.replace("{dir}", work))

    def start(self, job, origin, cores, work, options, variant=None):
        """Starts this proxy pinned to `cores` in front of the origin's port."""
        work = os.path.join(work, self.name)
        os.makedirs(work, exist_ok=True)
        port = free_port()
        path = os.path.join(work, "config")
        text = self.config(job, port, origin, cores, work, options, variant)
        with open(path, "w") as file:
            file.write(text)
        argv = {
            "nginx": [self.program, "-p", work, "-c", path],
            "haproxy": [self.program, "-db", "-f", path],
            "weir": [self.program, "serve", "--config", path],
        }[self.kind]
        process = Process(argv, cores, os.path.join(work, "log"))
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


def nginx_config(work, connections, rest, log=NGINX_NO_LOG):
    """A whole nginx file; the worker keeps our user, so that it may read the work folder."""
    user = "user root;\n" if os.geteuid() == 0 else ""
    files = connections * 2 + 64
    return NGINX.format(user=user, files=files, dir=work, connections=connections, rest=rest, log=log)


def start_origin(nginx, core, work):
    """The origin: nginx answering 128 bytes on / and a 1 MiB file on /large."""
    work = os.path.join(work, "the-origin")
    os.makedirs(os.path.join(work, "www"), exist_ok=True)
    with open(os.path.join(work, "www", "large"), "wb") as file:
        file.write(bytes(range(256)) * (LARGE_BODY_BYTES // 256))
    port = free_port()
    path = os.path.join(work, "config")
    rest = NGINX_ORIGIN.format(port=port, dir=work, body=SMALL_BODY)
    with open(path, "w") as file:
        file.write(nginx_config(work, 4096, rest))
    process = Process([nginx, "-p", work, "-c", path], core, os.path.join(work, "log"))
    process.wait_for_port(port)
    return process, port
