#!/usr/bin/env python3
"""Makes a directory with one of everything that a backup has to bring back.

    plant-tree.py DIRECTORY

Below it lie two sources, `first` and `second`. Root makes more than an ordinary user can. What the
machine refuses is printed in lines that begin with `skipped:`.
"""

import os
import stat
import subprocess
import sys

ROOT = os.geteuid() == 0


def write(path, content, mode=0o644):
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)


def attempt(what, action, *arguments, **options):
    try:
        action(*arguments, **options)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"skipped: {what}: this machine cannot: {error}")


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def plant_names(place):
    for number, name in enumerate((b"\xff\xfe\x80raw", b"new\nline", b"-rf *", b" spaces ", b"\\",
                                   b"\x1b[31m", "größe 漢字".encode(), b"n" * 255)):
        write(place + b"/" + name, b"%d" % number)


def plant_modes(place):
    write(place + b"/empty", b"")
    for mode in (0o0400, 0o0640, 0o0777, 0o2755, 0o4711, 0o6750):
        write(place + b"/mode-%04o" % mode, b"%o" % mode, mode)
    os.mkdir(place + b"/sticky")
    os.chmod(place + b"/sticky", 0o1777)
    os.mkdir(place + b"/setgid")
    os.chmod(place + b"/setgid", 0o2775)
    os.mkdir(place + b"/read-only")
    write(place + b"/read-only/file", b"kept", 0o444)
    os.chmod(place + b"/read-only", 0o555)


def plant_attributes(place):
    write(place + b"/attributes", b"attributes")
    os.mkdir(place + b"/attributes-directory")
    for path in (place + b"/attributes", place + b"/attributes-directory"):
        os.setxattr(path, "user.text", b"text")
        os.setxattr(path, "user.empty", b"")
        os.setxattr(path, "user.bytes", bytes(range(256)))
    write(place + b"/acl", b"acl")
    run("setfacl", "-m", "u:1000:rwx,g:50:r,m::rwx", place + b"/acl")
    os.mkdir(place + b"/acl-directory")
    run("setfacl", "-m", "u:1001:rx", "-d", "-m", "u:1001:rwx,g:51:rx", place + b"/acl-directory")


def plant_holes(place):
    # A hole begins and ends at a block.
    with open(place + b"/sparse", "wb") as file:
        file.seek(5 << 20)
        file.write(b"middle" * 5000)
        file.truncate(20 << 20)
    with open(place + b"/all-hole", "wb") as file:
        file.truncate(256 << 20)
    with open(place + b"/many-holes", "wb") as file:
        for number in range(300):
            file.seek(number << 16)
            file.write(b"%d" % number)
    # Zeros that were written are no hole.
    write(place + b"/zeros", bytes(1 << 20))


def plant_others(place):
    os.mkfifo(place + b"/fifo", 0o640)
    os.mknod(place + b"/socket", stat.S_IFSOCK | 0o600)
    os.symlink(b"empty", place + b"/link")
    os.symlink(b"\xff/../nowhere", place + b"/link-raw")


def plant_deep(place):
    """A path of twice PATH_MAX, with something to lose at its end."""
    current = os.open(place, os.O_RDONLY)
    for number in range(60):
        name = b"%03d-" % number + b"d" * 130
        os.mkdir(name, dir_fd=current)
        below = os.open(name, os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    bottom = os.open("bottom", os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=current)
    os.write(bottom, b"bottom")
    os.setxattr(bottom, "user.deep", b"deep")
    os.utime(bottom, ns=(1, 1_111_111_111_123_456_789))
    os.close(bottom)
    os.symlink("bottom", "link", dir_fd=current)
    os.link("bottom", "second", src_dir_fd=current, dst_dir_fd=current)
    os.close(current)


def plant_as_root(place):
    write(place + b"/owned", b"owned")
    os.chown(place + b"/owned", 1234, 4321)
    os.chmod(place + b"/owned", 0o6755)
    attempt("capabilities", run, "setcap", "cap_net_raw+ep", place + b"/owned")
    os.chown(place + b"/link", 1234, 4321, follow_symlinks=False)
    for name, follow in ((b"/attributes", True), (b"/link", False)):
        attempt("trusted attributes", os.setxattr, place + name, "trusted.text", b"text",
                follow_symlinks=follow)
    attempt("device files", os.mknod, place + b"/character", stat.S_IFCHR | 0o666,
            os.makedev(1, 3))
    attempt("device files", os.mknod, place + b"/block", stat.S_IFBLK | 0o660,
            os.makedev(7, 300))


def plant_times(place):
    for name, seconds in ((b"/empty", -1_234_567_890), (b"/zeros", 0), (b"/acl", 1_700_000_000),
                          (b"/fifo", 4_102_444_800), (b"/sticky", 1_000_000_000)):
        os.utime(place + name, ns=(1, seconds * 1_000_000_000 + 123_456_789))
    os.utime(place + b"/link", ns=(5, 1_500_000_000_987_654_321), follow_symlinks=False)


def main(directory):
    first, second = directory + b"/first", directory + b"/second"
    os.makedirs(first)
    os.makedirs(second)
    for plant in (plant_names, plant_modes, plant_attributes, plant_holes, plant_others,
                  plant_deep):
        plant(first)
    write(second + b"/file", b"second")
    # One file with names in both sources.
    os.link(first + b"/attributes", first + b"/hard")
    os.link(first + b"/attributes", second + b"/across")
    if ROOT:
        plant_as_root(first)
    plant_times(first)
    flags = [("d", "empty"), ("A", "sparse")]
    if ROOT:
        for name in (b"/immutable", b"/append"):
            write(first + name, name)
        flags += [("i", "immutable"), ("a", "append")]
    for flag, name in flags:
        attempt(f"the inode flag {flag}", run, "chattr", "+" + flag, first + b"/" + name.encode())


if __name__ == "__main__":
    main(os.fsencode(sys.argv[1]))
