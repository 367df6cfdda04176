#!/usr/bin/env python3
"""Measures batchsync beside restic, borg and a plain pipeline, all in one run, and prints a table.

Each step of each tool is a process of its own: wall time, CPU time and peak memory are those of the
process and its children. Tools take turns within a round, so that a drift of the machine meets all
of them; the figure is the median of the rounds. The page cache is warm: what a step reads is read
once before. Deleting a restored tree slows the next restore down on ext4, so the disk is synced and
the caches are dropped in between, which needs root.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time

import datasets
import tools

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)

# In the order in which they run, with what a person calls them.
STEPS = {
    "first": "first backup",
    "unchanged": "nothing changed",
    "snapshots": "list snapshots",
    "verify": "verify structure",
    "verify-data": "verify, reading all data",
    "restore-one": "restore one file",
    "restore": "restore all",
    "changed": "1 % of files changed",
    "diff": "diff of two snapshots",
    "renamed": "large directory renamed",
}
BACKUPS = ("first", "unchanged", "changed", "renamed")

# The ratio to restic's wall time to reach, by data set; for million the ratio to find's.
COMMON = {
    "unchanged": 0.10, "changed": 0.20, "renamed": 0.12, "snapshots": 0.10, "diff": 0.25,
    "restore-one": 0.80, "verify": 0.40, "verify-data": 0.50,
}
GOALS = {
    "small": {**COMMON, "first": 0.40, "restore": 0.60, "bytes": 0.90, "objects": 40, "memory": 150},
    "src": {**COMMON, "first": 0.33, "restore": 0.50, "bytes": 0.93, "objects": 40, "memory": 150},
    "big": {"first": 0.45, "added": 0.35, "memory": 150},
    "million": {"unchanged": 1.0, "memory": 200},
}
DATA_STEPS = {
    "small": list(STEPS), "src": list(STEPS), "big": ["first", "changed"],
    "million": ["first", "unchanged"],
}
DATA_TOOLS = {
    "small": ["batchsync", "restic", "borg", "tar|zstd|age"],
    "src": ["batchsync", "restic", "borg", "tar|zstd|age"],
    "big": ["batchsync", "restic", "borg"],
    "million": ["batchsync", "find"],
}
MB = 1e6


class Failure(Exception):
    pass


def say(text):
    print(text, file=sys.stderr, flush=True)


def call_datasets(*arguments):
    """Runs datasets.py beside us: a process that has been large once would spoil peak memory."""
    done = subprocess.run([sys.executable, os.path.join(HERE, "datasets.py"),
                           *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failure(f"data set: datasets.py {' '.join(map(str, arguments))} failed")
    return json.loads(done.stdout)


def warm(directory):
    """Reads everything below a directory once."""
    subprocess.run(
        ["sh", "-c", 'find "$1" -type f -print0 | xargs -0 -r -P 2 -n 400 cat >/dev/null 2>&1',
         "sh", directory])


def measure(argv, environment, directory, log):
    """Runs a command; returns status, wall seconds, CPU seconds and peak memory in bytes."""
    with open(log, "wb") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(argv, env=environment, cwd=directory, stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            raise
        wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


class Bench:
    """One data set, measured with several tools."""

    def __init__(self, directory, name, seed, runs, chosen, steps, binaries):
        self.directory, self.name, self.seed, self.runs = directory, name, seed, runs
        self.steps = [step for step in STEPS if step in steps]
        self.tree = os.path.join(directory, name, "tree")
        self.target = os.path.join(directory, name, "restored")
        self.logs = os.path.join(directory, "logs")
        os.makedirs(self.logs, exist_ok=True)
        self.tools = []
        for tool in chosen:
            place = os.path.join(directory, name, "tools", tool.replace("|", "-"))
            self.tools.append(tools.ALL[tool](binaries[tool], place, self.tree))
        self.measured = {}  # (tool, step) -> list of {wall, cpu, memory, added}
        self.sizes = {}  # tool -> (bytes, objects) after the first backup
        self.failed = {}  # tool -> why; a tool that failed once takes no further part
        self.warm = set()
        self.settled = set()  # tools whose last snapshot shows the tree as it is
        self.changes = int(time.time())  # so that each change of each run is a new one

    def make(self):
        self.made = call_datasets("make", self.directory, self.name, self.seed)
        say(f"{self.name}: {self.made['files']:,} files in {self.made['directories']:,} directories, "
            f"{self.made['bytes'] / 1e9:.2f} GB, seed {self.made['seed']}")

    def warm_up(self, directory):
        if directory not in self.warm:
            warm(directory)
            self.warm.add(directory)
        os.sync()

    def clear_target(self):
        if os.path.exists(self.target):
            shutil.rmtree(self.target)
            os.sync()
            if os.geteuid() == 0:
                with open("/proc/sys/vm/drop_caches", "w") as file:
                    file.write("3\n")
                self.warm.clear()

    def do(self, tool, step, counted=True):
        """Runs one step of one tool and keeps the figures."""
        if tool.name in self.failed or step not in tool.steps:
            return
        backup = step in BACKUPS
        try:
            if step == "first":
                tool.create()
            elif not tool.exists():
                tool.create()
                self.do(tool, "first", counted=False)
                if tool.name in self.failed:
                    return
            self.warm_up(self.tree if backup else tool.repository)
            target = path = None
            if step.startswith("restore"):
                os.makedirs(self.target)
                target = self.target
                if step == "restore-one":
                    path = self.one
            before = tool.size()[0] if backup else 0
            argv, environment, directory = tool.command(step, target, path)
            log = os.path.join(self.logs, f"{self.name}-{tool.name.replace('|', '-')}-{step}.log")
            status, wall, cpu, memory = measure(argv, environment, directory, log)
            if status not in tool.accepted:
                with open(log, "rb") as file:
                    tail = file.read()[-1500:].decode(errors="replace").strip()
                raise Failure(f"{' '.join(argv)} ended with {status}:\n{tail}\n(whole log: {log})")
            if backup:
                self.warm.discard(tool.repository)
                self.settled.add(tool.name)
            if step == "first":
                self.sizes[tool.name] = tool.size()
            if step == "restore":
                self.check_restored(tool)
        except (Failure, RuntimeError, OSError) as failure:
            self.failed[tool.name] = f"{step}: {failure}"
            say(f"  {tool.name}: {step} FAILED: {failure}")
            return
        finally:
            if step.startswith("restore"):
                self.clear_target()
        if counted:
            added = tool.size()[0] - before if backup else 0
            self.measured.setdefault((tool.name, step), []).append(
                {"wall": wall, "cpu": cpu, "memory": memory, "added": added})
            say(f"  {STEPS[step]:26} {tool.name:13} {wall:8.2f} s  CPU {cpu:7.2f} s  "
                f"{memory / MB:6.0f} MB" + (f"  +{added / MB:.1f} MB" if backup else ""))

    def check_restored(self, tool):
        found = json.loads(subprocess.run(
            [sys.executable, "-c", "import datasets, json, sys;"
             "print(json.dumps(datasets.count_tree(sys.argv[1])))", tool.restored(self.target)],
            cwd=HERE, stdout=subprocess.PIPE, check=True, text=True).stdout)
        for what in ("files", "directories", "bytes"):
            if found[what] != self.made[what]:
                raise Failure(f"restored {found[what]} {what} instead of {self.made[what]}")

    def settle(self):
        for tool in self.tools:
            if tool.name not in self.settled and "first" in tool.steps:
                self.do(tool, "unchanged", counted=False)

    def run(self):
        self.make()
        self.clear_target()
        self.one = call_datasets("choose", self.directory, self.name, self.seed)
        try:
            for step in self.steps:
                if step in ("unchanged", "restore"):
                    self.settle()
                for _ in range(self.runs):
                    if step in ("changed", "renamed"):
                        self.settle()
                        self.changes += 1
                        verb = "change" if step == "changed" else "rename"
                        how = call_datasets(verb, self.directory, self.name, self.seed, self.changes)
                        say(f"  {how:,} files changed" if step == "changed"
                            else f"  a directory with {how:.1%} of the files renamed")
                        self.warm.discard(self.tree)
                        self.settled.clear()
                    for tool in self.tools:
                        self.do(tool, step)
        finally:
            call_datasets("undo", self.directory, self.name, self.seed)

    # The table -----------------------------------------------------------------------------------

    def median(self, tool, step, what):
        rounds = self.measured.get((tool, step))
        return statistics.median(one[what] for one in rounds) if rounds else None

    def rows(self):
        """What the table shows: (label, goal, {tool: text}), ratios to the reference tool."""
        goals = GOALS[self.name]
        reference = "find" if self.name == "million" else "restic"

        def judged(value, base, goal):
            if value is None or goal is None:
                return ""
            if base is None:
                return f"≤ {goal:.2f} ×"
            return f"≤ {goal:.2f} × {'met' if value / base <= goal else 'MISSED'}"

        for step in self.steps:
            base = self.median(reference, step, "wall")
            cells = {}
            for tool in self.tools:
                wall = self.median(tool.name, step, "wall")
                if wall is None:
                    continue
                ratio = f"{wall / base:.2f} ×" if base and tool.name != reference else ""
                cells[tool.name] = (f"{wall:.2f}", f"{self.median(tool.name, step, 'cpu'):.1f}",
                                    f"{self.median(tool.name, step, 'memory') / MB:.0f}", ratio)
            if cells:
                yield STEPS[step], judged(self.median("batchsync", step, "wall"), base,
                                          goals.get(step)), cells
        if any(tool in self.sizes for tool in DATA_TOOLS[self.name]) and "first" in self.steps:
            base = self.sizes.get("restic", (None,))[0]
            ours = self.sizes.get("batchsync", (None, None))
            cells = {tool: (f"{size / MB:.1f} MB", "", "",
                            f"{size / base:.2f} ×" if base and tool != "restic" else "")
                     for tool, (size, _) in self.sizes.items()}
            yield "repository bytes", judged(ours[0], base, goals.get("bytes")), cells
            goal = goals.get("objects")
            verdict = ""
            if goal and ours[1] is not None:
                verdict = f"≤ {goal} {'met' if ours[1] <= goal else 'MISSED'}"
            yield "objects", verdict, {tool: (str(count), "", "", "")
                                       for tool, (_, count) in self.sizes.items()}
        for step in ("changed", "renamed"):
            base = self.median("restic", step, "added")
            cells = {}
            for tool in self.tools:
                added = self.median(tool.name, step, "added")
                if added is not None:
                    ratio = f"{added / base:.2f} ×" if base and tool.name != "restic" else ""
                    cells[tool.name] = (f"{added / MB:.1f} MB", "", "", ratio)
            if cells:
                goal = goals.get("added") if step == "changed" else None
                yield (f"bytes added, {STEPS[step]}",
                       judged(self.median("batchsync", step, "added"), base, goal), cells)
        peaks = {tool.name: max((one["memory"] for (name, _), rounds in self.measured.items()
                                 for one in rounds if name == tool.name), default=None)
                 for tool in self.tools}
        verdict = ""
        if peaks.get("batchsync") is not None:
            met = peaks["batchsync"] <= goals["memory"] * MB
            verdict = f"≤ {goals['memory']} MB {'met' if met else 'MISSED'}"
        yield "peak memory, every step", verdict, {
            tool: ("", "", f"{peak / MB:.0f}", "") for tool, peak in peaks.items() if peak}

    def table(self):
        made = self.made
        reference = "find" if self.name == "million" else "restic"
        lines = [f"## {self.name}: {made['files']:,} files in {made['directories']:,} directories, "
                 f"{made['bytes'] / 1e9:.2f} GB; seed {made['seed']}; median of {self.runs}; "
                 f"ratios to {reference}", ""]
        names = [tool.name for tool in self.tools]
        header = ["step", "goal"]
        for name in names:
            header += [name.replace("|", " ") + " s", "CPU s", "MB", "ratio"]
        table = [header]
        for label, goal, cells in self.rows():
            row = [label, goal]
            for name in names:
                row += cells.get(name, ("–", "", "", ""))
            table.append(row)
        widths = [max(len(row[column]) for row in table) for column in range(len(header))]
        for number, row in enumerate(table):
            cells = [cell.ljust(widths[column]) if column < 2 else cell.rjust(widths[column])
                     for column, cell in enumerate(row)]
            lines.append("| " + " | ".join(cells) + " |")
            if number == 0:
                lines.append("|" + "|".join("-" * (width + 2) for width in widths) + "|")
        pipeline, ours = (self.median(tool, "first", "wall") for tool in ("tar|zstd|age", "batchsync"))
        if pipeline and ours:
            lines += ["", f"The first backup takes {ours / pipeline:.2f} × the time of tar|zstd|age."]
        for tool, why in self.failed.items():
            lines += ["", f"{tool} failed at {why}"]
        return "\n".join(lines)


def describe_machine(directory):
    model = "unknown processor"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) / 1024 / 1024
    kind = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", directory], text=True,
                          stdout=subprocess.PIPE).stdout.strip()
    return (f"{os.cpu_count()} × {model}, {memory:.0f} GiB, Linux {platform.release()}, {kind}, "
            f"load {os.getloadavg()[0]:.2f}, {datetime.datetime.now():%Y-%m-%d %H:%M}")


def find_binaries(names):
    """Where each tool is; installs restic where there is none of ours yet."""
    found = {}
    for name in names:
        if name == "batchsync":
            path = os.environ.get("BATCHSYNC_BINARY") or os.path.join(ROOT, ".build/release/batchsync")
            if not os.access(path, os.X_OK):
                raise SystemExit(f"benchmarks: there is no batchsync at {path}; run `make build`, "
                                 "name one in BATCHSYNC_BINARY, or leave it out of --tools")
        elif name == "restic":
            path = subprocess.run(
                [os.path.join(HERE, "install-restic.sh"), os.path.join(ROOT, ".build/peers/restic")],
                text=True, stdout=subprocess.PIPE).stdout.strip()
            if not path:
                raise SystemExit("benchmarks: restic could not be had; leave it out of --tools")
        elif name == "borg":
            path = os.path.join(ROOT, ".build/venv-bench/bin/borg")
            if not os.access(path, os.X_OK):
                raise SystemExit("benchmarks: there is no borg; "
                                 "run scripts/install-dependencies.sh bench")
        else:
            path = shutil.which("age-keygen" if name == "tar|zstd|age" else name)
            if not path:
                raise SystemExit(f"benchmarks: {name} is not installed; "
                                 "run scripts/install-dependencies.sh bench")
        found[name] = os.path.abspath(path)
    return found


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: Benchmarks/run.py --data small --runs 1 --tools batchsync,restic "
               "--steps first,unchanged")
    choose = lambda known: (lambda text: check(text.split(","), known))

    def check(words, known):
        for word in words:
            if word not in known:
                raise argparse.ArgumentTypeError(f"'{word}' is none of {', '.join(known)}")
        return words

    parser.add_argument("--data", type=choose(GOALS), default=["small", "src", "big", "million"],
                        help=f"data sets, of {', '.join(GOALS)} (default: all)")
    parser.add_argument("--runs", type=int, default=3, help="rounds; the median counts (default 3)")
    parser.add_argument("--tools", type=choose([*tools.ALL, "pipeline"]),
                        help="of batchsync, restic, borg, pipeline (tar|zstd|age), find")
    parser.add_argument("--steps", type=choose(STEPS), help=f"of {', '.join(STEPS)} (default: all)")
    parser.add_argument("--seed", type=int, default=datasets.SEED)
    parser.add_argument("--directory", help="where data sets and repositories lie and stay for the "
                        "next run (default: BENCH_DIR, else .build/bench)")
    parser.add_argument("--discard", action="store_true", help="remove the repositories at the end")
    return parser.parse_args(arguments)


def main():
    options = parse(sys.argv[1:])
    directory = os.path.abspath(options.directory or os.environ.get("BENCH_DIR")
                                or os.path.join(ROOT, ".build/bench"))
    os.makedirs(directory, exist_ok=True)
    selected = {}
    for name in options.data:
        wanted = options.tools or DATA_TOOLS[name]
        selected[name] = ["tar|zstd|age" if tool == "pipeline" else tool for tool in wanted]
    binaries = find_binaries(dict.fromkeys(sum(selected.values(), [])))
    if os.geteuid():
        say("not root: caches cannot be dropped between restores, whose times are then too high")
    report, benches = [f"Machine: {describe_machine(directory)}"], []
    say(report[0])
    for tool, binary in binaries.items():
        report.append(f"{tool}: {tools.ALL[tool](binary, directory, '').version()}")
        say(report[-1])
    for name in options.data:
        bench = Bench(directory, name, options.seed, options.runs, selected[name],
                      options.steps or DATA_STEPS[name], binaries)
        benches.append(bench)
        bench.run()
        report += ["", bench.table()]
        if options.discard:
            shutil.rmtree(os.path.join(directory, name, "tools"), ignore_errors=True)
    text = "\n".join(report)
    print(text)
    place = os.path.join(directory, "results")
    os.makedirs(place, exist_ok=True)
    stem = os.path.join(place, f"{datetime.datetime.now():%Y%m%dT%H%M%S}")
    with open(stem + ".md", "w") as file:
        file.write(text + "\n")
    with open(stem + ".json", "w") as file:
        json.dump({"report": report[:len(binaries) + 1], "data": [
            {"made": bench.made, "sizes": bench.sizes, "failed": bench.failed,
             "rounds": {f"{tool} {step}": rounds
                        for (tool, step), rounds in bench.measured.items()}}
            for bench in benches]}, file, indent=1)
    say(f"kept in {stem}.md and .json")
    return 1 if any(bench.failed for bench in benches) else 0


if __name__ == "__main__":
    # A shell that starts this in the background has SIGINT ignored; the changes are taken back on both.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except Failure as failure:
        sys.exit(f"benchmarks: {failure}")
