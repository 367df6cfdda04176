#!/usr/bin/env python3
"""Compares two directory trees: every byte of content and everything Linux keeps beside it.

    compare-trees.py [OPTIONS] FIRST SECOND

Compared are, for the two directories and all below them: type, permission bits, numeric owner and
group, modification time in nanoseconds, size, content, holes, link targets, device numbers, which
names are one file (hard links), extended attributes, and POSIX ACLs. A path may be longer than
PATH_MAX: every name is reached from its open directory.

    --no-owner     leaves owner and group out (an ordinary user cannot give files away)
    --no-holes     leaves holes out
    --no-root      leaves the two directories themselves out
    --flags        compares inode flags (chattr) as well; cp does not copy them
    --quiet        prints differences only

Ends with 0 if nothing differs, 1 if something does (one line each, on stdout), 2 on an error.
"""

import array
import errno
import fcntl
import os
import stat
import sys

# What chattr can set and a restore can bring back; the rest is the file system's own business.
FS_IOC_GETFLAGS = 0x80086601
SETTABLE_FLAGS = 0x00000001 | 0x00000008 | 0x00000010 | 0x00000020 | 0x00000040 | 0x00000080 \
    | 0x00010000
BLOCK = 1 << 20
# The longest path given to the kernel at once, below PATH_MAX.
STEP = 4000
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def type_name(mode):
    for test, name in ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"),
                       (stat.S_ISLNK, "symbolic link"), (stat.S_ISFIFO, "fifo"),
                       (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "character device"),
                       (stat.S_ISBLK, "block device")):
        if test(mode):
            return name
    return "unknown type"


def open_directory(root, path):
    """The directory `path` below the open directory `root`, in steps that the kernel takes."""
    current, owned = root, False
    names = path.split(b"/") if path else [b"."]
    while names:
        step = names.pop(0)
        while names and len(step) + 1 + len(names[0]) <= STEP:
            step += b"/" + names.pop(0)
        try:
            following = os.open(step, DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
        finally:
            if owned:
                os.close(current)
        current, owned = following, True
    return current


def read_attributes(directory, name):
    """Extended attributes, ACLs among them, which Linux keeps as system.posix_acl_*."""
    # There is no call that takes a directory and a name; the directory's own link is one.
    path = b"/proc/self/fd/%d/%s" % (directory, name)
    try:
        return {key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)}
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM, errno.EACCES):
            return {}
        raise


def read_flags(directory, name):
    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=directory)
    try:
        value = array.array("i", [0])
        fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, value)
        return value[0] & SETTABLE_FLAGS
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
            return 0
        raise
    finally:
        os.close(descriptor)


def read_holes(descriptor, size):
    """Holes as [offset, end) pairs."""
    holes, position = [], 0
    while position < size:
        try:
            data = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            data = size
        if data > position:
            holes.append((position, data))
        if data >= size:
            break
        position = os.lseek(descriptor, data, os.SEEK_HOLE)
    return holes


def first_difference(first, second):
    """Offset of the first byte that differs, or None."""
    offset = 0
    while True:
        one, two = os.pread(first, BLOCK, offset), os.pread(second, BLOCK, offset)
        if one != two:
            for place, (a, b) in enumerate(zip(one, two)):
                if a != b:
                    return offset + place
            return offset + min(len(one), len(two))
        if not one:
            return None
        offset += len(one)


