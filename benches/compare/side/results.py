"""Pure: what the load generators print, read into samples (times in µs)."""

import json
import re

from side.procs import Failure

MIB = 1 << 20


def read_loadgen(report):
    """The numbers we compare out of loadgen's JSON report; latencies count from when a request was due."""
    total = report["latency"]["total"]
    late = report["rate"]["unsent"] + report["unfinished"]
    # A percentile among those that had no answer is not told. It is no less than the longest wait
    # for one; the page shows beside it how many were not done.
    p50, p99 = (total["max"] if total[name] is None else total[name] for name in ("p50", "p99"))
    return {"requests": report["requests"], "seconds": report["duration"], "unsent": late,
            "errors": report["errors"]["total"], "p50_us": p50 * 1e6, "p99_us": p99 * 1e6}


def read_result(said):
    """The numbers of a result line: wrk's script prints it, and our C programs do."""
    for line in said.splitlines():
        if line.startswith("RESULT"):
            names = ("requests", "micros", "errors", "p50_us", "p99_us", "resumed")
            sample = dict(zip(names, (int(n) for n in line.split()[1:])))
            sample["seconds"] = sample.pop("micros") / 1e6
            return sample
    raise Failure(f"the load printed no result: {said[-500:]}")


def read_h2load(said):
    """h2load's summary; it tells what was negotiated, and knows no percentiles."""
    for wanted in ("TLS Protocol: TLSv1.3", "Cipher: TLS_AES_128_GCM_SHA256", "Server Temp Key: X25519",
                   "Application protocol: h2"):
        if wanted not in said:
            raise Failure(f"h2load did not get `{wanted}`: {said[-1500:]}")
    seconds, counts = re.search(r"finished in ([\d.]+)s", said), re.search(
        r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored", said)
    good = re.search(r"status codes: (\d+) 2xx", said)
    if not (seconds and counts and good):
        raise Failure(f"h2load printed no result: {said[-500:]}")
    return {"requests": int(good.group(1)), "seconds": float(seconds.group(1)),
            "errors": int(counts.group(2)) + int(counts.group(3))}


def read_iperf3(said):
    """iperf3's report: MiB that arrived stand in for requests. With -J it ends with 0 when it fails, too, and says why
    in the report."""
    report = json.loads(said)
    total = report.get("end", {}).get("sum_received")
    if "error" in report or total is None:
        raise Failure(f"iperf3 gave no result: {report.get('error', said[-500:])}")
    return {"requests": total["bytes"] / MIB, "seconds": total["seconds"], "errors": 0}
