"""What each feature costs: the same load with it and without it.

Owns the variants, their configurations and their table. A variant differs from its base in one thing; the
difference is taken within each round.
"""

import dataclasses
import statistics

POLICIES = 10_000
PREFIXES = 100_000

# Ids are as long as ours.
ID = "00000000-0000-5000-8000-000000000000"
NGINX_LOG = f"""\
  log_format elb '$msec {ID} [$time_iso8601] elb_01 $remote_addr:$remote_port $status '
    '"$request_method $scheme://$host$request_uri $server_protocol" $request_length $bytes_sent '
    '$body_bytes_sent $request_time "$upstream_status" "$upstream_connect_time" '
    '"$upstream_header_time" "$upstream_response_time" "$upstream_addr" "$http_user_agent" '
    '"$http_referer" "$http_x_forwarded_for" loadbalancer_{ID} listener_{ID} {ID} pool_{ID} '
    '"member_{ID}" default - "$upstream_addr" - - - - $tcpinfo_rtt - - forward - "origin"';
  access_log {{dir}}/access.log elb buffer=64k flush=1s;
"""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to run the load: `base` is the variant that it is compared with; none = it is a base."""

    label: str
    kind: str  # of proxy
    base: str = ""
    close: bool = False  # a connection per request
    host: str = ""
    bar: float = 0.0  # most that CPU may be, as a ratio to the base's
    settings: str = ""  # keys of Weir's listener
    pool: str = ""  # keys of Weir's pool
    rest: str = ""  # further tables of Weir's file; or of nginx's http block
    runtime: str = ""  # keys of Weir's [runtime]


def policies(count):
    """So many policies, each for a host of its own, with a path."""
    table = ('[[l7policy]]\nname = "p{0}"\nlistener = "bench"\naction = "REDIRECT_TO_POOL"\n'
             'redirect_pool = "origin"\nrules = [{{ type = "HOST_NAME", value = ["h{0}.example"] }}, '
             '{{ type = "PATH", compare_type = "STARTS_WITH", value = ["/"] }}]\n')
    middle = POLICIES // 2
    numbers = range(count) if count > 1 else [middle]
    shared = '[compat]\npool_per_policy = "shared"\n'
    return shared + "".join(table.format(number) for number in numbers)


def prefixes(count):
    """A black list of so many networks, none of them ours."""
    listed = ", ".join(f'"{10 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.0/25"' for n in range(count))
    return f'[[ipgroup]]\nname = "many"\nip_list = [{listed}]\n'


HEADERS = ", ".join(f'"{name}" = true' for name in (
    "X-Forwarded-ELB-IP", "X-Forwarded-ELB-ID", "X-Forwarded-Port", "X-Forwarded-For-Port",
    "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "X-Request-ID"))
MATCHED = f"h{POLICIES // 2}.example"
LISTED = 'ipgroup = { name = ["many"], type = "black" }\n'
CAPS = "connection = 100000\ncps = 1000000\nconnections_per_source = 100000\n"

VARIANTS = [
    Variant("nginx", "nginx"),
    Variant("nginx, access log", "nginx", "nginx", rest=NGINX_LOG),
    Variant("weir", "weir"),
    Variant("weir, access log", "weir", "weir",
            rest='[access_log]\npath = "{dir}/access.log"\nformat = "elb"\n'),
    Variant("weir, access log as json", "weir", "weir",
            rest='[access_log]\npath = "{dir}/access.log"\nformat = "json"\n'),
    Variant("weir, Server-Timing", "weir", "weir", settings="server_timing = true\n"),
    Variant("weir, all inserted headers", "weir", "weir",
            settings=f"insert_headers = {{ {HEADERS} }}\n"),
    Variant("weir, balancer cookie, new each time", "weir", "weir",
            pool='session_persistence = { type = "HTTP_COOKIE" }\n'),
    Variant("weir, 1 policy", "weir", "weir", host=MATCHED, rest=policies(1)),
    Variant("weir, 10,000 policies", "weir", "weir, 1 policy", host=MATCHED, bar=1.15,
            rest=policies(POLICIES)),
    Variant("weir, connection per request", "weir", close=True),
    Variant("weir, 100,000 prefixes", "weir", "weir, connection per request", close=True,
            settings=LISTED, rest=prefixes(PREFIXES)),
    Variant("weir, all limits of connections", "weir", "weir, connection per request", close=True,
            settings=CAPS),
]


NO_SPIN = "weir, no spin"
# A shard that polls before it sleeps, on one connection.
SPINS = [Variant(NO_SPIN, "weir")] + [
    Variant(f"weir, spin {us} µs", "weir", NO_SPIN, runtime=f'spin = "{us}us"\n') for us in (20, 50, 200)]


def variants_of(kind):
    """The variants of one kind of proxy."""
    return [variant for variant in VARIANTS if variant.kind == kind]


def costs(samples, variant):
    """(µs more than the base, ratio to the base) of each round that has both."""
    base = {s["round"]: s["cpu_us"] for s in samples if s["peer"] == variant.base}
    mine = [s for s in samples if s["peer"] == variant.label and s["round"] in base]
    return [(s["cpu_us"] - base[s["round"]], s["cpu_us"] / base[s["round"]]) for s in mine]


def table(samples):
    """Rows: the variant, its CPU per request, what it has more than its base, the ratio."""
    lines = ["| what | CPU µs/request | more than | µs more | ratio |", "| --- | --- | --- | --- | --- |"]
    for variant in VARIANTS:
        mine = [s["cpu_us"] for s in samples if s["peer"] == variant.label]
        if not mine:
            continue
        found = costs(samples, variant)
        more = spread([over for over, _ in found])
        ratio = spread([ratio for _, ratio in found])
        lines.append(f"| {variant.label} | {statistics.median(mine):.1f} | {variant.base or '-'} "
                     f"| {more} | {ratio} |")
    return "\n".join(lines)


def verdicts(samples):
    """(what, value, bar, whether it holds) of the bars on features."""
    for variant in VARIANTS:
        ratios = [ratio for _, ratio in costs(samples, variant)]
        if variant.bar and ratios:
            ok = statistics.median(ratios) <= variant.bar
            yield f"{variant.label} ÷ {variant.base}", spread(ratios), f"≤ {variant.bar:g}", ok
    by_label = {variant.label: [over for over, _ in costs(samples, variant)] for variant in VARIANTS}
    ours, theirs = by_label["weir, access log"], by_label["nginx, access log"]
    if ours and theirs:
        text = f"{statistics.median(ours):.2f} µs against {statistics.median(theirs):.2f} µs"
        ok = statistics.median(ours) <= statistics.median(theirs)
        yield "cost of the access log, beside nginx's", text, "≤ nginx's", ok


def spread(values):
    """median (min..max)."""
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"
