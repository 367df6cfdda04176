"""The commands that are compared: how each does each step. Nothing here measures."""

import json
import os
import shutil
import subprocess
import time

PASSWORD = "benchmark passphrase, not a secret"


class Tool:
    """One tool with one repository. A step is a command: argv, environment, working directory.

    `steps` names what the tool can do. `place` is a directory of its own for repository and caches.
    """

    steps = ()
    accepted = (0,)

    def __init__(self, binary, place, tree):
        self.binary, self.place, self.tree = binary, place, tree
        self.repository = os.path.join(place, "repository")
        self.private = os.path.join(place, "private")

    def exists(self):
        return os.path.exists(os.path.join(self.place, "ready"))

    def create(self):
        """Makes a new, empty repository in place of any old one."""
        shutil.rmtree(self.place, ignore_errors=True)
        os.makedirs(self.private)
        self.initialise()
        with open(os.path.join(self.place, "ready"), "w"):
            pass

    def environment(self):
        # Only what a shell would give: a tool's own variables must not leak in from outside.
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
        return {**kept, "HOME": self.private, "TMPDIR": self.private}

    def run(self, *arguments, **more):
        """Runs an untimed command and returns what it printed."""
        done = subprocess.run(
            [self.binary, *arguments], env={**self.environment(), **more}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode not in self.accepted:
            raise RuntimeError(f"{self.name} {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def command(self, step, target=None, path=None):
        """Returns (argv, environment, working directory) of a step."""
        argv = getattr(self, step.replace("-", "_"))(target, path)
        return argv, self.environment(), target or self.place

    def size(self):
        """Bytes and number of the objects in the repository."""
        count = size = 0
        for directory, _, names in os.walk(self.repository):
            for name in names:
                count += 1
                size += os.lstat(os.path.join(directory, name)).st_size
        return size, count

    def restored(self, target):
        """Where a whole restore puts the tree."""
        return target + self.tree


class Batchsync(Tool):
    name = "batchsync"
    steps = ("first", "unchanged", "snapshots", "verify", "verify-data", "restore-one", "restore",
             "changed", "diff", "renamed")

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.needs_passphrase = False

    def version(self):
        return subprocess.run([self.binary, "--version"], text=True, check=True,
                              stdout=subprocess.PIPE).stdout.strip()

    def environment(self):
        own = {f"BATCHSYNC_{kind}_DIR": os.path.join(self.private, kind.lower())
               for kind in ("CONFIG", "CACHE", "STATE")}
        # At night there is no passphrase: a step that does without it must not get it.
        if self.needs_passphrase:
            own["BATCHSYNC_PASSPHRASE"] = PASSWORD
        return {**super().environment(), **own}

    def command(self, step, target=None, path=None):
        self.needs_passphrase = step in ("restore", "restore-one", "diff", "verify-data")
        return super().command(step, target, path)

    def initialise(self):
        self.run("init", "-r", self.repository, BATCHSYNC_PASSPHRASE=PASSWORD)

    def first(self, target, path):
        return [self.binary, "backup", "-r", self.repository, self.tree]

    unchanged = changed = renamed = first

    def snapshots(self, target, path):
        return [self.binary, "snapshots", "-r", self.repository]

    def verify(self, target, path):
        return [self.binary, "verify", "-r", self.repository]

    def verify_data(self, target, path):
        return [self.binary, "verify", "--read-data", "-r", self.repository]

    def restore(self, target, path):
        return [self.binary, "restore", "latest", "--target", target, "-r", self.repository]

    def restore_one(self, target, path):
        return [self.binary, "restore", f"latest:{path}", "--target", target, "-r", self.repository]

    def diff(self, target, path):
        return [self.binary, "diff", "latest~1", "latest", "-r", self.repository]


class Restic(Tool):
    name = "restic"
    steps = Batchsync.steps

    def version(self):
        return subprocess.run([self.binary, "version"], text=True, check=True,
                              stdout=subprocess.PIPE).stdout.strip()

    def environment(self):
        return {**super().environment(), "RESTIC_REPOSITORY": self.repository,
                "RESTIC_PASSWORD": PASSWORD,
                "RESTIC_CACHE_DIR": os.path.join(self.private, "cache")}

    def initialise(self):
        self.run("init")

    def first(self, target, path):
        return [self.binary, "backup", self.tree]

    unchanged = changed = renamed = first

    def snapshots(self, target, path):
        return [self.binary, "snapshots"]

    def verify(self, target, path):
        return [self.binary, "check"]

    def verify_data(self, target, path):
        return [self.binary, "check", "--read-data"]

    def restore(self, target, path):
        return [self.binary, "restore", "latest", "--target", target]

    def restore_one(self, target, path):
        return [self.binary, "restore", "latest", "--target", target, "--include", path]

    def diff(self, target, path):
        listed = sorted(json.loads(self.run("snapshots", "--json")), key=lambda one: one["time"])
        return [self.binary, "diff", listed[-2]["id"], listed[-1]["id"]]


class Borg(Tool):
    name = "borg"
    steps = Batchsync.steps
    # 1 is a warning: a file that changed or could not be read.
    accepted = (0, 1)

    def version(self):
        return subprocess.run([self.binary, "--version"], text=True, check=True,
                              stdout=subprocess.PIPE).stdout.strip()

    def environment(self):
        return {**super().environment(), "BORG_REPO": self.repository, "BORG_PASSPHRASE": PASSWORD,
                "BORG_BASE_DIR": self.private, "LC_ALL": "C.UTF-8"}

    def initialise(self):
        self.run("init", "--encryption=repokey-blake2")

    def names(self):
        return self.run("list", "--short").split()

    def first(self, target, path):
        # Its default is lz4; zstd 3 is what the others do.
        return [self.binary, "create", "--compression=zstd,3", f"::s{time.time_ns()}", self.tree]

    unchanged = changed = renamed = first

    def snapshots(self, target, path):
        return [self.binary, "list"]

    def verify(self, target, path):
        return [self.binary, "check"]

    def verify_data(self, target, path):
        return [self.binary, "check", "--verify-data"]

    def restore(self, target, path):
        return [self.binary, "extract", f"::{self.names()[-1]}"]

    def restore_one(self, target, path):
        return [self.binary, "extract", f"::{self.names()[-1]}", path.lstrip("/")]

    def diff(self, target, path):
        return [self.binary, "diff", f"::{self.names()[-2]}", self.names()[-1]]


class Pipeline(Tool):
    """tar, zstd and age with one another: no snapshots, no deduplication, a whole copy each time."""

    name = "tar|zstd|age"
    steps = ("first", "verify-data", "restore-one", "restore")

    def version(self):
        first = [["tar", "--version"], ["zstd", "--version"], ["age", "--version"]]
        return "; ".join(
            subprocess.run(argv, text=True, check=True, stdout=subprocess.PIPE)
            .stdout.splitlines()[0].strip("* ") for argv in first)

    def initialise(self):
        os.makedirs(self.repository)
        self.binary = "age-keygen"
        self.run("-o", os.path.join(self.private, "identity"))

    def shell(self, script, *arguments):
        archive = os.path.join(self.repository, "archive.tar.zst.age")
        identity = os.path.join(self.private, "identity")
        return ["bash", "-c", f"set -euo pipefail; archive=$1 identity=$2; shift 2; {script}",
                "bash", archive, identity, *arguments]

    def first(self, target, path):
        return self.shell(
            'tar -C / -cf - "$1" | zstd -q -3 -T2 | '
            'age -e -r "$(age-keygen -y "$identity")" -o "$archive.tmp"; '
            'sync "$archive.tmp"; mv "$archive.tmp" "$archive"', self.tree.lstrip("/"))

    def verify_data(self, target, path):
        return self.shell('age -d -i "$identity" "$archive" | zstd -q -t')

    def restore(self, target, path):
        return self.shell('age -d -i "$identity" "$archive" | zstd -q -dc | tar -xpf -')

    def restore_one(self, target, path):
        return self.shell('age -d -i "$identity" "$archive" | zstd -q -dc | tar -xpf - "$1"',
                          path.lstrip("/"))


class Find(Tool):
    """The least that telling whether anything changed can cost: a walk with the status of each file."""

    name = "find"
    steps = ("unchanged",)

    def version(self):
        return subprocess.run(["find", "--version"], text=True, check=True,
                              stdout=subprocess.PIPE).stdout.splitlines()[0]

    def initialise(self):
        os.makedirs(self.repository)

    def unchanged(self, target, path):
        return ["find", self.tree, "-printf", r"%p %s %T@ %C@ %i\n"]


ALL = {tool.name: tool for tool in (Batchsync, Restic, Borg, Pipeline, Find)}
