"""The verdicts on a run's samples, and the page that shows them. Pure."""

import statistics

SHARES = {"p50": "p50", "p90": "p90", "p99": "p99", "p999": "p99.9"}
SHARE_OF_DELAY, LEAST_US = 0.02, 50.0
STALL_SHARE, RATE_SHARE, THROUGHPUT_SHARE, CPU_RATIO, SATURATED = 0.05, 0.005, 0.05, 1.0, 0.97


class Line:
    """One judged figure: what it is, what was measured and what it may be, in words, and whether it holds."""

    def __init__(self, what, measured, bar, holds):
        self.what, self.measured, self.bar, self.holds = what, measured, bar, holds


def lines(samples):
    """All verdicts, medians over the rounds of each sample."""
    judges = {"latency": latency, "stall": stall, "rate": rate}
    found = []
    for check, judge in judges.items():
        names = dict.fromkeys(s["name"] for s in samples if s["check"] == check)
        for name in names:
            found += judge(name, [s for s in samples if s["check"] == check and s["name"] == name])
    return found + cost([s for s in samples if s["check"] == "cost"])


def median(samples, *keys):
    """The median over the samples of what stands under `keys`."""
    def value(sample):
        for key in keys:
            sample = sample[key]
        return sample
    return statistics.median(value(sample) for sample in samples)


def latency(name, rounds):
    """Percentiles within 2 % or 50 µs of what the origin recorded; nothing is subtracted."""
    found = []
    for key, shown in SHARES.items():
        ours, origin = median(rounds, "loadgen_us", key), median(rounds, "origin_us", key)
        over = over_origin(rounds, key)
        bar = max(SHARE_OF_DELAY * origin, LEAST_US)
        found.append(Line(f"{name}: {shown}", f"{over:+.0f} µs ({ours:,.0f} beside {origin:,.0f})",
                          f"±{bar:,.0f} µs", abs(over) <= bar))
    return found


def over_origin(rounds, key):
    """What loadgen sees beyond the origin's own record, µs."""
    return statistics.median(s["loadgen_us"][key] - s["origin_us"][key] for s in rounds)


def stall(name, rounds):
    """The corrected p99 within 5 % of theory."""
    p99, theory = median(rounds, "p99_s"), median(rounds, "theory_s")
    off = statistics.median(s["p99_s"] / s["theory_s"] - 1 for s in rounds)
    uncorrected = median(rounds, "uncorrected_p99_s")
    return [Line(f"{name}: corrected p99", f"{off:+.1%} ({p99:.4f} s beside {theory:.4f} s; uncorrected "
                 f"{uncorrected * 1e3:.2f} ms)", f"±{STALL_SHARE:.0%}", abs(off) <= STALL_SHARE)]


def rate(_, rounds):
    """The rate within 0.5 %, by loadgen's count and by the origin's clock."""
    asked = rounds[0]["asked"]
    worst = max((s[key] / asked - 1 for s in rounds for key in ("achieved", "seen_by_origin")), key=abs)
    late = pair(rounds, "late_us") if all(s["late_us"] for s in rounds) else "always"
    measured = f"{worst:+.3%}; late by {late}, errors of arrival {pair(rounds, 'arrival_error_us')} (p50/p99, µs)"
    return [Line(f"{asked:,} requests a second", measured, f"±{RATE_SHARE:.1%}", abs(worst) <= RATE_SHARE)]


def pair(rounds, key):
    """The medians of a p50 and a p99."""
    return "/".join(f"{median(rounds, key, point):.0f}" for point in ("p50", "p99"))


def cost(samples):
    """Throughput within 5 % of wrk's against the same saturated target; CPU a request no more than wrk's.

    A request that failed cost something else than an answer: with errors on either side nothing of it holds."""
    if not samples:
        return []
    pairs = {}
    for sample in samples:
        pairs.setdefault(sample["round"], {})[sample["name"]] = sample
    ratios = {key: statistics.median(pair["loadgen"][key] / pair["wrk"][key] for pair in pairs.values())
              for key in ("throughput", "cpu_us")}
    of = {name: [s for s in samples if s["name"] == name] for name in ("loadgen", "wrk")}
    shown = {key: [median(of[name], key) for name in ("loadgen", "wrk")] for key in ("throughput", "cpu_us")}
    busy = min(median(of[name], "target_busy") for name in of)
    errors = {name: sum(s["errors"] for s in of[name]) for name in of}
    clean = not any(errors.values())
    found = [
        Line("the target is saturated", f"nginx used {busy:.1%} of its core", f"≥ {SATURATED:.0%}",
             busy >= SATURATED),
        Line("throughput / wrk's", "{:.3f} ({:,.0f} and {:,.0f} a second)".format(
            ratios["throughput"], *shown["throughput"]), f"1 ± {THROUGHPUT_SHARE:g}",
            abs(ratios["throughput"] - 1) <= THROUGHPUT_SHARE),
        Line("own CPU a request / wrk's", "{:.3f} ({:.2f} and {:.2f} µs)".format(
            ratios["cpu_us"], *shown["cpu_us"]), f"≤ {CPU_RATIO:.1f}", ratios["cpu_us"] <= CPU_RATIO),
    ]
    if not clean:
        shown = "{loadgen:,} of loadgen's and {wrk:,} of wrk's requests failed".format(**errors)
        found = [Line("no request failed", shown, "0", False),
                 *(Line(line.what, line.measured, line.bar, False) for line in found)]
    return found


def render(run):
    """The page of a run."""
    meta, samples = run["meta"], run["samples"]
    rows = [f"| {line.what} | {line.measured} | {line.bar} | {'holds' if line.holds else 'MISSED'} |"
            for line in lines(samples)]
    bare = [s for s in samples if s["check"] == "bare"]
    text = [
        "# How exact loadgen is", "",
        f"{meta['date']}: {meta['loadgen']}; {meta['wrk']}; {meta['nginx']}. Linux {meta['kernel']}, {meta['cpu']}, "
        f"{meta['cores']} cores. {meta['rounds']} rounds of {meta['seconds']:g} s, loopback; load on core "
        f"{meta['load_core']}, target on core {meta['target_core']}; nice {meta['nice']}. Medians over the rounds; "
        f"of a rate the worst round. Command: `{meta['command']}`.", "",
        "| what | measured | bar | verdict |", "| --- | --- | --- | --- |", *rows, ""]
    if "note" in meta:  # what a run that was made otherwise says of itself
        text += [meta["note"], ""]
    if bare:
        both = [f"{median(bare, side, key):.0f}" for side in ("loadgen_us", "origin_us") for key in ("p50", "p99")]
        text += ["A bare round trip (no delay, one request at a time) takes, by loadgen, {} µs at p50 and {} at p99; "
                 "the origin has {} and {} of them. Nothing of it is subtracted above.".format(*both), ""]
    asleep = [s for s in samples if s["check"] == "asleep"]
    if asleep:
        over = [f"{shown} {over_origin(asleep, key):+.0f} µs" for key, shown in SHARES.items()]
        text += ["Without `--spin` loadgen's core falls asleep between the answers, and its waking up is in the times: "
                 f"{', '.join(over)} in place of the first four lines.", ""]
    return "\n".join(text)
