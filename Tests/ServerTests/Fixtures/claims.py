"""Runs the claims of a script: each function that `claim` marks, with a line for the result of each.

A line is `kept: CLAIM` or `broken: CLAIM: how`; the script ends with 1 if any was broken.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import traceback

SERVERS = pathlib.Path(__file__).resolve().parents[3] / "scripts/servers"
sys.path.insert(0, str(SERVERS))

import service  # noqa: E402  (of scripts/servers)

_claims = []


def claim(text):
    def mark(function):
        _claims.append((text, function))
        return function
    return mark


class Server:
    """A server of scripts/servers that ends with this program at the latest."""

    def __init__(self, script, *options):
        self.script = str(SERVERS / script)
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.state = tempfile.mkdtemp(prefix="batchsync-test-", dir=base)
        self.call("start", *options)
        lines = service.read(os.path.join(self.state, "env")).splitlines()
        self.values = dict(line.split("=", 1) for line in lines)

    def call(self, verb, *options):
        subprocess.run([self.script, verb, self.state, *options], check=True,
                       stdout=subprocess.DEVNULL,
                       env={**os.environ, "BATCHSYNC_SERVER_OWNER": str(os.getpid())})

    def __getitem__(self, name):
        return self.values[name]

    def tell(self, *words):
        return service.tell(self.state, words).splitlines()

    def fired(self):
        return [int(line.split("\t")[0]) for line in self.tell("fired")]

    def stop(self):
        self.call("stop")
        shutil.rmtree(self.state, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def expect(condition, what=""):
    if not condition:
        raise AssertionError(what or "it is not so")


def expect_equal(found, expected):
    expect(found == expected, f"{found!r} instead of {expected!r}")


def run(*arguments):
    broken = 0
    for text, function in _claims:
        try:
            function(*arguments)
            print(f"kept: {text}", flush=True)
        except Exception as error:  # whatever it is, the claim does not hold
            broken += 1
            line = traceback.extract_tb(error.__traceback__)[-1].lineno
            print(f"broken: {text}: {type(error).__name__}: {error} (line {line})", flush=True)
    sys.exit(1 if broken or not _claims else 0)
