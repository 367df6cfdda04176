#!/usr/bin/env python3
"""Writes a format 1 repository from a directory tree: a second writer, made from docs/format.md.

It shares no code with the program, so that a mistake in the one is not repeated in the other. It is
slow and keeps everything in memory; it needs the commands age and age-keygen, and the libraries
libzstd and libxxhash.

    make_repository.py REPOSITORY TREE… [--plain] [--small] [--passphrase TEXT] [--time SECONDS]

makes a new repository with one snapshot of each TREE. The owner's identity is written beside it, in
REPOSITORY.owner, the host key in REPOSITORY.host. Tests import it and use `Writer`.
"""

import argparse
import base64
import ctypes
import fcntl
import hashlib
import hmac
import json
import os
import pty
import stat
import struct
import subprocess
import sys
import tarfile
import time

ZSTD = ctypes.CDLL("libzstd.so.1")
ZSTD.ZSTD_createCCtx.restype = ctypes.c_void_p
ZSTD.ZSTD_compressBound.restype = ZSTD.ZSTD_compress2.restype = ctypes.c_size_t
ZSTD.ZSTD_compressBound.argtypes = [ctypes.c_size_t]
ZSTD.ZSTD_CCtx_setParameter.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
ZSTD.ZSTD_compress2.argtypes = [
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_char_p,
    ctypes.c_size_t,
]
CONTEXT = ZSTD.ZSTD_createCCtx()
ZSTD.ZSTD_CCtx_setParameter(CONTEXT, 201, 1)  # a checksum in each frame

XXHASH = ctypes.CDLL("libxxhash.so.0")


class Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


XXHASH.XXH3_128bits.restype = Hash128
XXHASH.XXH3_128bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]

FLAG_NAMES = {
    0x1: "secrm",
    0x2: "undelete",
    0x4: "compress",
    0x8: "sync",
    0x10: "immutable",
    0x20: "append",
    0x40: "nodump",
    0x80: "noatime",
    0x400: "nocompress",
    0x4000: "journal",
    0x8000: "notail",
    0x10000: "dirsync",
    0x20000: "topdir",
    0x800000: "nocow",
    0x20000000: "projinherit",
    0x40000000: "casefold",
}


def compress(data):
    room = ZSTD.ZSTD_compressBound(len(data))
    buffer = ctypes.create_string_buffer(room)
    size = ZSTD.ZSTD_compress2(CONTEXT, buffer, room, data, len(data))
    return buffer.raw[:size]


def xxh3(data):
    value = XXHASH.XXH3_128bits(data, len(data))
    return "%016x%016x" % (value.high, value.low)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def derive(secret, salt, info):
    return mac(mac(salt, secret), info.encode() + b"\1")


def dense(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def time_text(nanoseconds):
    sign = "-" if nanoseconds < 0 else ""
    return "%s%d.%09d" % (sign, *divmod(abs(nanoseconds), 10**9))


def put_text(entry, field, value):
    """A text field, or its twin in base64 where the bytes are not UTF-8."""
    try:
        entry[field] = value.decode("utf-8")
    except UnicodeDecodeError:
        entry[field + "_b64"] = base64.b64encode(value).decode()


def secret_bytes(identity):
    """The 32 bytes of AGE-SECRET-KEY-1…; it comes from age-keygen, so its checksum is right."""
    letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    number = 0
    for letter in identity.lower().split("1", 1)[1][:-6]:
        number = number << 5 | letters.index(letter)
    return (number >> 4).to_bytes(32, "big")


def new_identity():
    """(identity file, recipient, secret bytes)"""
    made = subprocess.run(["age-keygen"], capture_output=True, check=True).stdout
    lines = made.decode().splitlines()
    public = next(line.split()[-1] for line in lines if line.startswith("# public key"))
    return made, public, secret_bytes(lines[-1])


def seal(data, recipients):
    words = ["age"]
    for recipient in recipients:
        words += ["-r", recipient]
    return subprocess.run(words, input=data, capture_output=True, check=True).stdout


def seal_to_passphrase(data, passphrase, work_directory):
    """`age -p` reads a passphrase from a terminal only, so it gets one."""
    plain, sealed = (os.path.join(work_directory, name) for name in ("plain.tmp", "sealed.tmp"))
    with open(plain, "wb") as file:
        file.write(data)
    process, terminal = pty.fork()
    if process == 0:
        os.execvp("age", ["age", "-p", "-o", sealed, plain])
    for _ in range(2):
        said = b""
        while not said.endswith(b": "):
            said += os.read(terminal, 1024)
        os.write(terminal, passphrase.encode() + b"\n")
    try:
        while os.read(terminal, 1024):
            pass
    except OSError:
        pass
    os.waitpid(process, 0)
    os.close(terminal)
    with open(sealed, "rb") as file:
        result = file.read()
    os.remove(plain)
    os.remove(sealed)
    return result


def inode_flags(path):
    """Names of the inode flags that a user can set."""
    buffer = bytearray(8)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, 0x80086601, buffer)
    except OSError:
        pass
    finally:
        os.close(descriptor)
    bits = struct.unpack_from("=I", buffer)[0]
    return [name for bit, name in FLAG_NAMES.items() if bits & bit]


