#!/usr/bin/env python3
"""Measures what a remote store costs: a first backup and a night without changes on a directory, on an
S3 server and on an SFTP server of this machine, beside restic on the same servers.

    Benchmarks/stores.py --tree .build/bench/small --runs 1 --latency

Servers are those of scripts/servers, on loopback. With --latency the S3 server is reached through the
fault proxy with 25 ms each way added.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, HERE)

import run as bench  # noqa: E402
import tools  # noqa: E402

SERVERS = os.path.join(ROOT, "scripts", "servers")


class Server:
    """One server of scripts/servers in a state directory of its own."""

    def __init__(self, script, place, *options):
        self.script, self.place = os.path.join(SERVERS, script), place
        started = subprocess.run([self.script, "start", place, *options], check=True, text=True,
                                 stdout=subprocess.PIPE).stdout
        self.values = dict(line.split("=", 1) for line in started.splitlines() if "=" in line)

    def stop(self):
        subprocess.run([self.script, "stop", self.place], check=False, stdout=subprocess.DEVNULL)


class Place:
    """Where a repository lies: its address for each tool, and what reaches it."""

    def __init__(self, name, batchsync, restic, words=(), restic_words=(), environment=None):
        self.name, self.batchsync, self.restic = name, batchsync, restic
        self.words, self.restic_words = list(words), list(restic_words)
        self.environment = environment or {}


def places(scratch, latency):
    """Yields the places, and stops each server when its turn is over."""
    directory = os.path.join(scratch, "directory")
    yield Place("directory", directory + "/b", directory + "/r")

    server = Server("s3-rclone.sh", os.path.join(scratch, "s3"))
    try:
        os.makedirs(os.path.join(server.values["S3_DATA_DIR"], "bench"), exist_ok=True)
        keys = {"AWS_ACCESS_KEY_ID": server.values["S3_ACCESS_KEY"],
                "AWS_SECRET_ACCESS_KEY": server.values["S3_SECRET_KEY"],
                "AWS_DEFAULT_REGION": server.values["S3_REGION"]}
        endpoint = server.values["S3_ENDPOINT"]
        yield Place("S3 (rclone serve s3)", "s3://bench/b", f"s3:{endpoint}/bench/r",
                    environment={**keys, "AWS_ENDPOINT_URL": endpoint})
        if latency:
            proxy = Server("faultproxy.py", os.path.join(scratch, "proxy"), "--toward", endpoint)
            try:
                subprocess.run([proxy.script, "tell", proxy.place, "latency", "25"], check=True)
                reached = proxy.values["PROXY_ENDPOINT"]
                yield Place("S3, 50 ms away", "s3://bench/far", f"s3:{reached}/bench/rfar",
                            environment={**keys, "AWS_ENDPOINT_URL": reached})
            finally:
                proxy.stop()
    finally:
        server.stop()

    server = Server("sftp-openssh.sh", os.path.join(scratch, "sftp"))
    try:
        values = server.values
        ssh = f"ssh -F {values['SFTP_SSH_CONFIG']}"
        path = values["SFTP_PATH"]
        yield Place(
            "SFTP (OpenSSH)", f"sftp://store{path}/b", f"sftp:store:{path}/r",
            words=["--ssh-command", ssh],
            restic_words=["-o", f"sftp.command={ssh} store -s sftp"])
    finally:
        server.stop()


def measure(place, binary, restic, tree, scratch, log):
    """Returns wall seconds and requests of each step on one place."""
    private = os.path.join(scratch, "private")
    shutil.rmtree(private, ignore_errors=True)
    os.makedirs(private)
    base = {"PATH": os.environ["PATH"], "HOME": private, "TMPDIR": private, **place.environment}
    own = {**base, **{f"BATCHSYNC_{kind}_DIR": os.path.join(private, kind.lower())
                      for kind in ("CONFIG", "CACHE", "STATE")}}
    other = {**base, "RESTIC_REPOSITORY": place.restic, "RESTIC_PASSWORD": tools.PASSWORD,
             "RESTIC_CACHE_DIR": os.path.join(private, "restic")}
    prepare([binary, "init", "-r", place.batchsync, *place.words],
            {**own, "BATCHSYNC_PASSPHRASE": tools.PASSWORD})
    prepare([restic, *place.restic_words, "init"], other)
    rows = []
    for step in ("first backup", "nothing changed"):
        seconds = []
        for argv, environment in (
                ([binary, "backup", "-r", place.batchsync, *place.words, tree], own),
                ([restic, *place.restic_words, "backup", tree], other)):
            bench.warm(tree)
            status, wall, _, _ = bench.measure(argv, environment, private, log)
            if status:
                with open(log) as said:
                    raise SystemExit(f"{place.name}: {argv[0]} ended with {status}:\n{said.read()[-2000:]}")
            seconds.append(wall)
        rows.append((step, *seconds))
    return rows


def prepare(argv, environment):
    """Runs what is not measured."""
    subprocess.run(argv, check=True, env=environment, stdout=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", required=True, help="the directory to back up; it is only read")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--latency", action="store_true")
    options = parser.parse_args()
    binary = os.environ.get(
        "BATCHSYNC_BINARY", os.path.join(ROOT, ".build", "release", "batchsync"))
    restic = bench.find_binaries(["restic"])["restic"]
    scratch = tempfile.mkdtemp(prefix="batchsync-stores-", dir=os.environ.get("TMPDIR"))
    results = {}
    try:
        for number in range(options.runs):
            here = os.path.join(scratch, str(number))
            os.makedirs(here)
            for place in places(here, options.latency):
                for step, ours, theirs in measure(
                        place, binary, restic, options.tree, here, os.path.join(scratch, "log")):
                    results.setdefault((place.name, step), []).append((ours, theirs))
            shutil.rmtree(here)
        print(f"{'place':24} {'step':18} {'batchsync s':>12} {'restic s':>10} {'ratio':>7}")
        for (place, step), pairs in results.items():
            ours = statistics.median(pair[0] for pair in pairs)
            theirs = statistics.median(pair[1] for pair in pairs)
            print(f"{place:24} {step:18} {ours:12.2f} {theirs:10.2f} {ours / theirs:7.2f}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
