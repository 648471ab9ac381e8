"""The configurations of the proxies and of the origin: the same job in each one's words.

Pure text: one worker, shard or thread, access log off; HTTP jobs add X-Forwarded-For and keep upstream
connections alive. What differs between the proxies is written here and nowhere else.
"""

import os

SMALL_BODY = "x" * 128

NGINX = """\
{modules}{user}daemon off;
master_process on;
worker_processes 1;
worker_rlimit_nofile {files};
error_log stderr crit;
pid {dir}/nginx.pid;
events {{ worker_connections {connections}; }}
{rest}"""

NGINX_HTTP = """\
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
    listen 127.0.0.1:{port}{listen} backlog=4096;
{tls}    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
{bulk}{locations}  }}
"""
NGINX_LOCATION = "    location {} {{ proxy_pass http://origin; }}\n"

# Tickets resume; a cache of sessions would only cost more.
NGINX_TLS = """\
    ssl_certificate {dir}/../site.pem;
    ssl_certificate_key {dir}/../site.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_tickets on;
"""

# Large bodies: buffering stays on, nothing goes to disk; `run --nginx-unbuffered` tries the other.
NGINX_BULK = "    proxy_max_temp_file_size 0;\n"
NGINX_UNBUFFERED = "    proxy_buffering off;\n"

NGINX_ORIGIN = """\
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root {dir}/www;
    location = / {{ return 200 "{body}"; }}
    location /p/ {{ return 200 "{body}"; }}
    location / {{ }}
{more}  }}
"""

NGINX_STREAM = """\
stream {{
  upstream members {{
{members}  }}
  server {{
    listen 127.0.0.1:{port}{listen};
    proxy_pass members;
    proxy_timeout 3600s;
  }}
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
    bind 127.0.0.1:{port}{listen} backlog 4096
    {choice}
backend origin
    server origin 127.0.0.1:{origin}
"""

HAPROXY_BULK = "    option splice-auto\n"

HAPROXY_TCP = """\
global
    nbthread 1
    maxconn {connections}
    maxpipes 256
defaults
    mode tcp
    option splice-auto
    timeout connect 5s
    timeout client 3600s
    timeout server 3600s
frontend bench
    bind 127.0.0.1:{port} backlog 4096
    default_backend members
backend members
{members}"""

WEIR = """\
version = 1

[runtime]
cores = [{cores}]
{runtime}
[admin]
listen = "127.0.0.1:{admin}"

[[listener]]
name = "bench"
protocol = "{protocol}"
protocol_port = {port}
{default}keepalive_timeout = 3600
{settings}
[[pool]]
name = "origin"
protocol = "{pool_protocol}"
lb_algorithm = "ROUND_ROBIN"
{pool}members = [{members}]
{rest}"""

WEIR_DEFAULT = 'default_pool = "origin"\n'
WEIR_SHARED = '[compat]\npool_per_policy = "shared"\n'
WEIR_POLICY = """\
[[l7policy]]
name = "p{number}"
listener = "bench"
action = "REDIRECT_TO_POOL"
redirect_pool = "origin"
rules = [{{ type = "PATH", compare_type = "EQUAL_TO", value = ["{path}"] }}]
"""
WEIR_TLS = 'default_certificate = "site"\nhttp2_enable = true\n'
WEIR_CERTIFICATE = """\
[[certificate]]
name = "site"
type = "server"
certificate = "{dir}/../site.pem"
private_key = "{dir}/../site.key"
"""


def policy_path(number):
    """The path that one of many policies forwards; any other path is refused, so that none goes astray."""
    return f"/p/{number}"


def haproxy_map(count):
    """So many policies, as HAProxy's map from a path to its backend."""
    return "".join(f"{policy_path(number)} origin\n" for number in range(count))


def nginx(work, connections, rest, log=NGINX_NO_LOG):
    """A whole nginx file for HTTP."""
    return nginx_file(work, connections, NGINX_HTTP.format(dir=work, rest=rest, log=log))


def nginx_file(work, connections, rest, modules=""):
    """A whole nginx file; the worker keeps our user, so that it may read the work folder."""
    user = "user root;\n" if os.geteuid() == 0 else ""
    files = connections * 2 + 64
    return NGINX.format(modules=modules, user=user, files=files, dir=work, connections=connections, rest=rest)


def nginx_proxy(job, port, origins, work, connections, unbuffered, variant, module):
    """nginx as a proxy; `module` is what loads its stream module, if it is not built in."""
    if job.protocol in ("tcp", "udp"):
        listed = "".join(f"    server 127.0.0.1:{origin};\n" for origin in origins)
        listen = " udp" if job.protocol == "udp" else " backlog=4096"
        rest = NGINX_STREAM.format(port=port, members=listed, listen=listen)
        return nginx_file(work, connections, rest, module)
    tls = job.protocol == "https"
    bulk = NGINX_UNBUFFERED if unbuffered else NGINX_BULK
    paths = [f"= {policy_path(number)}" for number in range(job.policies)] or ["/"]
    rest = NGINX_PROXY.format(
        port=port, origin=origins[0], bulk=bulk if job.bulk else "",
        locations="".join(map(NGINX_LOCATION.format, paths)), listen=" ssl http2" if tls else "",
        tls=NGINX_TLS.format(dir=work) if tls else "")
    log = variant.rest.replace("{dir}", work) if variant and variant.rest else NGINX_NO_LOG
    return nginx(work, connections, rest, log)


def haproxy(job, port, origins, work, connections):
    """A whole HAProxy file."""
    if job.protocol == "tcp":
        listed = "".join(f"    server m{n} 127.0.0.1:{origin}\n" for n, origin in enumerate(origins))
        return HAPROXY_TCP.format(port=port, members=listed, connections=connections)
    listen = f" ssl crt {work}/../both.pem alpn h2,http/1.1" if job.protocol == "https" else ""
    bulk = HAPROXY_BULK if job.bulk else ""
    choice = f"use_backend %[path,map({work}/paths.map)]" if job.policies else "default_backend origin"
    return HAPROXY.format(port=port, origin=origins[0], connections=connections, bulk=bulk, listen=listen,
                          choice=choice)


def weir(job, port, admin, origins, cores, work, variant):
    """A whole file of ours."""
    protocol = job.protocol.upper()
    tls = job.protocol == "https"
    members = ", ".join(f'{{ name = "m{n}", address = "127.0.0.1", protocol_port = {origin} }}'
                        for n, origin in enumerate(origins))
    rest = WEIR_CERTIFICATE.format(dir=work) if tls else variant.rest.replace("{dir}", work)
    if job.policies:
        rest += WEIR_SHARED + "".join(WEIR_POLICY.format(number=number, path=policy_path(number))
                                      for number in range(job.policies))
    return WEIR.format(
        port=port, default="" if job.policies else WEIR_DEFAULT, admin=admin, cores=", ".join(str(core) for core in cores), members=members,
        protocol=protocol, pool_protocol="HTTP" if tls else protocol, pool=variant.pool,
        runtime=variant.runtime + (f"max_connections = {2 * job.held}\n" if job.held else ""), settings=variant.settings + (WEIR_TLS if tls else ""), rest=rest)
