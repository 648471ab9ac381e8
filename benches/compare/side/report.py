"""Turns samples into the Markdown page: medians over rounds, and ratios within each round.

Pure: a run's dictionary in, text out; `run --render FILE` makes the page again from a kept run.
"""

import dataclasses
import statistics

from side import features
from side.jobs import GROUPS, JOBS, Job

NOISY = 0.10  # share of the proxy's core used by others above which a run is called disturbed
ASLEEP_SHARE = 0.005
TWO_SHARDS = 1.10
# What the short form shows of a measure, and with how many digits.
SHORT = {"open": (", p99 µs", 0), "memory": ("", 0), "asleep": (", % of a core", 2),
         "shards": (", ratio of CPU", 2)}
NAMES = {"nginx": "nginx", "haproxy": "HAProxy", None: "Weir"}


def render(run):
    """The whole page of one run."""
    parts = ["### Side by side", figures(run).rstrip()]
    parts += [details(run, job) for job in JOBS if chosen(run, job)]
    parts.append(notes(run))
    return "\n\n".join(part for part in parts if part) + "\n"


def part(run, names):
    """The run with these jobs alone; a group's name stands for all of its jobs."""
    wanted = {job.name for job in JOBS if job.name in names or job.group in names}
    return {**run, "samples": [s for s in run["samples"] if s["job"] in wanted]}


def figures(run):
    """What ran, and Weir against its bars, a table a group of jobs."""
    tables = [(title, summary(run, group)) for group, title in GROUPS.items()]
    several = sum(bool(table) for _, table in tables) > 1
    parts = [f"**{title}**\n\n{table}" if several else table for title, table in tables if table]
    return "\n\n".join([heading(run), *parts]) + "\n"


def headline(run):
    """The short form that the README shows: a line a job, medians of each proxy and Weir's ratio to them."""
    lines = ["| median; in brackets Weir's ratio to it | Weir | nginx | HAProxy | bar |", "| --- |" + " --- |" * 4]
    for job in JOBS:
        rows = [row for row in verdicts(run) if row.job is job]
        if not rows or job.measure in ("features", "spin"):
            continue
        alone = [row.values.split(" (")[0] for row in rows if row.peer is None and job.measure != "memory"]
        what, digits = SHORT.get(job.measure, (f", CPU µs per {job.unit}", 1))
        medians = {peer: f"{middle(chosen(run, job, peer), field_of(job)):,.{digits}f}"
                   for peer in peers_of(run, job)} if not alone else {"weir": alone[0]}
        cells = [medians.get("weir", "")]
        for peer in ("nginx", "haproxy"):
            found = ratios(run, job, "weir", peer, field_of(job)) if peer in medians else []
            cells.append(f"{medians[peer]} ({statistics.median(found):.2f})" if found else "")
        lines.append(f"| {job.title}{what} | {' | '.join(cells)} | {kept(rows)} |")
    return "\n".join(lines) + "\n"


def kept(rows):
    """The bars of one job, and whether they hold."""
    mark = {None: "", True: "", False: " **missed**"}
    if all(row.holds is None for row in rows):
        return "–"
    if len(rows) == 2 and len({(row.bar, row.holds) for row in rows}) == 1:
        return f"{rows[0].bar}{mark[rows[0].holds]}"
    return ", ".join(f"{NAMES.get(row.peer, row.peer)} {row.bar}{mark[row.holds]}" for row in rows)


def heading(run):
    meta = run["meta"]
    versions = "; ".join(f"{name} {meta['versions'][name]}" for name in meta["peers"])
    return (
        f"{meta['date']}: {versions}. Linux {meta['kernel']}, {meta['cpu']}, {meta['cores']} cores. "
        f"{meta['rounds']} interleaved rounds of {meta['seconds']:g} s, loopback; the proxy alone on core "
        f"{meta['proxy_core']}, load and origin on core {meta['load_core']}. Command: `{meta['command']}`."
    )


