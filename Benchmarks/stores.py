#!/usr/bin/env python3
"""Measures what a remote store costs, beside a directory and beside restic on the same servers.

    Benchmarks/stores.py --tree /usr/share                        all places, one round
    Benchmarks/stores.py --tree /usr/share --places directory,s3,far --runs 3

The tree is copied, since one file in a hundred is changed in between. The places, each with a
repository of its own for each tool:

    directory   a directory beside the servers' own
    s3          `rclone serve s3`, on loopback
    far         the same, reached through the fault proxy with 25 ms more in each direction
    sftp        OpenSSH, on loopback

Before each step the tree is read once, and the disk is synced. What batchsync asked of a store is
what its own summary counts. The least that a place can cost is what `rclone copy` of the finished
bundles takes there.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, HERE)

import run as bench  # noqa: E402
import tools  # noqa: E402

SERVERS = os.path.join(ROOT, "scripts", "servers")
STEPS = ("first backup", "nothing changed", "1 % changed", "list", "verify, reading all", "restore")
PLACES = ("directory", "s3", "far", "sftp")
# More than this of a directory's time no remote store may take on loopback.
MOST_TO_DIRECTORY = 1.3
MOST_TO_NEAR = 1.1
MOST_FAR_UNCHANGED = 1.0


class Server:
    """One server of scripts/servers in a state directory of its own."""

    def __init__(self, script, place, *options):
        self.script, self.place = os.path.join(SERVERS, script), place
        started = subprocess.run([self.script, "start", place, *options], check=True, text=True,
                                 stdout=subprocess.PIPE).stdout
        self.values = dict(line.split("=", 1) for line in started.splitlines() if "=" in line)

    def __getitem__(self, name):
        return self.values[name]

    def tell(self, *words):
        subprocess.run([self.script, "tell", self.place, *words], check=True,
                       stdout=subprocess.DEVNULL)

    def stop(self):
        subprocess.run([self.script, "stop", self.place], check=False, stdout=subprocess.DEVNULL)


class Place:
    """Where repositories lie: their addresses for each tool, and how each is told to get there."""

    def __init__(self, name, batchsync, restic, words=(), restic_words=(), environment=None,
                 copy=None):
        self.name, self.batchsync, self.restic = name, batchsync, restic
        self.words, self.restic_words = list(words), list(restic_words)
        self.environment = environment or {}
        # What rclone is told of the place where it is to copy to.
        self.copy = copy


def places(scratch, wanted):
    """Yields the places that are wanted, and stops each server when its turn is over."""
    if "directory" in wanted:
        directory = os.path.join(scratch, "directory")
        yield Place("directory", directory + "/b", directory + "/r")
    if "s3" in wanted or "far" in wanted:
        server = Server("s3-rclone.sh", os.path.join(scratch, "s3"))
        try:
            os.makedirs(os.path.join(server["S3_DATA_DIR"], "bench"), exist_ok=True)
            keys = {"AWS_ACCESS_KEY_ID": server["S3_ACCESS_KEY"],
                    "AWS_SECRET_ACCESS_KEY": server["S3_SECRET_KEY"],
                    "AWS_DEFAULT_REGION": server["S3_REGION"]}

            def place(name, endpoint, copy):
                return Place(
                    name, f"s3://bench/{name}-b", f"s3:{endpoint}/bench/{name}-r",
                    environment={**keys, "AWS_ENDPOINT_URL": endpoint},
                    copy=[f":s3,provider=Other,env_auth=true,endpoint='{endpoint}':bench/copy"]
                    if copy else None)

            if "s3" in wanted:
                yield place("s3", server["S3_ENDPOINT"], True)
            if "far" in wanted:
                proxy = Server("faultproxy.py", os.path.join(scratch, "proxy"), "--toward",
                               server["S3_ENDPOINT"])
                try:
                    proxy.tell("latency", "25")
                    yield place("far", proxy["PROXY_ENDPOINT"], False)
                finally:
                    proxy.stop()
        finally:
            server.stop()
    if "sftp" in wanted:
        server = Server("sftp-openssh.sh", os.path.join(scratch, "sftp"))
        try:
            ssh, path = f"ssh -F {server['SFTP_SSH_CONFIG']}", server["SFTP_PATH"]
            yield Place(
                "sftp", f"sftp://store{path}/b", f"sftp:store:{path}/r",
                words=["--ssh-command", ssh],
                restic_words=["-o", f"sftp.command={ssh} store -s sftp"],
                copy=["--sftp-ssh", f"{ssh} store", f":sftp:{path}/copy"])
        finally:
            server.stop()


class Round:
    """All steps of both tools on one place."""

    def __init__(self, place, binaries, tree, scratch, log):
        self.place, self.tree, self.log = place, tree, log
        self.batchsync, self.restic = binaries["batchsync"], binaries["restic"]
        self.private = os.path.join(scratch, "private")
        shutil.rmtree(self.private, ignore_errors=True)
        os.makedirs(self.private)
        self.target = os.path.join(scratch, "restored")
        base = {"PATH": os.environ["PATH"], "HOME": self.private, "TMPDIR": self.private,
                "LC_ALL": "C.UTF-8", **place.environment}
        self.own = {**base, **{f"BATCHSYNC_{kind}_DIR": os.path.join(self.private, kind.lower())
                               for kind in ("CONFIG", "CACHE", "STATE")}}
        self.as_owner = {**self.own, "BATCHSYNC_PASSPHRASE": tools.PASSWORD}
        self.other = {**base, "RESTIC_REPOSITORY": place.restic, "RESTIC_PASSWORD": tools.PASSWORD,
                      "RESTIC_CACHE_DIR": os.path.join(self.private, "restic")}

    def ours(self, verb, *words, owner=False):
        return ([self.batchsync, verb, "-r", self.place.batchsync, *self.place.words, "--json",
                 *words], self.as_owner if owner else self.own)

    def theirs(self, *words):
        return [self.restic, *self.place.restic_words, *words], self.other

    def prepare(self):
        for argv, environment in (self.ours("init", owner=True), self.theirs("init")):
            subprocess.run(argv, check=True, env=environment, stdout=subprocess.DEVNULL)

    def commands(self, step):
        if step in ("first backup", "nothing changed", "1 % changed"):
            return self.ours("backup", self.tree), self.theirs("backup", self.tree)
        if step == "list":
            return self.ours("snapshots"), self.theirs("snapshots")
        if step == "verify, reading all":
            return self.ours("verify", "--read-data", owner=True), self.theirs("check", "--read-data")
        return (self.ours("restore", "latest", "--target", self.target, owner=True),
                self.theirs("restore", "latest", "--target", self.target))

    def measure(self, argv, environment):
        """Wall seconds, peak megabytes, requests where the command tells them."""
        bench.warm(self.tree)
        os.sync()
        status, wall, _, peak = bench.measure(argv, environment, self.private, self.log)
        with open(self.log, errors="replace") as said:
            text = said.read()
        if status:
            raise SystemExit(f"{self.place.name}: {' '.join(argv)} ended with {status}:\n{text[-2000:]}")
        if os.path.exists(self.target):
            shutil.rmtree(self.target)
        return wall, peak / bench.MB, requests_in(text)

    def run(self):
        """Yields the step and the figures of both tools."""
        self.prepare()
        for step in STEPS:
            if step == "1 % changed":
                change(self.tree)
            yield step, *(self.measure(*command) for command in self.commands(step))


def requests_in(text):
    """Requests and bundles stored, of the last JSON document that tells them; None where none does."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            try:
                document = json.loads(line)
            except ValueError:
                continue
            if "traffic" in document:
                return (sum(document["traffic"]["requests"].values()),
                        document.get("statistics", {}).get("bundles", 0))
    return None


