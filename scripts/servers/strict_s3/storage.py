"""Buckets and versions: their bytes in files, everything else in memory and in a journal.

The journal is read when the server is started again in the same state directory.
"""

import bisect
import dataclasses
import json
import os
import secrets
import threading


@dataclasses.dataclass
class Version:
    """One version of an object, or a delete marker."""
    id: str
    modified: float
    file: str = ""
    size: int = 0
    etag: str = ""
    is_marker: bool = False
    # Headers that come back as they were sent: type, metadata, encryption, storage class.
    headers: dict = dataclasses.field(default_factory=dict)
    checksums: dict = dataclasses.field(default_factory=dict)
    lock_mode: str = ""
    locked_until: float = 0
    legal_hold: bool = False

    @property
    def storage_class(self):
        return self.headers.get("x-amz-storage-class", "STANDARD")

    def is_protected(self, now, bypasses_governance):
        if self.legal_hold:
            return True
        if not self.lock_mode or self.locked_until <= now:
            return False
        return not (self.lock_mode == "GOVERNANCE" and bypasses_governance)


class Bucket:
    def __init__(self, name, region, created, lock=False):
        self.name, self.region, self.created, self.lock = name, region, created, lock
        self.versioning = "Enabled" if lock else ""
        self.default_retention = None     # (mode, days)
        self.objects = {}                 # key -> versions, the newest last
        self.names = []                   # the keys, sorted as their UTF-8 is
        self.deletions = {}               # key -> how often something was deleted there

    def current(self, key):
        """The version that a plain GET sees, or None."""
        versions = self.objects.get(key)
        return versions[-1] if versions and not versions[-1].is_marker else None

    def version(self, key, identifier):
        return next((v for v in self.objects.get(key, ()) if v.id == identifier), None)


class Storage:
    """All buckets of a server. Hold `lock` while reading or changing what is in memory."""

    def __init__(self, directory):
        self.directory, self.lock = os.path.join(directory, "objects"), threading.RLock()
        os.makedirs(self.directory, exist_ok=True)
        self.buckets, self.next_file = {}, 0
        path = os.path.join(directory, "journal")
        if os.path.exists(path):
            self.replay(path)
        self.journal = open(path, "a", encoding="utf-8")

    def replay(self, path):
        self.journal = None
        with open(path, encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                getattr(self, record.pop("do"))(**record)
        used = {version.file for bucket in self.buckets.values()
                for versions in bucket.objects.values() for version in versions}
        for name in os.listdir(self.directory):
            self.next_file = max(self.next_file, int(name) + 1)
            if name not in used:
                os.unlink(self.path(name))

    def record(self, do, **values):
        if self.journal:
            self.journal.write(json.dumps({"do": do, **values}) + "\n")
            self.journal.flush()

    def path(self, name):
        return os.path.join(self.directory, name)

    def new_file(self):
        """The name of a file that nothing has yet been written to."""
        with self.lock:
            self.next_file += 1
            return str(self.next_file - 1)

    # ---- changes, each recorded ----

    def create_bucket(self, name, region, created, lock):
        self.buckets[name] = Bucket(name, region, created, lock)
        self.record("create_bucket", name=name, region=region, created=created, lock=lock)

    def delete_bucket(self, name):
        del self.buckets[name]
        self.record("delete_bucket", name=name)

    def configure_bucket(self, name, **values):
        for key, value in values.items():
            setattr(self.buckets[name], key, value)
        self.record("configure_bucket", name=name, **values)

    def add_version(self, bucket, key, version):
        """Makes a version the current one; without versioning it takes the place of the last."""
        if isinstance(version, dict):
            version = Version(**version)
        home = self.buckets[bucket]
        if not home.versioning:
            version.id = "null"
        elif home.versioning == "Suspended":
            version.id = "null"
        elif not version.id:
            version.id = secrets.token_hex(16)
        self.record("add_version", bucket=bucket, key=key, version=dataclasses.asdict(version))
        versions = home.objects.get(key)
        if versions is None:
            versions = home.objects[key] = []
            bisect.insort(home.names, key)
        if version.id == "null":
            for old in [old for old in versions if old.id == "null"]:
                versions.remove(old)
                self.remove_file(old)
        versions.append(version)

    def remove_version(self, bucket, key, identifier):
        self.record("remove_version", bucket=bucket, key=key, identifier=identifier)
        home = self.buckets[bucket]
        home.deletions[key] = home.deletions.get(key, 0) + 1
        versions = home.objects[key]
        gone = home.version(key, identifier)
        versions.remove(gone)
        if not versions:
            del home.objects[key]
            del home.names[bisect.bisect_left(home.names, key)]
        self.remove_file(gone)

    def change_version(self, bucket, key, identifier, **values):
        version = self.buckets[bucket].version(key, identifier)
        for name, value in values.items():
            setattr(version, name, value)
        self.record("change_version", bucket=bucket, key=key, identifier=identifier, **values)

    def remove_file(self, version):
        # A reader that has the file open goes on reading it.
        if version.file and self.journal:
            try:
                os.unlink(self.path(version.file))
            except FileNotFoundError:
                pass