def chosen(run, job, peer=None):
    """The samples of a job, of one peer or of all."""
    return [s for s in run["samples"] if s["job"] == job.name and peer in (None, s["peer"])]


def peers_of(run, job):
    """Names in the order of the run's list."""
    seen = {s["peer"] for s in chosen(run, job)}
    others = dict.fromkeys(s["peer"] for s in chosen(run, job) if s["peer"] not in run["meta"]["peers"])
    return [name for name in run["meta"]["peers"] if name in seen] + list(others)


def middle(samples, field):
    """Median of one field."""
    return statistics.median(s[field] for s in samples)


def ratios(run, job, over, under, field):
    """over ÷ under within each round that has both."""
    by_round = {s["round"]: s[field] for s in chosen(run, job, under)}
    return [s[field] / by_round[s["round"]] for s in chosen(run, job, over)
            if by_round.get(s["round"], 0) > 0]


def spread(values, digits=2):
    """median (min..max)."""
    if not values:
        return "-"
    middle_one = statistics.median(values)
    return f"{middle_one:.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def field_of(job):
    """What is compared in a job."""
    return {"open": "p99_us", "memory": "bytes_per_connection"}.get(job.measure, "cpu_us")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Weir's figure in a job against one bar; `peer` is None where it stands alone."""

    job: Job
    title: str
    peer: object
    what: str
    values: str  # median (min..max)
    bar: str  # "–" = none, the figure is only shown
    holds: object  # True, False, or None without a bar


def verdicts(run):
    """Weir against its bars, job by job."""
    for job in JOBS:
        for kinds, bar in job.bars:
            for peer in peers_of(run, job):
                if run["meta"]["kinds"].get(peer) in kinds:
                    found = ratios(run, job, "weir", peer, field_of(job))
                    if found:
                        what = "p99" if job.measure == "open" else f"CPU per {job.unit}"
                        text, ok = held_to(found, bar)
                        yield Verdict(job, job.title, peer, f"{what} ÷ {peer}", spread(found), text, ok)
        for title, what, value, bar, ok in own_verdicts(run, job):
            yield Verdict(job, title, None, what, value, bar, ok)


def held_to(values, bar):
    """A bar in words, and whether the median keeps it; ("–", None) without one."""
    return (f"≤ {bar:g}", statistics.median(values) <= bar) if bar else ("–", None)


def own_verdicts(run, job):
    """Bars that Weir is held to without a peer: title, what, value, bar, whether it holds."""
    samples = chosen(run, job, "weir")
    if job.measure == "memory" and samples:
        values = [s["bytes_per_connection"] for s in samples]
        yield job.title, "bytes", spread(values, 0), *held_to(values, job.most_bytes)
        if job.most_descriptors:
            values = [s["descriptors"] for s in samples]
            text, ok = held_to(values, job.most_descriptors)
            yield job.title, "descriptors", spread(values, 0), f"{text} descriptors", ok
    if job.measure == "asleep" and samples:
        values = [s["cpu_share"] * 100 for s in samples]
        ok = statistics.median(values) <= ASLEEP_SHARE * 100
        yield job.title, "% of a core", spread(values), f"≤ {ASLEEP_SHARE * 100:g}", ok
    if job.measure == "shards":
        found = ratios(run, job, "weir, 2 shards", "weir, 1 shard", "cpu_us")
        if found:
            ok = statistics.median(found) <= TWO_SHARDS
            yield job.title, "CPU per request", spread(found), f"≤ {TWO_SHARDS:g}", ok
    if job.measure == "spin":
        for variant in features.SPINS[1:]:
            for what, field in (("CPU per request", "cpu_us"), ("p50", "p50_us")):
                found = ratios(run, job, variant.label, variant.base, field)
                if found:
                    yield job.title, f"{what}, {variant.label} ÷ none", spread(found), "–", None
    if job.measure == "features":
        for row in features.verdicts(chosen(run, job)):
            yield "64 connections, 128 bytes", *row