def gear_table():
    """The first 256 numbers of SplitMix64."""
    state = 0x626174636873796E
    for _ in range(256):
        state = state + 0x9E3779B97F4A7C15 & (1 << 64) - 1
        value = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
        value = (value ^ value >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
        yield value ^ value >> 31


GEAR = list(gear_table())


def cut(data, minimum, average, maximum):
    """Appendix A: the lengths of the chunks."""
    bits = average.bit_length() - 1
    early, late = ((1 << n) - 1 << 64 - n for n in (bits + 2, bits - 2))
    start = 0
    while start < len(data):
        left = len(data) - start
        length = left
        if left > minimum:
            value, length = 0, min(left, maximum)
            for i in range(minimum, length):
                value = (value << 1) + GEAR[data[start + i]] & (1 << 64) - 1
                if value & (early if i < average else late) == 0:
                    length = i + 1
                    break
        yield data[start : start + length]
        start += length


class Bundle:
    """Tar entries, gathered into frames, sealed and written when the bundle is full."""

    def __init__(self, writer, kind):
        self.writer, self.kind = writer, kind
        self.z = b"\x50\x2a\x4d\x18\x10\0\0\0" + os.urandom(16)
        self.raw, self.chunks, self.frames, self.pending = b"", [], [], {}

    def add(self, name, data, info=None, comment=None):
        identifier = sha256(data)
        if identifier in self.writer.where or identifier in self.pending:
            return identifier
        member = info or tarfile.TarInfo()
        member.name, member.size, member.type = name, len(data), tarfile.REGTYPE
        if comment:
            member.pax_headers = {"comment": comment}
        self.raw += member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        self.chunks.append([identifier, len(self.raw), len(data)])
        self.raw += data + bytes(-len(data) % 512)
        self.pending[identifier] = True
        if len(self.raw) >= self.writer.frame_bytes:
            self.end_frame()
        if len(self.z) >= self.writer.bundle_bytes:
            self.finish()
        return identifier

    def end_frame(self):
        packed = compress(self.raw)
        self.frames.append(
            {
                "frame": [len(self.z), len(packed), len(self.raw)],
                "xxh3": xxh3(self.raw),
                "chunks": self.chunks,
            }
        )
        self.z += packed
        self.raw, self.chunks = b"", []

    def finish(self):
        if self.pending:
            self.raw += bytes(1024)
            self.end_frame()
            writer, plain = self.writer, len(self.z)
            stored = writer.sealed(self.z, writer.owners)
            identifier = sha256(stored)
            writer.store(
                "bundles/%s/%s.tar.zst%s" % (identifier[:2], identifier, writer.age), stored
            )
            writer.index_lines.append(
                {
                    "bundle": identifier,
                    "kind": self.kind,
                    "size": len(stored),
                    "plain": plain,
                    "md5": hashlib.md5(stored).hexdigest(),
                }
            )
            writer.index_lines += self.frames
            writer.kinds[identifier] = self.kind
            for chunk in self.pending:
                writer.where[chunk] = identifier
        self.__init__(self.writer, self.kind)


class Writer:
    def __init__(self, directory, plain=False, passphrase=None, owners=1, small=False, proven=True):
        """Makes an empty repository. `small` shrinks every size, so that a small tree uses every
        part of the format; none of them binds a reader."""
        self.directory, self.plain, self.age = directory, plain, "" if plain else ".age"
        self.where, self.kinds, self.index_lines, self.last_time = {}, {}, [], 0
        self.chunker = (256, 1024, 4096) if small else (65536, 262144, 1048576)
        self.frame_bytes, self.bundle_bytes = (16384, 65536) if small else (4 << 20, 64 << 20)
        self.segment = (1024, 3, 16384) if small else (32768, 9, 524288)
        self.node = (4, 2, 20) if small else (64, 8, 1000)
        self.most = 20 if small else 1000
        os.makedirs(directory)
        self.id = os.urandom(32)
        self.config = (
            dense(
                {
                    "batchsync": 1,
                    "kind": "config",
                    "repository": self.id.hex(),
                    "created": time_text(time.time_ns()),
                    "encryption": "none" if plain else "age",
                    "chunker": {
                        "algorithm": "fastcdc-2",
                        "minimum": self.chunker[0],
                        "average": self.chunker[1],
                        "maximum": self.chunker[2],
                    },
                    "grace_seconds": 86400,
                }
            )
            + b"\n"
        )
        self.store("config.json", self.config)
        self.owners, self.owner_keys, self.host = [], [], None
        if plain:
            return
        for _ in range(owners):
            self.owner_keys.append(new_identity())
        self.owners = [key[1] for key in self.owner_keys]
        self.host = new_identity()
        if passphrase:
            sealed = seal_to_passphrase(self.owner_keys[0][0], passphrase, directory)
            self.store("keys/owner-main-%s.age" % sha256(sealed), sealed)
        sealed = seal(self.host[0], self.owners)
        self.store("keys/host-%s.age" % sha256(sealed), sealed)
        self.put_recipients(1, proven)

    def put_recipients(self, number, proven=True):
        body = dense(
            {
                "batchsync": 1,
                "kind": "recipients",
                "repository": self.id.hex(),
                "number": number,
                "owners": self.owners,
                "host": self.host[1],
                "config": sha256(self.config),
                "created": time_text(time.time_ns()),
            }
        )
        proofs = [
            {
                "owner": public,
                "mac": mac(derive(secret, self.id, "batchsync/owner-proof"), body).hex(),
            }
            for _, public, secret in self.owner_keys
        ]
        proof = {
            "mac": mac(derive(self.host[2], self.id, "batchsync/mac/recipients"), body).hex(),
            "proofs": proofs if proven else [],
        }
        data = body + b"\n" + dense(proof) + b"\n"
        return self.store("keys/recipients-%d-%s.json" % (number, sha256(data)), data)

    # -- objects

    def store(self, name, data):
        path = os.path.join(self.directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb") as file:
            file.write(data)
        return path

    def sealed(self, data, recipients):
        return data if self.plain else seal(data, recipients)

    def record(self, kind, payload, moment=None, secret=None, repository=None):
        """Seals and stores one record; returns (name, id). `secret`, `repository`: for forgeries."""
        prefix = {"snapshot": "snapshots", "run": "runs", "mark": "marks"}.get(kind, kind)
        header = {"batchsync": 1, "kind": kind, "repository": repository or self.id.hex()}
        if not self.plain:
            key = derive(secret or self.host[2], self.id, "batchsync/mac/" + kind)
            header["mac"] = mac(
                key, b"batchsync 1\n%s\n%s\n" % (kind.encode(), self.id.hex().encode()) + payload
            ).hex()
        stored = self.sealed(
            compress(dense(header) + b"\n" + payload),
            self.owners + [self.host[1]] if not self.plain else [],
        )
        identifier = sha256(stored)
        if kind == "index":
            name = "index/%s.jsonl.zst%s" % (identifier, self.age)
        else:
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(moment // 10**9))
            name = "%s/%s-%s.json.zst%s" % (prefix, stamp, identifier, self.age)
        self.store(name, stored)
        return name, identifier

    # -- the tree

    def entry(self, path, root, shown, file_systems):
        """One manifest line as an object, and the data regions of a file."""
        at = os.lstat(path)
        kind = {
            stat.S_IFREG: "file",
            stat.S_IFDIR: "dir",
            stat.S_IFLNK: "symlink",
            stat.S_IFIFO: "fifo",
            stat.S_IFSOCK: "socket",
            stat.S_IFCHR: "chardev",
            stat.S_IFBLK: "blockdev",
        }[stat.S_IFMT(at.st_mode)]
        entry = {}
        put_text(entry, "path", shown)
        entry.update(type=kind, mode="%o" % stat.S_IMODE(at.st_mode), uid=at.st_uid, gid=at.st_gid)
        if at.st_uid == 0:
            entry.update(user="root", group="root")
        if kind == "file":
            entry["size"] = at.st_size
        entry.update(
            mtime=time_text(at.st_mtime_ns),
            ctime=time_text(at.st_ctime_ns),
            fs=file_systems.setdefault(at.st_dev, len(file_systems)),
            ino=at.st_ino,
        )
        if at.st_nlink > 1 and kind != "dir":
            entry["links"] = at.st_nlink
        if kind in ("chardev", "blockdev"):
            entry["rdev"] = [os.major(at.st_rdev), os.minor(at.st_rdev)]
        if kind == "symlink":
            put_text(entry, "target", os.readlink(path))
        if kind in ("file", "dir") and inode_flags(path):
            entry["flags"] = inode_flags(path)
        self.put_attributes(entry, path)
        return entry

    @staticmethod
    def put_attributes(entry, path):
        others = []
        for name in sorted(map(os.fsencode, os.listxattr(path, follow_symlinks=False))):
            value = os.getxattr(path, name, follow_symlinks=False)
            if name in (b"system.posix_acl_access", b"system.posix_acl_default"):
                items = []
                for tag, bits, number in struct.iter_unpack("<HHI", value[4:]):
                    letter = {1: "u", 2: "u", 4: "g", 8: "g", 16: "m", 32: "o"}[tag]
                    items.append(
                        "%s:%s:%s"
                        % (
                            letter,
                            number if tag in (2, 8) else "",
                            "".join(c if bits & bit else "-" for c, bit in zip("rwx", (4, 2, 1))),
                        )
                    )
                entry["acl" if name.endswith(b"access") else "acl_default"] = ",".join(items)
            else:
                shown = {}
                put_text(shown, "n", name)
                others.append(
                    [shown.get("n", {"b64": shown.get("n_b64")}), base64.b64encode(value).decode()]
                )
        if others:
            entry["xattrs"] = others

    def put_content(self, entry, path, name, bundle, helpers):
        """Packs one file's content; returns the ids of all chunks that the line leads to."""
        size, data, holes, at = entry["size"], b"", [], 0
        with open(path, "rb") as file:
            while at < size:
                try:
                    start = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:
                    start = size
                if start > at:
                    holes.append([at, start - at])
                if start < size:
                    at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                    data += os.pread(file.fileno(), at - start, start)
                else:
                    at = size
        leads_to = []
        if len(holes) > self.most:
            lines = b"".join(dense(hole) + b"\n" for hole in holes)
            pieces = [lines[i : i + 4096] for i in range(0, len(lines), 4096)]
            entry["holes_list"] = [helpers.add(".batchsync/node/" + sha256(p), p) for p in pieces]
            leads_to += entry["holes_list"]
        elif holes:
            entry["holes"] = holes
        entry["xxh3"] = xxh3(data)
        pieces = list(cut(data, *self.chunker))
        ids = []
        for piece in pieces:
            if len(pieces) == 1 and not holes and not name.startswith(b".batchsync/"):
                info = tarfile.TarInfo()
                info.mode, info.uid, info.gid = int(entry["mode"], 8), entry["uid"], entry["gid"]
                info.mtime = int(entry["mtime"].split(".")[0])
                ids.append(bundle.add(os.fsdecode(name), piece, info))
            else:
                ids.append(
                    bundle.add(".batchsync/chunk/" + sha256(piece), piece, None, os.fsdecode(name))
                )
        leads_to += ids
        if len(ids) > self.most:
            depth = 0
            while depth == 0 or len(ids) > self.most:
                lines = [dense(i) + b"\n" for i in ids]
                ids, depth = [
                    helpers.add(".batchsync/node/" + sha256(p), p) for p in self.nodes(ids, lines)
                ], depth + 1
                leads_to += ids
            entry.update(list=ids, depth=depth)
        elif ids:
            entry["chunks"] = ids
        return leads_to

    def nodes(self, ids, lines):
        least, bits, most = self.node
        group = []
        for identifier, line in zip(ids, lines):
            group.append(line)
            if len(group) >= most or (
                len(group) >= least and int(identifier[-4:], 16) % (1 << bits) == 0
            ):
                yield b"".join(group)
                group = []
        if group:
            yield b"".join(group)

    def snapshot(self, tree, moment=None, host="alpha", root=b"/srv/data", change=None, **more):
        """Adds one snapshot of `tree` (shown as `root`); returns (name, id). `change` may alter the
        list of (path, line object, chunks) before it is written: for manifests that no honest writer
        makes.
        """
        moment = moment or max(time.time_ns(), self.last_time + 10**9)
        self.last_time = moment
        tree = os.fsencode(tree)
        file_systems, found = {}, []
        for directory, names, files in os.walk(tree):
            found += [os.path.join(directory, n) for n in names + files]
        shown = {tree: root, **{path: root + path[len(tree) :] for path in found}}
        content, helpers = Bundle(self, "content"), Bundle(self, "manifest")
        entries = []
        for path in sorted(shown, key=lambda p: shown[p].split(b"/")):
            entry = self.entry(path, tree, shown[path], file_systems)
            chunks = []
            if entry["type"] == "file":
                chunks = self.put_content(entry, path, shown[path][1:], content, helpers)
            entries.append((shown[path], entry, chunks))
        content.finish()
        helpers.finish()
        if change:
            entries = change(entries)
        manifest = self.manifest(entries, helpers)
        self.record("index", b"".join(dense(line) + b"\n" for line in self.index_lines))
        self.index_lines = []
        count = {kind: sum(e["type"] == kind for _, e, _ in entries) for kind in ("file", "dir")}
        value = {"time": time_text(moment), "host": host, "roots": [root.decode()]}
        value.update({k: more[k] for k in ("tags", "description") if k in more})
        value.update(
            program="make_repository 1",
            options={},
            file_systems=[{"type": "ext4", "source": "device %d" % d} for d in file_systems],
            manifest=manifest,
            statistics={
                "files": count["file"],
                "directories": count["dir"],
                "others": len(entries) - count["file"] - count["dir"],
                "bytes": sum(e.get("size", 0) for _, e, _ in entries),
            },
            seen=more.get("seen", []),
        )
        return self.record("snapshot", dense(value) + b"\n", more.get("named", moment))

    def manifest(self, entries, bundle):
        """Segments and nodes; the `segment` lines of the index."""
        least, bits, most = self.segment
        level, lines, first, needs = [], b"", None, set()

        def end_segment():
            identifier = bundle.add(".batchsync/segment/" + sha256(lines), lines)
            level.append((identifier, first, {self.where[c] for c in needs if c in self.where}))

        for path, entry, chunks in entries:
            first = first or path
            lines += dense(entry) + b"\n"
            needs.update(chunks)
            value = 0xCBF29CE484222325
            for byte in path:
                value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
            value ^= value >> 32
            if len(lines) >= most or (len(lines) >= least and value & (1 << bits) - 1 == 0):
                end_segment()
                lines, first, needs = b"", None, set()
        if lines:
            end_segment()
        depth, segments = 0, []
        while level and (depth == 0 or len(level) > self.most):
            texts = []
            for identifier, first, _ in level:
                child = {"id": identifier}
                put_text(child, "first", first)
                texts.append(dense(child) + b"\n")
            ids, at, above = [item[0] for item in level], 0, []
            for node in self.nodes(ids, texts):
                children = level[at : at + node.count(b"\n")]
                at += len(children)
                identifier = bundle.add(".batchsync/node/" + sha256(node), node)
                above.append((identifier, children[0][1], children))
            segments += level if depth == 0 else []
            bundle.finish()  # so that it is known where the children lie
            level = [
                (i, f, set().union(*[c[2] | {self.where[c[0]]} for c in children]))
                for i, f, children in above
            ]
            segments += level
            depth += 1
        self.index_lines += [{"segment": i, "bundles": sorted(needs)} for i, _, needs in segments]
        return {"depth": depth or 1, "ids": [item[0] for item in level]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("repository")
    parser.add_argument("tree", nargs="+", help="one snapshot of each, in this order")
    parser.add_argument("--plain", action="store_true", help="without encryption")
    parser.add_argument(
        "--small", action="store_true", help="small chunks, frames, bundles, segments"
    )
    parser.add_argument("--passphrase")
    parser.add_argument(
        "--time", type=int, help="of the first snapshot, in seconds; each next is a day later"
    )
    options = parser.parse_args()
    writer = Writer(options.repository, options.plain, options.passphrase, small=options.small)
    for kind, key in (
        ("owner", writer.owner_keys[:1]),
        ("host", [writer.host] if writer.host else []),
    ):
        for identity, _, _ in key:
            with open(options.repository + "." + kind, "xb") as file:
                file.write(identity)
    for number, tree in enumerate(options.tree):
        moment = (options.time + number * 86400) * 10**9 if options.time else None
        print(writer.snapshot(tree, moment)[1])


if __name__ == "__main__":
    sys.exit(main())
