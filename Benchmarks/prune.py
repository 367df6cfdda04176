#!/usr/bin/env python3
"""Measures forgetting and pruning beside restic: many nights of edits, then half of them forgotten.

Both tools back up the same tree after the same edits, 1 % of the files each night, into repositories
that lie side by side. Then `forget --keep-last` and `prune` are timed, each a process of its own;
batchsync's repository has no grace period, so that one prune does both phases. Each tool gets its
passphrase, since both rewrite what is dead in part. The repositories as they were before are kept
aside as hard links, so that a further round starts from the same ones.

Printed are wall time, CPU time, peak memory, the bytes rewritten and what stays unused, with ratios
to restic and the goals beside them.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys

import run
import tools

WALL_GOAL = 0.35
MB = 1e6


class Batchsync(tools.Batchsync):
    def initialise(self):
        self.run("init", "-r", self.repository, "--grace-hours", "0",
                 BATCHSYNC_PASSPHRASE=tools.PASSWORD)

    def commands(self, keep):
        self.needs_passphrase = True
        return [[self.binary, "forget", "--keep-last", str(keep), "-r", self.repository],
                [self.binary, "prune", "--json", "-r", self.repository]]

    def told(self, log):
        """(bytes rewritten, bytes unused that are left)"""
        with open(log) as file:
            report = json.loads([line for line in file if line.startswith("{")][-1])
        return report["written"]["bytes"], report["unused_left"]

    def count(self):
        return len(json.loads(self.run("snapshots", "--json", "-r", self.repository))["snapshots"])

    def check(self):
        self.run("verify", "-r", self.repository, BATCHSYNC_PASSPHRASE=tools.PASSWORD)


class Restic(tools.Restic):
    UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}

    def commands(self, keep):
        return [[self.binary, "forget", "--keep-last", str(keep)], [self.binary, "prune"]]

    def told(self, log):
        with open(log) as file:
            text = file.read()

        def bytes_of(label):
            found = re.search(rf"{label}:[^\n]*?([\d.]+) (\w+)\s*(?:\(|\n)", text)
            return int(float(found[1]) * self.UNITS[found[2]]) if found else None

        # What it repacks holds what is removed after it, too.
        repacked, removed = bytes_of("to repack"), bytes_of("this removes")
        written = None if repacked is None else repacked - (removed or 0)
        return written, bytes_of("unused size after prune")

    def count(self):
        return len(json.loads(self.run("snapshots", "--json")))

    def check(self):
        self.run("check")


ALL = {"batchsync": Batchsync, "restic": Restic}


def link_tree(source, target):
    """Copies a tree, its files as hard links; no tool changes a stored file in place."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-al", source, target], check=True)