def summary(run, group):
    """Weir against its bars in one group of jobs; empty without Weir."""
    rows = [row for row in verdicts(run) if row.job.group == group]
    if not rows:
        return ""
    words = {None: "", True: "holds", False: "**missed**"}
    table = "| job | Weir's figure | median (min..max) | bar | |\n| --- | --- | --- | --- | --- |\n"
    return table + "\n".join(
        f"| {row.title} | {row.what} | {row.values} | {row.bar} | {words[row.holds]} |"
        for row in rows)


def details(run, job):
    """One job's table, a row a proxy."""
    if job.measure == "features":
        return f"**{job.title}**\n\n{features.table(chosen(run, job))}"
    columns = {"load": LOAD, "open": OPEN, "shards": LOAD, "spin": LOAD, "memory": MEMORY, "asleep": ASLEEP}
    columns = [(title.replace("request", job.unit), cell) for title, cell in columns[job.measure]]
    lines = [f"**{job.title}**", ""]
    lines.append("| proxy | " + " | ".join(title for title, _ in columns) + " |")
    lines.append("| --- |" + " --- |" * len(columns))
    for peer in peers_of(run, job):
        samples = chosen(run, job, peer)
        lines.append(f"| {peer} | " + " | ".join(cell(samples) for _, cell in columns) + " |")
    return "\n".join(lines)


def number(field, scale=1.0, digits=1):
    """A cell: the median of a field; not every load tells all."""
    def cell(samples):
        return f"{middle(samples, field) * scale:,.{digits}f}" if field in samples[0] else "-"
    return cell


LOAD = [
    ("CPU µs/request", number("cpu_us")),
    ("requests/s", number("rate", digits=0)),
    ("p50 µs", number("p50_us", digits=0)),
    ("p99 µs", number("p99_us", digits=0)),
    ("core used %", number("cpu_share", 100, 0)),
    ("switches/request, own", number("voluntary", digits=3)),
    ("forced", number("involuntary", digits=3)),
    ("errors", lambda samples: str(sum(s["errors"] for s in samples))),
]
# At a rate: what the load could not send, or had no answer to, when the window ended.
OPEN = [*LOAD[:-1], ("not done in time", lambda samples: f"{sum(s['unsent'] for s in samples):,}"), LOAD[-1]]
MEMORY = [
    ("bytes/connection", number("bytes_per_connection", digits=0)),
    ("connections", number("connections", digits=0)),
    ("descriptors", number("descriptors", digits=0)),
    ("resident before, KiB", number("resident_before", 1 / 1024, 0)),
]
ASLEEP = [
    ("% of a core", number("cpu_share", 100, 2)),
    ("switches/s", number("switches_per_second", digits=1)),
]


def notes(run):
    """How the equal jobs were made equal, and what disturbed the run."""
    jobs = [job for job in JOBS if chosen(run, job)]
    groups = {job.group for job in jobs}
    text = (
        "CPU is utime + stime of the proxy's whole process tree over the measured window, divided by what the load "
        "counted. Ratios are taken within each round; the table shows their median and range. Access logs off.")
    if groups & {"http", "tls"}:
        text += " X-Forwarded-For added, upstream keep-alive everywhere."
    if any(job.bulk for job in jobs):
        text += f" Bodies of 1 MiB and more: {run['meta']['bulk_note']}."
    if "tls" in groups:
        text += (" An ECDSA P-256 certificate; TLS 1.3, AES-128-GCM and X25519 everywhere, HTTP/1.1 to the origin. "
                 "The client counted that all handshakes of a sample were full, or all resumed.")
    if "l4" in groups:
        text += " nginx by its stream module, HAProxy in mode tcp with splice-auto."
    lines = [text]
    shares = [s["foreign_share"] for s in run["samples"]
              if "foreign_share" in s and s["job"] != "shards"]
    if shares and statistics.median(shares) > NOISY:
        lines.append(
            f"Disturbed: others used {statistics.median(shares) * 100:.0f} % of the proxy's core (median).")
    return "\n\n".join(lines)