def change(tree):
    """Rewrites the beginning of one file in a hundred; its time shows it."""
    names = sorted(os.path.join(directory, name)
                   for directory, _, names in os.walk(tree) for name in names)
    files = [name for name in names if os.path.isfile(name) and not os.path.islink(name)]
    for name in files[::100]:
        with open(name, "r+b" if os.path.getsize(name) else "wb") as file:
            file.write(os.urandom(16))


def copy_bundles(place, source, environment, log):
    """Seconds that rclone takes to bring finished bundles to a place; None where that is no question."""
    if not place.copy or not os.path.isdir(source):
        return None
    rclone = os.path.join(ROOT, ".build", "venv-test", "bin", "rclone")
    if not os.access(rclone, os.X_OK):
        rclone = shutil.which("rclone")
    if not rclone:
        return None
    os.sync()
    status, wall, _, _ = bench.measure(
        [rclone, "copy", "--transfers", "4", source, *place.copy],
        {**environment, "RCLONE_CONFIG": "/dev/null"}, os.path.dirname(log), log)
    return wall if status == 0 else None


def copy_tree(source, target):
    subprocess.run(["cp", "-a", "--reflink=auto", source, target], check=True)
    # A file changed within two seconds of a reading is read again.
    time.sleep(3)


def tell(results, copies):
    def middle(place, step, tool, what=0):
        rounds = results.get((place, step))
        return statistics.median(one[tool][what] for one in rounds) if rounds else None

    print(f"{'place':10} {'step':20} {'batchsync s':>11} {'restic s':>9} {'ratio':>6} "
          f"{'of directory':>12} {'MB':>5} {'requests':>8} {'bundles':>7}")
    for (place, step), rounds in results.items():
        ours, theirs = (middle(place, step, tool) for tool in (0, 1))
        beside = middle("directory", step, 0)
        share = f"{ours / beside:.2f}" if beside and place != "directory" else ""
        asked = rounds[-1][0][2]
        print(f"{place:10} {step:20} {ours:11.2f} {theirs:9.2f} {ours / theirs:6.2f} {share:>12} "
              f"{middle(place, step, 0, 1):5.0f} {asked[0] if asked else '':>8} "
              f"{asked[1] if asked else '':>7}")
    print()
    base = middle("directory", "first backup", 0)
    for place in ("s3", "sftp"):
        ours = middle(place, "first backup", 0)
        if ours and base:
            copied = statistics.median(copies[place]) if copies.get(place) else 0
            most = max(MOST_TO_DIRECTORY * base, copied)
            judge(f"first backup on {place}", ours, most,
                  f"1.3 x directory {base:.2f} s, rclone copy {copied:.2f} s")
    near, far = middle("s3", "first backup", 0), middle("far", "first backup", 0)
    if near and far:
        judge("first backup from afar", far, MOST_TO_NEAR * near, f"1.1 x {near:.2f} s")
    unchanged = middle("far", "nothing changed", 0)
    if unchanged:
        judge("nothing changed, from afar", unchanged, MOST_FAR_UNCHANGED, "a second")


