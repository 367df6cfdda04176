#!/usr/bin/env python3
"""Measures `batchsync status`, which monitoring asks every minute: a host with many profiles of two
stores each that has run them every night for years. Prints the median of some calls.

    BATCHSYNC_BINARY=/path/to/batchsync Benchmarks/status.py [--profiles 10] [--years 5] [--calls 21]

One night is run for real. Those before it are made of it: lines of the history with earlier dates,
and a size of the store for every day that a record keeps.
"""

import argparse
import datetime
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
GOAL_MILLISECONDS = 100


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--profiles", type=int, default=10)
    parser.add_argument("--years", type=int, default=5)
    parser.add_argument("--calls", type=int, default=21)
    options = parser.parse_args()
    binary = os.environ.get(
        "BATCHSYNC_BINARY", os.path.join(os.path.dirname(HERE), ".build/release/batchsync"))
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as scratch:
        measure(binary, scratch, options)


def measure(binary, scratch, options):
    environment = {
        "PATH": os.environ["PATH"], "HOME": scratch, "TZ": "UTC",
        **{f"BATCHSYNC_{name}_DIR": os.path.join(scratch, name.lower())
           for name in ("CONFIG", "CACHE", "STATE")},
    }

    def call(*words):
        return subprocess.run([binary, *words], env=environment, check=True, cwd=scratch,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout

    os.makedirs(os.path.join(scratch, "config"))
    os.makedirs(os.path.join(scratch, "data"))
    with open(os.path.join(scratch, "data", "file"), "w") as file:
        file.write("hello\n")
    for number in range(options.profiles):
        stores = [os.path.join(scratch, f"{place}-{number}") for place in ("first", "second")]
        with open(os.path.join(scratch, "config", f"job-{number}.toml"), "w") as file:
            file.write(f'[repository]\nlocation = "{stores[0]}"\n'
                       f'[[replica]]\nlocation = "{stores[1]}"\n'
                       f'[source]\npaths = ["{scratch}/data"]\n')
        call("init", "-r", stores[0], "--no-encryption")
        call("init", "--replica-of", stores[0], "-r", stores[1])
        call("run", "--quiet", f"job-{number}")
    lines = age(os.path.join(scratch, "state"), options.years * 365)
    took = []
    for _ in range(options.calls):
        begin = time.perf_counter()
        call("status", "--json")
        took.append((time.perf_counter() - begin) * 1000)
    middle = statistics.median(took)
    print(f"status of {options.profiles} profiles with two stores each, {lines:,} runs remembered: "
          f"{middle:.0f} ms, the slowest {max(took):.0f} ms (goal: below {GOAL_MILLISECONDS} ms)")
    begin = time.perf_counter()
    call("history", "job-0", "--json")
    print(f"history of one of them: {(time.perf_counter() - begin) * 1000:.0f} ms")
    sys.exit(middle >= GOAL_MILLISECONDS)


def age(state, nights):
    """Makes the one night that there was into many; gives how many runs the history has then."""
    today = datetime.datetime.now(datetime.timezone.utc)
    count = 0
    for path in glob.glob(os.path.join(state, "history", "*.jsonl")):
        with open(path) as file:
            run = json.loads(file.readlines()[-1])
        with open(path, "w") as file:
            for night in range(nights, -1, -1):
                begun = today - datetime.timedelta(days=night)
                run["began"] = begun.strftime("%Y-%m-%dT%H:%M:%S.000000000Z")
                file.write(json.dumps(run, separators=(",", ":")) + "\n")
                count += 1
    day = int(today.timestamp()) // 86_400
    for path in glob.glob(os.path.join(state, "status", "*.json")):
        with open(path) as file:
            record = json.load(file)
        if "space" not in record:
            raise SystemExit(f"{path} keeps no sizes by day any more: see StatusRecordCoding.swift")
        size = 10 ** 12
        record["space"] = {str(day - back): size - back * 10 ** 9 for back in range(399, -1, -1)}
        with open(path, "w") as file:
            json.dump(record, file)
    return count


if __name__ == "__main__":
    main()