class Comparison:
    def __init__(self, first, second, owner, holes, root, flags):
        self.roots = tuple(os.open(root, DIRECTORY) for root in (first, second))
        self.owner, self.holes, self.root, self.flags = owner, holes, root, flags
        self.differences = 0
        self.counts = {"entries": 0, "files": 0, "bytes": 0}
        # For each side: (device, inode) of a file of several names -> its names.
        self.links = {}, {}

    def report(self, name, what, one=None, two=None):
        self.differences += 1
        shown = os.fsdecode(name or b".").encode("unicode_escape", "surrogateescape").decode("ascii")
        print(f"{shown}: {what}" + (f": {one} / {two}" if one is not None else ""))

    def run(self):
        self.compare(b"", b".", *self.roots)
        pending = [b""]
        while pending:
            directory = pending.pop()
            one, two = (open_directory(root, directory) for root in self.roots)
            try:
                pending += self.compare_names(directory, one, two)
            finally:
                os.close(one)
                os.close(two)
        groups = [{frozenset(names) for names in links.values()} for links in self.links]
        for group in sorted(groups[0] ^ groups[1], key=sorted):
            side = "first" if group in groups[0] else "second"
            self.report(min(group), f"one file with {len(group)} names only in the {side}")

    def compare_names(self, directory, one, two):
        """Compares all names of an open directory; returns the paths that are directories."""
        names = [set(map(os.fsencode, os.listdir(descriptor))) for descriptor in (one, two)]
        for name in sorted(names[0] - names[1]):
            self.report(os.path.join(directory, name), "only in the first")
        for name in sorted(names[1] - names[0]):
            self.report(os.path.join(directory, name), "only in the second")
        directories = []
        for name in sorted(names[0] & names[1]):
            path = os.path.join(directory, name)
            if self.compare(path, name, one, two):
                directories.append(path)
        return directories

    def compare(self, path, name, one, two):
        """Compares one name of two open directories; returns whether both are directories."""
        first = os.lstat(name, dir_fd=one)
        second = os.lstat(name, dir_fd=two)
        self.counts["entries"] += 1
        if stat.S_IFMT(first.st_mode) != stat.S_IFMT(second.st_mode):
            self.report(path, "type", type_name(first.st_mode), type_name(second.st_mode))
            return False
        if path or self.root:
            self.compare_status(path, name, one, two, first, second)
        if stat.S_ISREG(first.st_mode):
            self.compare_content(path, name, one, two, first, second)
        return stat.S_ISDIR(first.st_mode)

    def compare_status(self, path, name, one, two, first, second):
        mode = first.st_mode
        if not stat.S_ISLNK(mode) and stat.S_IMODE(mode) != stat.S_IMODE(second.st_mode):
            self.report(path, "mode", oct(stat.S_IMODE(mode)), oct(stat.S_IMODE(second.st_mode)))
        if self.owner:
            if first.st_uid != second.st_uid:
                self.report(path, "owner", first.st_uid, second.st_uid)
            if first.st_gid != second.st_gid:
                self.report(path, "group", first.st_gid, second.st_gid)
        if first.st_mtime_ns != second.st_mtime_ns:
            self.report(path, "modification time", *(
                f"{status.st_mtime_ns // 10**9}.{status.st_mtime_ns % 10**9:09d}"
                for status in (first, second)))
        if stat.S_ISLNK(mode):
            targets = os.readlink(name, dir_fd=one), os.readlink(name, dir_fd=two)
            if targets[0] != targets[1]:
                self.report(path, "link target", *targets)
        if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and first.st_rdev != second.st_rdev:
            self.report(path, "device", first.st_rdev, second.st_rdev)
        attributes = read_attributes(one, name), read_attributes(two, name)
        for key in sorted(attributes[0].keys() | attributes[1].keys()):
            values = [side.get(key) for side in attributes]
            if values[0] != values[1]:
                self.report(path, f"attribute {key}", *("absent" if value is None else value.hex()
                                                         for value in values))
        if self.flags and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            flags = read_flags(one, name), read_flags(two, name)
            if flags[0] != flags[1]:
                self.report(path, "inode flags", hex(flags[0]), hex(flags[1]))
        if not stat.S_ISDIR(mode):
            for links, status in zip(self.links, (first, second)):
                if status.st_nlink > 1:
                    links.setdefault((status.st_dev, status.st_ino), set()).add(path)

    def compare_content(self, path, name, one, two, first, second):
        self.counts["files"] += 1
        self.counts["bytes"] += first.st_size
        if first.st_size != second.st_size:
            self.report(path, "size", first.st_size, second.st_size)
            return
        if first.st_size == 0:
            return
        descriptors = []
        try:
            for directory in (one, two):
                descriptors.append(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory))
            offset = first_difference(*descriptors)
            if offset is not None:
                self.report(path, f"content differs from byte {offset}")
            elif self.holes:
                holes = [read_holes(descriptor, first.st_size) for descriptor in descriptors]
                if holes[0] != holes[1]:
                    self.report(path, "holes", holes[0][:4], holes[1][:4])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def main(arguments):
    known = ("--no-owner", "--no-holes", "--no-root", "--flags", "--quiet")
    options = {argument for argument in arguments if argument.startswith("--")}
    places = [argument for argument in arguments if not argument.startswith("--")]
    if len(places) != 2 or not options <= set(known):
        print(__doc__, file=sys.stderr)
        return 2
    comparison = Comparison(*places, owner="--no-owner" not in options,
                            holes="--no-holes" not in options, root="--no-root" not in options,
                            flags="--flags" in options)
    comparison.run()
    if "--quiet" not in options:
        counts = comparison.counts
        verdict = "no difference" if not comparison.differences \
            else f"{comparison.differences:,} differences"
        print(f"{counts['entries']:,} entries, {counts['files']:,} files, "
              f"{counts['bytes'] / 1e6:,.1f} MB compared: {verdict}")
    return 1 if comparison.differences else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as error:
        print(f"compare-trees: {error}", file=sys.stderr)
        sys.exit(2)