def judge(what, seconds, most, why):
    print(f"{what}: {seconds:.2f} s, at most {most:.2f} s ({why}): "
          f"{'met' if seconds <= most else 'MISSED'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", required=True, help="the directory to copy and to back up")
    parser.add_argument("--runs", type=int, default=1, help="rounds; the median counts")
    parser.add_argument("--places", default=",".join(PLACES),
                        help=f"of {', '.join(PLACES)} (default: all)")
    options = parser.parse_args()
    wanted = options.places.split(",")
    for name in wanted:
        if name not in PLACES:
            parser.error(f"'{name}' is none of {', '.join(PLACES)}")
    binaries = bench.find_binaries(["batchsync", "restic"])
    scratch = tempfile.mkdtemp(prefix="batchsync-stores-", dir=os.environ.get("BENCH_DIR"))
    results, copies = {}, {}
    try:
        bench.say(bench.describe_machine(scratch))
        for number in range(options.runs):
            here = os.path.join(scratch, str(number))
            os.makedirs(here)
            log = os.path.join(here, "log")
            for place in places(here, wanted):
                tree = os.path.join(here, "tree")
                shutil.rmtree(tree, ignore_errors=True)
                copy_tree(options.tree, tree)
                one = Round(place, binaries, tree, here, log)
                for step, ours, theirs in one.run():
                    results.setdefault((place.name, step), []).append((ours, theirs))
                    bench.say(f"  {place.name:10} {step:20} {ours[0]:8.2f} s, restic {theirs[0]:8.2f} s"
                              f", {ours[1]:4.0f} MB, requests and bundles {ours[2]}")
                seconds = copy_bundles(place, os.path.join(here, "directory/b/bundles"), one.own, log)
                if seconds is not None:
                    copies.setdefault(place.name, []).append(seconds)
            shutil.rmtree(here)
        tell(results, copies)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