class PruneBench:
    def __init__(self, options, directory, binaries):
        self.options, self.directory = options, directory
        place = os.path.join(directory, options.data)
        self.tree = os.path.join(place, "tree")
        self.logs = os.path.join(directory, "logs")
        os.makedirs(self.logs, exist_ok=True)
        self.tools = [ALL[name](binary, os.path.join(place, "prune", name), self.tree)
                      for name, binary in binaries.items()]
        self.rounds = {tool.name: [] for tool in self.tools}

    def saved(self, tool):
        return tool.place + ".saved"

    def build(self):
        """The nights, unless they are there from an earlier run."""
        stamp = f"{self.options.generations} nights, seed {self.options.seed}"
        mark = os.path.join(self.directory, self.options.data, "prune", "made")
        names = [tool.name for tool in self.tools]
        try:
            with open(mark) as file:
                made = json.load(file)
            if made["stamp"] == stamp and set(names) <= set(made["tools"]):
                return
        except FileNotFoundError:
            pass
        shutil.rmtree(os.path.dirname(mark), ignore_errors=True)
        made = run.call_datasets("make", self.directory, self.options.data, self.options.seed)
        run.say(f"{self.options.data}: {made['files']:,} files, {made['bytes'] / 1e9:.2f} GB")
        try:
            for tool in self.tools:
                tool.create()
            for night in range(self.options.generations):
                if night:
                    run.call_datasets("change", self.directory, self.options.data,
                                      self.options.seed, night)
                for tool in self.tools:
                    argv, environment, directory = tool.command("first")
                    status, wall, _, _ = run.measure(
                        argv, environment, directory, self.log(tool, "backup"))
                    if status not in tool.accepted:
                        raise run.Failure(f"{tool.name}: backup {night} ended with {status}")
                run.say(f"  night {night + 1} of {self.options.generations}")
        finally:
            run.call_datasets("undo", self.directory, self.options.data, self.options.seed)
        for tool in self.tools:
            link_tree(tool.place, self.saved(tool))
        with open(mark, "w") as file:
            json.dump({"stamp": stamp, "tools": names}, file)

    def log(self, tool, step):
        return os.path.join(self.logs, f"{self.options.data}-{tool.name}-prune-{step}.log")

    def measure(self, tool):
        # A copy of its own: the caches and states beside the repository are written in place.
        shutil.rmtree(tool.place, ignore_errors=True)
        subprocess.run(["cp", "-a", self.saved(tool), tool.place], check=True)
        os.sync()
        run.warm(tool.repository)
        before = tool.size()[0]
        figures = {"wall": 0.0, "cpu": 0.0, "memory": 0}
        for number, argv in enumerate(tool.commands(self.options.keep)):
            log = self.log(tool, str(number))
            status, wall, cpu, memory = run.measure(argv, tool.environment(), tool.place, log)
            if status not in tool.accepted:
                raise run.Failure(f"{' '.join(argv)} ended with {status}; see {log}")
            figures["wall"] += wall
            figures["cpu"] += cpu
            figures["memory"] = max(figures["memory"], memory)
            figures["prune" if number else "forget"] = wall
        figures["written"], figures["unused"] = tool.told(log)
        figures["freed"] = before - tool.size()[0]
        figures["left"] = tool.size()[0]
        if tool.count() != self.options.keep:
            raise run.Failure(f"{tool.name} has {tool.count()} snapshots left")
        tool.check()
        self.rounds[tool.name].append(figures)
        run.say(f"  {tool.name:10} {figures['wall']:7.2f} s  CPU {figures['cpu']:7.2f} s  "
                f"{figures['memory'] / MB:5.0f} MB")

    def median(self, tool, what):
        values = [one[what] for one in self.rounds[tool] if one[what] is not None]
        return statistics.median(values) if values else None

    def table(self):
        names = [tool.name for tool in self.tools]
        lines = [f"## forget {self.options.generations - self.options.keep} of "
                 f"{self.options.generations} snapshots over {self.options.data}, and prune; "
                 f"median of {self.options.runs}", "",
                 "| | goal | " + " | ".join(names) + " | ratio |",
                 "|---|---|" + "---:|" * (len(names) + 1)]
        rows = [("forget and prune, s", "wall", 1, WALL_GOAL), ("forget, s", "forget", 1, None),
                ("prune, s", "prune", 1, None), ("CPU, s", "cpu", 1, None),
                ("peak memory, MB", "memory", MB, None),
                ("rewritten, MB", "written", MB, 1.0), ("freed, MB", "freed", MB, None),
                ("unused after that, MB", "unused", MB, None), ("left, MB", "left", MB, None)]
        for label, what, unit, goal in rows:
            values = [self.median(name, what) for name in names]
            cells = ["–" if value is None else f"{value / unit:.2f}" for value in values]
            ratio = verdict = ""
            if "restic" in names and "batchsync" in names:
                ours, theirs = self.median("batchsync", what), self.median("restic", what)
                if ours is not None and theirs:
                    ratio = f"{ours / theirs:.2f} ×"
                    if goal:
                        met = ours <= goal * theirs
                        verdict = f"≤ {goal:.2f} × {'met' if met else 'MISSED'}"
            lines.append(f"| {label} | {verdict} | " + " | ".join(cells) + f" | {ratio} |")
        return "\n".join(lines)


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: Benchmarks/prune.py --data small-4000 --runs 1")
    parser.add_argument("--data", default="small", help="data set (default small; small-N to try)")
    parser.add_argument("--generations", type=int, default=20, help="nights (default 20)")
    parser.add_argument("--keep", type=int, default=10, help="snapshots that stay (default 10)")
    parser.add_argument("--runs", type=int, default=3, help="rounds; the median counts (default 3)")
    parser.add_argument("--tools", default="batchsync,restic", help="of batchsync, restic")
    parser.add_argument("--seed", type=int, default=run.datasets.SEED)
    parser.add_argument("--directory", help="as for run.py")
    parser.add_argument("--discard", action="store_true", help="remove the repositories at the end")
    return parser.parse_args(arguments)


def main():
    options = parse(sys.argv[1:])
    directory = os.path.abspath(options.directory or os.environ.get("BENCH_DIR")
                                or os.path.join(run.ROOT, ".build/bench"))
    os.makedirs(directory, exist_ok=True)
    bench = PruneBench(options, directory, run.find_binaries(options.tools.split(",")))
    print(f"Machine: {run.describe_machine(directory)}")
    for tool in bench.tools:
        print(f"{tool.name}: {tool.version()}")
    bench.build()
    for _ in range(options.runs):
        for tool in bench.tools:
            bench.measure(tool)
    print(bench.table())
    if options.discard:
        shutil.rmtree(os.path.join(directory, options.data, "prune"), ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (run.Failure, RuntimeError) as failure:
        sys.exit(f"benchmarks: {failure}")
