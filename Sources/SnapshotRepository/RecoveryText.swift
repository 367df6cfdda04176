// swift-format-ignore-file
// Made by scripts/embed-recovery.sh from Recovery/recover.py and Recovery/RECOVER.md. Edit those.

enum RecoveryText {
    static let program: StaticString = ###"""
#!/usr/bin/env python3
"""Brings back snapshots of a batchsync repository, without batchsync.

    python3 recover.py list
    python3 recover.py ls      SNAPSHOT[:PATH]
    python3 recover.py restore SNAPSHOT[:PATH] TARGET
    python3 recover.py check

Run it inside a copy of the repository, with --identity FILE (the owner's age identity) or
--passphrase-file FILE. It needs Python 3.9 or newer, the command `zstd`, and should have the
command `age`: without it, this file opens bundles itself, at a tenth of the speed.

The stored format, briefly (the full text is docs/format.md in the source of batchsync):

  bundles/HH/ID.tar.zst.age   tar, cut into zstd frames, sealed with age. Each tar entry is a
                              "chunk", named by the SHA-256 of its bytes: the content of a file, or
                              a part of it, or a piece of a manifest.
  index/ID.jsonl.zst.age      which chunk lies in which bundle, in which frame, where.
  snapshots/UTC-ID.json.…     names the chunks of one manifest: a sorted list, one JSON line a file.

The ID in every name is the SHA-256 of that object's bytes. So the way is: open the keys, read the
snapshot, read the index, put the manifest together, then fetch the chunks of the files, bundle by
bundle. Nothing is believed that is not proven by a digest or by a MAC under the owner's key, and
nothing is ever written outside of TARGET.

Exit codes: 0 done, 1 failed, 3 done but not whole (what is missing was named), 4 damage found (it
was named; the rest was restored), 12 wrong passphrase or key, 64 wrong use.
"""

import argparse
import base64
import bisect
import collections
import contextlib
import datetime
import errno
import fcntl
import getpass
import grp
import hashlib
import hmac
import io
import json
import os
import pwd
import re
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
from array import array

DONE, FAILED, NOT_WHOLE, DAMAGED, WRONG_KEY, USAGE = 0, 1, 3, 4, 12, 64

# The limits of section 13 of the format. What exceeds them is refused before memory is taken for
# it.
MIB = 1 << 20
FRAME_LIMIT = CHUNK_LIMIT = 16 * MIB
INDEX_LIMIT, RECORD_LIMIT = 1 << 30, 64 * MIB
PATH_LIMIT, DEPTH_LIMIT, HEADER_LIMIT, WORK_LIMIT = MIB, 8, 64 << 10, 22
# hashlib.scrypt takes no more than 2 GiB of memory, which is a work factor of 20.
WORK_POSSIBLE = 20
# How much of a snapshot is worked on at a time; bounds the memory used, not what can be restored.
BATCH_ENTRIES, BATCH_CHUNKS = 100_000, 500_000


class Stop(Exception):
    """Ends the program: an exit code, and the sentence for the person in front of it."""

    def __init__(self, code, sentence):
        super().__init__(sentence)
        self.code = code


class Damage(Exception):
    """One object, or a part of it, is not what it has to be."""


# What reading malformed data can raise; all of it means damage.
BROKEN = (Damage, ValueError, TypeError, AttributeError, LookupError, ArithmeticError,
          RecursionError, struct.error)


class Report:
    """Says on standard error what went wrong, and remembers what that means for the exit code."""

    def __init__(self):
        self.damage = self.missing = 0
        self.not_owned = 0
        self.said = set()

    def note(self, sentence):
        print(sentence, file=sys.stderr)

    def damaged(self, what, why):
        self.damage += 1
        if what not in self.said:
            self.said.add(what)
            self.note("damaged: %s: %s" % (what, why))

    def affected(self, path, why):
        self.damage += 1
        self.note("affected: %s: %s" % (show(path), why))

    def left_out(self, path, why):
        self.missing += 1
        self.note("not restored: %s: %s" % (show(path), why))

    def code(self):
        return DAMAGED if self.damage else NOT_WHOLE if self.missing else DONE


def show(text):
    """The text for a terminal: what does not print is escaped, so that no name can fool the
    reader."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    return "".join(
        c if c.isprintable() and c != "\\" else
        "\\x%02x" % (ord(c) - 0xDC00) if 0xDC80 <= ord(c) <= 0xDCFF else
        c.encode("unicode_escape").decode() for c in text)


def reason(error):
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


# -------------------------------------------------------------------------------------------------
# Cryptography. The standard library has SHA-256, HMAC and scrypt; the rest of what age needs is
# here:
# bech32 (how keys are written), X25519, ChaCha20-Poly1305, HKDF.

BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def bech32_checksum(prefix, values):
    check = 1
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
    for value in expanded + values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> i & 1 else 0
    return check


def regroup(values, width, new_width):
    """The same bits in groups of another width, filled up with zeros at the end."""
    bits = "".join(format(value, "0%db" % width) for value in values)
    bits += "0" * (-len(bits) % new_width)
    return [int(bits[i:i + new_width], 2) for i in range(0, len(bits), new_width)]


def bech32_decode(prefix, text):
    text = text.lower() if text.isupper() else text
    head, _, tail = text.rpartition("1")
    if head != prefix or len(tail) < 7 or any(c not in BECH32 for c in tail):
        raise ValueError("not a key that begins with %s1" % prefix)
    values = [BECH32.index(c) for c in tail]
    if bech32_checksum(prefix, values) != 1:
        raise ValueError("the key has a typing error: its checksum is wrong")
    return bytes(regroup(values[:-6], 5, 8)[:len(values[:-6]) * 5 // 8])


def bech32_encode(prefix, data):
    values = regroup(data, 8, 5)
    check = bech32_checksum(prefix, values + [0] * 6) ^ 1
    values += [check >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(BECH32[value] for value in values)


def x25519(secret, point):
    """RFC 7748, section 5: the Montgomery ladder."""
    p = 2 ** 255 - 19
    k = int.from_bytes(secret, "little") & ~7 & (1 << 254) - 1 | 1 << 254
    u = int.from_bytes(point, "little") & (1 << 255) - 1
    x2, z2, x3, z3 = 1, 0, u, 1
    for i in reversed(range(255)):
        bit = k >> i & 1
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % p, b * b % p, d * a % p, c * b % p
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % p, u * (da - cb) ** 2 % p
        x2, z2 = aa * bb % p, e * (aa + 121665 * e) % p
        if bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little")


def chacha20(key, nonce, length):
    """`length` bytes of key stream from block 0 on (RFC 8439).

    All blocks are computed at once: word i of every block lies in one large integer, 64 bits for
    each
    block, the upper 32 of which take the carries and are cut off. That is what makes it fast
    here."""
    blocks = -(-length // 64)
    ones = int.from_bytes((b"\1" + bytes(7)) * blocks, "little")
    low = 0xFFFFFFFF * ones
    counter = int.from_bytes(struct.pack("<%dQ" % blocks, *range(blocks)), "little")
    words = struct.unpack("<8I", key) + struct.unpack("<3I", nonce)
    start = [w * ones for w in (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574) + words[:8]]
    start += [counter] + [w * ones for w in words[8:]]
    s = list(start)
    columns = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
    diagonals = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
    for a, b, c, d in (columns + diagonals) * 10:
        for turn_d, turn_b in ((16, 12), (8, 7)):
            s[a] = s[a] + s[b] & low
            x = s[d] ^ s[a]
            s[d] = (x << turn_d | x >> 32 - turn_d) & low
            s[c] = s[c] + s[d] & low
            x = s[b] ^ s[c]
            s[b] = (x << turn_b | x >> 32 - turn_b) & low
    stream = array("I", bytes(64 * blocks))
    for i in range(16):
        lanes = (s[i] + start[i] & low).to_bytes(8 * blocks, "little")
        stream[i::16] = array("I", lanes)[0::2]
    return stream.tobytes()[:length]


def poly1305(key, data):
    p = (1 << 130) - 5
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for i in range(0, len(data), 16):
        total = (total + int.from_bytes(data[i:i + 16] + b"\1", "little")) * r % p
    return (total + int.from_bytes(key[16:], "little") & (1 << 128) - 1).to_bytes(16, "little")


def aead_open(key, nonce, sealed):
    """ChaCha20-Poly1305 without associated data. None if the bytes were not sealed with this
    key."""
    data, tag = sealed[:-16], sealed[-16:]
    stream = chacha20(key, nonce, 64 + len(data))
    padded = data + bytes(-len(data) % 16) + struct.pack("<QQ", 0, len(data))
    if len(sealed) < 16 or not hmac.compare_digest(tag, poly1305(stream[:32], padded)):
        return None
    plain = int.from_bytes(data, "little") ^ int.from_bytes(stream[64:], "little")
    return plain.to_bytes(len(data), "little")


def hmac256(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def hkdf(secret, salt, info):
    return hmac256(hmac256(salt, secret), info.encode() + b"\1")


class Identity:
    """One age X25519 key pair."""

    def __init__(self, text):
        self.text = text
        self.secret = bech32_decode("age-secret-key-", text)
        if len(self.secret) != 32:
            raise ValueError("an age identity has 32 bytes")
        self.public = x25519(self.secret, b"\x09" + bytes(31))
        self.recipient = bech32_encode("age", self.public)


def parse_identities(data, where):
    """The identities in an age identity file: one a line, `#` begins a comment."""
    try:
        lines = [line.strip() for line in data.decode("utf-8").splitlines()]
        found = [Identity(line) for line in lines if line and not line.startswith("#")]
    except ValueError as error:
        raise Stop(WRONG_KEY, "%s is not an age identity file (%s). It must hold a line that "
                              "begins with AGE-SECRET-KEY-1." % (where, error))
    if not found:
        raise Stop(WRONG_KEY, "%s holds no age identity." % where)
    return found


class Sealed:
    """A sealed object: one age v1 file. Opens any range of it, since each 64 KiB stand for
    themselves.

    `secrets` are the identities to try, or a passphrase (bytes)."""

    PIECE = 64 << 10

    def __init__(self, file, secrets):
        self.file = file
        self.size = os.fstat(file.fileno()).st_size
        file.seek(0)
        head = file.read(HEADER_LIMIT)
        end = re.search(rb"\n--- ([A-Za-z0-9+/]{43})\n", head)
        if not head.startswith(b"age-encryption.org/v1\n") or not end:
            raise Damage("it is not an age file")
        key = self.file_key(head[22:end.start() + 1], secrets)
        mac = hmac256(hkdf(key, bytes(32), "header"), head[:end.start() + 4])
        if not hmac.compare_digest(mac, unpadded(end.group(1))):
            raise Damage("its age header was altered")
        self.start = end.end() + 16
        self.key = hkdf(key, head[end.end():self.start], "payload")
        self.pieces = -(-(self.size - self.start) // (self.PIECE + 16))
        if self.pieces < 1:
            raise Damage("it was cut short")

    @staticmethod
    def file_key(stanzas, secrets):
        for stanza in re.findall(rb"-> ([^\n]*)\n((?:[^\n]{64}\n)*[^\n]{0,63}\n)", stanzas):
            words, body = stanza[0].split(b" "), unpadded(stanza[1].replace(b"\n", b""))
            if words[0] == b"scrypt" and len(words) == 3 and isinstance(secrets, bytes):
                work = int(words[2]) if re.fullmatch(rb"[1-9][0-9]?", words[2]) else 99
                if work > WORK_LIMIT:
                    raise Damage("its scrypt work factor is above %d" % WORK_LIMIT)
                if work > WORK_POSSIBLE:
                    raise Stop(FAILED, "This passphrase was sealed with scrypt work factor %d, for "
                                       "which Python has no memory. Open it with: age -d "
                                       "keys/owner-….age > identity, then give --identity "
                                       "identity." % work)
                wrap = hashlib.scrypt(
                    secrets, salt=b"age-encryption.org/v1/scrypt" + unpadded(words[1]), n=1 << work,
                    r=8, p=1, maxmem=(128 * 8 << work) + MIB, dklen=32)
                key = aead_open(wrap, bytes(12), body)
                if key:
                    return key
            if words[0] == b"X25519" and len(words) == 2 and not isinstance(secrets, bytes):
                share = unpadded(words[1])
                for identity in secrets:
                    shared = x25519(identity.secret, share)
                    wrap = hkdf(shared, share + identity.public, "age-encryption.org/v1/X25519")
                    key = aead_open(wrap, bytes(12), body) if any(shared) else None
                    if key:
                        return key
        raise Damage("it is not sealed to this key")

    def piece(self, number):
        """The plaintext of one piece. The last one of a file is sealed as such."""
        start = self.start + number * (self.PIECE + 16)
        self.file.seek(start)
        sealed = self.file.read(self.PIECE + 16)
        last = number == self.pieces - 1
        plain = aead_open(self.key, struct.pack(">3xQB", number, last), sealed)
        if plain is None or (last and number and not plain):
            raise Damage("bytes %d to %d were altered or cut off" % (
                start, start + self.PIECE + 16))
        return plain

    def read(self, offset, length):
        first, last = offset // self.PIECE, (offset + length - 1) // self.PIECE
        if last >= self.pieces:
            raise Damage("it was cut short")
        skip = offset - first * self.PIECE
        return b"".join(self.piece(n) for n in range(first, last + 1))[skip:skip + length]

    def whole(self):
        return b"".join(self.piece(n) for n in range(self.pieces))


class Clear:
    """The same for a repository without encryption: what is stored is what would have been
    sealed."""

    def __init__(self, file):
        self.file = file

    def read(self, offset, length):
        self.file.seek(offset)
        return self.file.read(length)

    def whole(self):
        return self.read(0, -1)


def unpadded(text):
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise Damage("its age header is malformed")


# -------------------------------------------------------------------------------------------------
# zstd, by its command.

def require_zstd():
    if not shutil.which("zstd"):
        raise Stop(FAILED, "The command zstd is needed and was not found. On Debian: apt install "
                           "zstd")


def stated_size(data):
    """The content size that a zstd frame states in its header (RFC 8878, 3.1.1.1)."""
    if data[:4] != b"\x28\xb5\x2f\xfd" or len(data) < 18:
        raise Damage("it is not a zstd frame")
    descriptor = data[4]
    single = descriptor >> 5 & 1
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    width = (single, 2, 4, 8)[descriptor >> 6]
    if not width:
        raise Damage("its zstd frame does not state its size")
    return int.from_bytes(data[at:at + width], "little") + (256 if width == 2 else 0)


def decompress(data, size):
    """Exactly `size` bytes, or Damage. Never reads more than that, whatever the data would unfold
    to."""
    with subprocess.Popen(["zstd", "-dcq"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        def feed():
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(data)
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

        thread = threading.Thread(target=feed, daemon=True)
        thread.start()
        plain = process.stdout.read(size + 1)
        if len(plain) > size:
            process.kill()
        thread.join()
        process.stdin = None
    if len(plain) != size or process.returncode:
        raise Damage("its zstd data is damaged, or not as long as stated")
    return plain


# -------------------------------------------------------------------------------------------------
# JSON. Every field of format 1; an object that calls another one "critical" is from the future.

KNOWN = set("""batchsync kind repository mac created encryption chunker grace_seconds number owners
            host
    config proofs owner bundle size plain md5 frame xxh3 chunks segment bundles path path_b64 type
            mode uid
    gid user user_b64 group group_b64 mtime ctime btime fs ino links rdev target target_b64 flags
            acl
    acl_default xattrs holes holes_list list depth unsettled id first first_b64 time roots tags
            description
    program options file_systems manifest statistics problems seen state records snapshots restored
            snapshot
    add remove pin message critical""".split())


def parse(line):
    value = json.loads(line)
    if isinstance(value, dict) and not KNOWN.issuperset(value.get("critical", ())):
        raise Damage("it needs a newer release of recover.py")
    return value


def text(value, field):
    """A text field as bytes: under its name where it is UTF-8, else under NAME_b64. None if
    absent."""
    if field in value:
        return value[field].encode("utf-8")
    if field + "_b64" in value:
        return base64.b64decode(value[field + "_b64"], validate=True)
    return None


def plain_or_base64(value):
    """Text in an array as bytes: a string, or {"b64": …} where it is not UTF-8."""
    return value.encode() if isinstance(value, str) else base64.b64decode(value["b64"])


def nanoseconds(value):
    match = re.fullmatch(r"(-?)([0-9]{1,12})\.([0-9]{9})", value)
    if not match:
        raise ValueError("%r is not a time" % value)
    number = int(match.group(2)) * 10 ** 9 + int(match.group(3))
    return -number if match.group(1) else number


def utc(value, pattern):
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=value // 10 ** 9)
    return moment.strftime(pattern)


def an_id(value):
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError("%r is not an id" % value)
    return bytes.fromhex(value)


# -------------------------------------------------------------------------------------------------
# The repository: its objects, its keys, its records.

class Repository:
    def __init__(self, directory, report):
        self.directory, self.report = directory, report
        self.identities, self.openers, self.host, self.id = [], [], None, None
        try:
            with open(os.path.join(directory, "config.json"), "rb") as file:
                self.config_bytes = file.read(MIB)
            config = parse(self.config_bytes)
            if config["batchsync"] != 1:
                raise Stop(FAILED, "This repository is of format %s, and this recover.py reads "
                                   "format 1. Take the recover.py of a newer release." %
                           config["batchsync"])
            self.id = an_id(config["repository"])
            self.sealed = {"age": True, "none": False}[config["encryption"]]
        except FileNotFoundError:
            raise Stop(FAILED, "There is no config.json in %s. Run this inside a copy of the "
                               "repository, or name one with --repository DIR." % show(directory))
        except BROKEN as error:
            raise Stop(DAMAGED, "config.json is damaged (%s). Fetch it again; every recipient set "
                                "in keys/ has its SHA-256 under \"config\"." % error)

    @staticmethod
    def check_version(value):
        if value["batchsync"] != 1:
            raise Damage("it is of format %s, and this recover.py reads format 1; take the one of a "
                         "newer release" % value["batchsync"])

    def names(self, prefix, ending):
        """All objects under a prefix, as (name, id), in order of name. Other names are ignored."""
        pattern = re.compile(r"(?:[0-9A-Za-z_.-]+-)?([0-9a-f]{64})" + re.escape(ending))
        place = os.path.join(self.directory, prefix)
        try:
            found = [(name, pattern.fullmatch(name)) for name in sorted(os.listdir(place))]
        except FileNotFoundError:
            return []
        return [(prefix + "/" + name, match.group(1)) for name, match in found if match]

    def path(self, name):
        return os.path.join(self.directory, name)

    def bundle_name(self, bundle):
        return "bundles/%s/%s.tar.zst%s" % (bundle[:2], bundle, ".age" if self.sealed else "")

    def check_digest(self, name, identifier):
        """Compares an object's bytes with its name."""
        digest = hashlib.sha256()
        try:
            with open(self.path(name), "rb") as file:
                for block in iter(lambda: file.read(4 * MIB), b""):
                    digest.update(block)
        except OSError as error:
            raise Damage("it cannot be read: %s" % reason(error))
        if digest.hexdigest() != identifier:
            raise Damage("its bytes do not hash to its name")

    # -- keys: the way from a passphrase or an owner's identity to the key that proves records ----

    def unlock(self, options):
        """Opens keys/ and proves that host key, recipients and repository belong together (section
        4)."""
        if not self.sealed:
            return
        self.identities = self.owner_identities(options)
        proven, named = [], []
        for number, name, body, proofs in self.recipient_sets():
            for identity in self.identities:
                if identity.recipient not in body["owners"]:
                    continue
                key = hkdf(identity.secret, self.id, "batchsync/owner-proof")
                expected = hmac256(key, body["bytes"]).hex()
                given = [p["mac"] for p in proofs["proofs"] if p["owner"] == identity.recipient]
                if expected in given:
                    proven.append((number, name, body, proofs))
                elif given:
                    self.report.damaged(name, "its proof by your key is false; it is passed over")
                else:
                    named.append((number, name, body, proofs))
        if not proven and not named:
            raise Stop(WRONG_KEY, "This key is not an owner of this repository: no sound recipient "
                                  "set in keys/ names it. Look for another key or passphrase.")
        number, name, body, proofs = max(proven or named, key=lambda item: item[0])
        self.host = self.host_identity(body["host"])
        key = hkdf(self.host.secret, self.id, "batchsync/mac/recipients")
        if hmac256(key, body["bytes"]).hex() != proofs["mac"]:
            raise Stop(DAMAGED, "%s was altered: its MAC is false. Fetch the repository's keys/ "
                                "again from a copy you trust." % name)
        if not proven:
            if not options.accept_unproven:
                raise Stop(FAILED, "sender not proven: %s carries no proof by your key, so anybody "
                                   "could have written this repository. If you know that it is "
                                   "yours (compare the name of that file with your notes), say "
                                   "--accept-unproven." % name)
            self.report.note("sender not proven: going on with %s, as told" % name)
        self.openers = self.identities + [self.host]

    def owner_identities(self, options):
        """From --identity, or from keys/owner-*.age by the passphrase."""
        if options.identity:
            found = []
            for name in options.identity:
                with open(name, "rb") as file:
                    data = file.read(MIB)
                    if data.startswith(b"age-encryption.org/v1"):
                        data = Sealed(file, self.passphrase(options)).whole()
                found += parse_identities(data, show(name))
            return found
        passphrase, sealed = self.passphrase(options), self.names("keys", ".age")
        sealed = [(name, i) for name, i in sealed if name.startswith("keys/owner-")]
        if not sealed:
            raise Stop(WRONG_KEY, "keys/ holds no owner's identity sealed to a passphrase: this "
                                  "repository is opened with --identity FILE, the owner's age "
                                  "identity.")
        found = []
        for name, identifier in sealed:
            try:
                self.check_digest(name, identifier)
                with open(self.path(name), "rb") as file:
                    found += parse_identities(Sealed(file, passphrase).whole(), name)
            except Damage as error:
                if "not sealed to this key" not in str(error):
                    self.report.damaged(name, error)
        if not found:
            raise Stop(WRONG_KEY, "The passphrase opens none of the %d owner keys in keys/. A "
                                  "passphrase is one line; mind blanks at its end." % len(sealed))
        return found

    @staticmethod
    def passphrase(options):
        if options.passphrase_file:
            with open(options.passphrase_file, "rb") as file:
                return file.read(MIB).split(b"\n")[0].rstrip(b"\r")
        if sys.stdin.isatty():
            return getpass.getpass("Passphrase of the repository: ").encode()
        raise Stop(USAGE, "This repository is encrypted: give --identity FILE or --passphrase-file "
                          "FILE.")

    def recipient_sets(self):
        """The sets that belong to this config.json, as (number, name, body, proofs)."""
        config = hashlib.sha256(self.config_bytes).hexdigest()
        foreign = None
        for name, identifier in self.names("keys", ".json"):
            try:
                number = int(re.fullmatch(r"keys/recipients-([0-9]{1,9})-.*", name).group(1))
                self.check_digest(name, identifier)
                with open(self.path(name), "rb") as file:
                    first, second = file.read(MIB).split(b"\n")[:2]
                body, proofs = parse(first), parse(second)
                self.check_version(body)
                body["bytes"] = first
                if body["kind"] != "recipients" or body["number"] != number:
                    raise Damage("its name and its content disagree")
                if (body["config"], body["repository"]) != (config, self.id.hex()):
                    foreign = name
                    continue
                # All that will be used must be there, and be text.
                "".join(body["owners"] + [body["host"], proofs["mac"]])
                "".join(p["owner"] + p["mac"] for p in proofs["proofs"])
                yield number, name, body, proofs
            except BROKEN as error:
                self.report.damaged(name, error)
        if foreign:
            self.report.damaged(foreign, "it does not belong to this config.json; one of them was "
                                         "replaced")

    def host_identity(self, recipient):
        for name, identifier in self.names("keys", ".age"):
            if name.startswith("keys/host-"):
                try:
                    self.check_digest(name, identifier)
                    with open(self.path(name), "rb") as file:
                        plain = Sealed(file, self.identities).whole()
                    for identity in parse_identities(plain, name):
                        if identity.recipient == recipient:
                            return identity
                except Damage as error:
                    if "not sealed to this key" not in str(error):
                        self.report.damaged(name, error)
        raise Stop(DAMAGED, "keys/ holds no host key that your key opens and that the recipient "
                            "set names. Without it no record can be proven; look for "
                            "keys/host-*.age in another copy.")

    # -- records ----------------------------------------------------------------------------------

    def open_object(self, file):
        return Sealed(file, self.openers) if self.sealed else Clear(file)

    def record(self, kind, name, identifier):
        """The payload of one record, after every check of section 6. Raises Damage."""
        limit = INDEX_LIMIT if kind == "index" else RECORD_LIMIT
        self.check_digest(name, identifier)
        if os.path.getsize(self.path(name)) > limit + limit // 100 + MIB:
            raise Damage("it is larger than any record may be")
        with open(self.path(name), "rb") as file:
            if self.sealed and os.fstat(file.fileno()).st_size > 4 * MIB and age_command():
                with self.age(file) as process:
                    packed = process.stdout.read()
                if process.returncode:
                    raise Damage("age cannot open it")
            else:
                packed = self.open_object(file).whole()
        size = stated_size(packed)
        if size > limit:
            raise Damage("it would unfold to %d bytes, more than a record may have" % size)
        plain = decompress(packed, size)
        del packed
        end = plain.find(b"\n", 0, MIB)
        header, payload = parse(plain[:end]), memoryview(plain)[end + 1:]
        self.check_version(header)
        if header["kind"] != kind or header["repository"] != self.id.hex():
            raise Damage("it belongs to another place or another repository")
        if self.sealed:
            key = hkdf(self.host.secret, self.id, "batchsync/mac/" + kind)
            first = "batchsync 1\n%s\n%s\n" % (kind, self.id.hex())
            mac = hmac.new(key, first.encode(), "sha256")
            mac.update(payload)
            if not hmac.compare_digest(mac.hexdigest(), header["mac"]):
                raise Damage("its MAC is false: it was not written by a host of this repository")
        return payload

    def records(self, kind, prefix):
        """All sound records of a kind, as (name, id, payload). Others are named as damage."""
        ending = ".jsonl.zst" if kind == "index" else ".json.zst"
        ending += ".age" if self.sealed else ""
        for name, identifier in self.names(prefix, ending):
            try:
                yield name, identifier, self.record(kind, name, identifier)
            except BROKEN + (OSError,) as error:
                self.report.damaged(name, reason(error))

    def objects(self, kind, prefix):
        """The same for records whose payload is one JSON object, as (name, id, object)."""
        for name, identifier, payload in self.records(kind, prefix):
            try:
                value = parse(bytes(payload))
                value["ns"] = nanoseconds(value["time"])
                yield name, identifier, value
            except BROKEN as error:
                self.report.damaged(name, error)

    # -- opening bundles as a stream --------------------------------------------------------------

    def age(self, file):
        """`age -d` reading `file`. The identity goes to it through a pipe and never touches a
        disk."""
        reading, writing = os.pipe()
        try:
            os.write(writing, "".join(i.text + "\n" for i in self.openers).encode())
            os.close(writing)
            return subprocess.Popen(
                ["age", "-d", "-i", "/dev/fd/%d" % reading], pass_fds=[reading],
                stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        finally:
            os.close(reading)

    @contextlib.contextmanager
    def tar_stream(self, name):
        """The tar bytes of one bundle, as a pipe: age -d … | zstd -dc."""
        with open(self.path(name), "rb") as file, contextlib.ExitStack() as stack:
            source = file
            if self.sealed:
                age = stack.enter_context(self.age(file))
                stack.callback(age.kill)
                source = age.stdout
            zstd = stack.enter_context(subprocess.Popen(
                ["zstd", "-dcq"], stdin=source, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
            stack.callback(zstd.kill)
            yield zstd.stdout


def age_command():
    return shutil.which("age") is not None and os.path.isdir("/dev/fd")


# -------------------------------------------------------------------------------------------------
# Chunks: where they lie, and how they are fetched.

class Bundle:
    """What the index says of one bundle. `frames`: (offset in Z, length in Z, raw length,
    start)."""

    def __init__(self, identifier, kind):
        self.id, self.kind, self.frames = identifier, kind, []

    def streamable(self):
        """Whether the frames follow one another without a gap, so that `start` is right."""
        at = 24
        for offset, length, _, _ in self.frames:
            if offset != at:
                return False
            at += length
        return True


Place = collections.namedtuple("Place", "bundle frame offset length")  # offset: within the frame


class Chunks:
    """Finds chunks by id and fetches them, each bundle being opened once for all that is wanted of
    it."""

    def __init__(self, repository, without_index):
        self.repository, self.report = repository, repository.report
        self.scanned = self.scan() if without_index else None
        self.manifest_places = None

    def places(self, wanted):
        """id → [Place…] for all wanted chunks that are found."""
        if self.scanned is not None:
            return {i: self.scanned[i] for i in wanted if i in self.scanned}
        if self.manifest_places is None:
            self.manifest_places = self.read_index(None)
        found = {i: self.manifest_places[i] for i in wanted if i in self.manifest_places}
        rest = {i for i in wanted if i not in found}
        if rest:
            found.update(self.read_index(rest))
        return found

    def read_index(self, wanted, segments=None):
        """One pass over the whole index. `wanted` None stands for the chunks of all manifest
        bundles.
        Fills `segments`, if given: id → [set of bundle ids…], for the ids that are its keys."""
        found = {}
        for name, _, payload in self.repository.records("index", "index"):
            bundle = None
            try:
                for line in io.BytesIO(payload):
                    value = parse(line)
                    if "frame" in value:
                        self.read_frame(bundle, value, wanted, found)
                    elif "bundle" in value:
                        an_id(value["bundle"])
                        bundle = Bundle(value["bundle"], value["kind"])
                    elif segments is not None and "segment" in value:
                        if an_id(value["segment"]) in segments:
                            segments[an_id(value["segment"])].append(set(value["bundles"]))
            except BROKEN as error:
                self.report.damaged(name, error)
        return found

    @staticmethod
    def read_frame(bundle, value, wanted, found):
        offset, length, raw = value["frame"]
        if not 0 <= raw <= FRAME_LIMIT or not 0 < length <= FRAME_LIMIT + MIB or offset < 24:
            raise Damage("a frame exceeds the limits")
        start = sum(bundle.frames[-1][2:]) if bundle.frames else 0
        bundle.frames.append((offset, length, raw, start))
        if wanted is None and bundle.kind != "manifest":
            return
        for text_id, at, size in value["chunks"]:
            chunk = bytes.fromhex(text_id)
            if wanted is None or chunk in wanted:
                if not 0 <= size <= CHUNK_LIMIT or not 0 <= at <= raw - size:
                    raise Damage("a chunk lies outside of its frame")
                found.setdefault(chunk, []).append(Place(bundle, len(bundle.frames) - 1, at, size))

    def scan(self):
        """The index made anew: reads every bundle to its end. For when the index is lost."""
        self.report.note("reading every bundle, since the index is not to be used …")
        found, repository = {}, self.repository
        place = repository.path("bundles")
        for prefix in sorted(os.listdir(place)) if os.path.isdir(place) else []:
            for name, identifier in repository.names(
                    "bundles/" + prefix, ".tar.zst" + (".age" if repository.sealed else "")):
                bundle = Bundle(identifier, None)
                try:
                    repository.check_digest(name, identifier)
                    with repository.tar_stream(name) as pipe, \
                            tarfile.open(fileobj=pipe, mode="r|") as tar:
                        for member in tar:
                            tar.members = []
                            if member.isreg() and member.size <= CHUNK_LIMIT:
                                data = tar.extractfile(member).read()
                                found.setdefault(hashlib.sha256(data).digest(), []).append(
                                    Place(bundle, None, member.offset_data, len(data)))
                except (Damage, OSError, tarfile.TarError) as error:
                    self.report.damaged(name, reason(error))
        return found

    def fetch(self, wanted, places, deliver):
        """Calls deliver(id, data) for each wanted chunk, in whatever order they lie. Every chunk
        was
        hashed before. Tries another place where one fails; returns the ids that could not be
        had."""
        pending = {i: list(places[i]) for i in wanted if i in places}
        lost = {i for i in wanted if i not in places}
        while pending:
            plan = {}
            for chunk, options in pending.items():
                place = next((p for p in options if p.bundle.id in plan), options[0])
                options.remove(place)
                plan.setdefault(place.bundle.id, []).append((place, chunk))
            for bundle, items in plan.items():
                for chunk, data in self.read_bundle(bundle, items):
                    if chunk in pending and hashlib.sha256(data).digest() == chunk:
                        del pending[chunk]
                        deliver(chunk, data)
                if any(chunk in pending for _, chunk in items):
                    self.report.damaged(self.repository.bundle_name(bundle), "chunks in it are "
                                                                             "damaged")
            for chunk in [c for c, options in pending.items() if not options]:
                del pending[chunk]
                lost.add(chunk)
        return lost

    def read_bundle(self, identifier, items):
        """Yields (id, bytes) for the places in one bundle; leaves out what cannot be read."""
        name = self.repository.bundle_name(identifier)
        stream = not self.repository.sealed or age_command()
        try:
            self.repository.check_digest(name, identifier)
        except Damage as error:
            self.report.damaged(name, error)
            stream = False
        whole = [item for item in items if item[0].frame is None]
        split = [item for item in items if item[0].frame is not None]
        # A place found by reading the bundle knows its position in the stream, and no frame.
        if whole:
            yield from self.read_stream(name, [(p.offset, p.length, c) for p, c in whole])
        if split and stream and all(b.streamable() for b in {p.bundle for p, _ in split}):
            yield from self.read_stream(name, [
                (p.bundle.frames[p.frame][3] + p.offset, p.length, c) for p, c in split])
        elif split:
            yield from self.read_frames(name, split)

    def read_stream(self, name, wanted):
        """Reads a sound bundle from its beginning up to the last chunk wanted."""
        at = 0
        with self.repository.tar_stream(name) as pipe:
            for start, length, chunk in sorted(wanted):
                if start < at:  # overlapping chunks: only a broken index has them
                    continue
                while at < start:
                    skipped = len(pipe.read(min(start - at, MIB)))
                    if not skipped:
                        return
                    at += skipped
                data = pipe.read(length)
                at += len(data)
                yield chunk, data

    def read_frames(self, name, items):
        """Reads frame by frame, for a damaged bundle: what is not touched by the damage still
        opens."""
        by_frame = {}
        for place, chunk in items:
            by_frame.setdefault(place.bundle.frames[place.frame][:3], []).append((place, chunk))
        try:
            with open(self.repository.path(name), "rb") as file:
                source = self.repository.open_object(file)
                for (offset, length, raw), wanted in sorted(by_frame.items()):
                    try:
                        packed = source.read(offset, length)
                        if stated_size(packed) != raw:
                            raise Damage("a frame is not as long as the index says")
                        plain = decompress(packed, raw)
                    except Damage as error:
                        self.report.note("damaged: %s: frame at %d: %s" % (name, offset, error))
                        continue
                    for place, chunk in wanted:
                        yield chunk, plain[place.offset:place.offset + place.length]
        except (OSError, Damage) as error:
            self.report.damaged(name, reason(error))

    def collect(self, ids):
        """The bytes of a few chunks, as id → bytes; what could not be had is not in it."""
        got, ids = {}, set(ids)
        self.fetch(ids, self.places(ids), got.__setitem__)
        return got


# -------------------------------------------------------------------------------------------------
# Snapshots, and choosing one.

class Snapshot:
    def __init__(self, name, identifier, value):
        self.name, self.id, self.ns = name, identifier, value["ns"]
        if not name.startswith("snapshots/" + utc(self.ns, "%Y%m%dT%H%M%SZ-")):
            raise Damage("its name and the time in it disagree")
        self.host = value["host"]
        self.roots = [plain_or_base64(root) for root in value["roots"]]
        self.tags, self.pinned = list(value.get("tags", [])), False
        self.description = value.get("description")
        self.depth = value["manifest"]["depth"]
        self.ids = [an_id(i) for i in value["manifest"]["ids"]]
        self.statistics = value.get("statistics", {})
        self.problems = value.get("problems", {"count": 0, "ids": []})
        self.seen = value.get("seen", [])
        self.forgotten = self.incomplete = False
        if self.ids and not 1 <= self.depth <= DEPTH_LIMIT:
            raise Damage("its manifest is too deep")

    def mark(self, value):
        self.tags = [t for t in self.tags if t not in value.get("remove", [])]
        self.tags += [t for t in value.get("add", []) if t not in self.tags]
        self.pinned = value.get("pin", self.pinned)
        self.description = value.get("description", self.description)

    def line(self):
        counts = [self.statistics.get(k, 0) for k in ("files", "directories", "others", "bytes")]
        words = [self.id[:12], utc(self.ns, "%Y-%m-%dT%H:%M:%SZ"), show(self.host),
                 "%d entries, %s" % (sum(counts[:3]), human(counts[3]))]
        words += ["[" + " ".join(map(show, self.tags)) + "]"] if self.tags else []
        words += ["pinned"] if self.pinned else []
        words += ["%d problems" % self.problems["count"]] if self.problems["count"] else []
        words += ["INCOMPLETE"] if self.incomplete else []
        words += ["forgotten"] if self.forgotten else []
        words += [show(root) for root in self.roots]
        words += ["— " + show(self.description)] if self.description else []
        return "  ".join(words)


def human(count):
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return "%d B" % count if unit == "B" else "%.1f %s" % (count, unit)
        count /= 1000


def read_snapshots(repository, chunks):
    """All sound snapshots in order of time, with marks, forgotten and incomplete ones told
    apart."""
    found = {}
    for name, identifier, value in repository.objects("snapshot", "snapshots"):
        try:
            found[identifier] = Snapshot(name, identifier, value)
        except BROKEN as error:
            repository.report.damaged(name, error)
    order = sorted(found.values(), key=lambda s: (s.ns, s.id))

    def in_time(kind, prefix):
        return sorted(repository.objects(kind, prefix), key=lambda item: (item[2]["ns"], item[0]))

    for _, _, value in in_time("forgotten", "forgotten"):
        for identifier in value.get("snapshots", []) + value.get("restored", []):
            if identifier in found:
                found[identifier].forgotten = identifier in value.get("snapshots", [])
    for _, _, value in in_time("mark", "marks"):
        if value.get("snapshot") in found:
            found[value["snapshot"]].mark(value)
    records = repository.objects("condemned", "condemned")
    condemned = {identifier: value for _, identifier, value in records}
    for value in condemned.values():
        if value.get("state") == "deleting":
            for snapshot in order:
                if snapshot.id not in value.get("snapshots", []):
                    find_gaps(repository, chunks, snapshot, value, condemned)
    return order


def find_gaps(repository, chunks, snapshot, deleting, condemned):
    """Marks a snapshot that came too late for a delete phase and needs what that deleted (section
    11)."""
    def ids(names):
        return {re.search("[0-9a-f]{64}", name).group() for name in names}

    gone = set()
    for record in ids(deleting.get("records", [])) - ids(snapshot.seen):
        gone.update(condemned.get(record, {}).get("bundles", []))
    if gone and snapshot.ids:
        lines = {i: [] for i in snapshot.ids}
        places = chunks.read_index(set(snapshot.ids), lines)
        for i in snapshot.ids:
            needs = [need for need in lines[i] if not need & gone]
            holders = [p for p in places.get(i, []) if p.bundle.id not in gone]
            if not needs or not holders:
                snapshot.incomplete = True


def choose(snapshots, words, host, report):
    """The snapshot that the words mean: an id prefix, latest, latest~N, or a date or time."""
    if re.fullmatch("[0-9a-f]{1,64}", words):
        matching = [s for s in snapshots if s.id.startswith(words)]
        if len(matching) > 1:
            raise Stop(USAGE, "%s stands for %d snapshots; give more digits." % (
                words, len(matching)))
        if matching:
            return matching[0]
        raise Stop(FAILED, "There is no snapshot %s. `list` shows what there is." % words)
    latest, limit = re.fullmatch(r"latest(?:~([0-9]{1,9}))?", words), end_of_moment(words)
    if not latest and limit is None:
        raise Stop(USAGE, "%s is neither a snapshot's id, nor latest, nor a date such as "
                          "2025-11-21 or 2025-11-21T03:00 (local time) or "
                          "2025-11-21T03:00:00Z." % show(words))
    usable = [s for s in snapshots if not s.forgotten and (not host or s.host == host)]
    if limit is not None:
        usable = [s for s in usable if s.ns < limit]
    if not usable:
        raise Stop(FAILED, "There is no such snapshot. `list` shows what there is.")
    hosts = sorted({s.host for s in usable})
    if len(hosts) > 1:
        raise Stop(USAGE, "Several hosts have snapshots here: %s. Say which with --host NAME, or "
                          "give a snapshot's id." % ", ".join(map(show, hosts)))
    whole = [s for s in usable if not s.incomplete]
    if usable[-1].incomplete and whole:
        report.note("passing over %s, which is incomplete; its id still names it" %
                    usable[-1].id[:12])
    usable = whole or usable
    back = int(latest.group(1) or 0) if latest else 0
    if back >= len(usable):
        raise Stop(FAILED, "There are only %d such snapshots." % len(usable))
    return usable[-1 - back]


def end_of_moment(words):
    """The end of the day, minute or second that the words name, in ns since 1970; None if they do
    not."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d)?(Z|[+-]\d\d:\d\d)?)?", words)
    if not match:
        return None
    day, minute, second, zone = match.groups()
    try:
        zone = "+00:00" if zone == "Z" else zone or ""
        moment = datetime.datetime.fromisoformat(
            day + "T" + (minute or "00:00") + (second or ":00") + zone)
    except ValueError:
        return None
    step = {"seconds": 1} if second else {"minutes": 1} if minute else {"days": 1}
    return int((moment + datetime.timedelta(**step)).timestamp()) * 10 ** 9


# -------------------------------------------------------------------------------------------------
# The manifest.

class Entry:
    """One line of a manifest, its fields checked."""

    __slots__ = ("path", "parts", "type", "mode", "uid", "gid", "user", "group", "size", "mtime",
                 "link", "rdev", "target", "flags", "acl", "acl_default", "xattrs", "holes",
                 "holes_list", "chunks", "list", "depth", "unsettled")

    TYPES = ("file", "dir", "symlink", "fifo", "socket", "chardev", "blockdev")

    def __init__(self, line):
        value = parse(line)
        self.path = text(value, "path")
        self.parts = split_path(self.path)
        self.type = value["type"]
        if self.type not in self.TYPES:
            raise ValueError("unknown type %r" % self.type)
        self.mode, self.uid, self.gid = int(value["mode"], 8) & 0o7777, value["uid"], value["gid"]
        self.user, self.group = text(value, "user"), text(value, "group")
        self.size, self.mtime = value.get("size", 0), nanoseconds(value["mtime"])
        self.link = None
        if value.get("links", 1) > 1:
            self.link = (int(value["fs"]), int(value["ino"]), self.type)
        self.rdev, self.target = value.get("rdev"), text(value, "target")
        self.flags = flag_bits(value.get("flags", []))
        self.acl, self.acl_default = (
            acl_bytes(value[f]) if f in value else None for f in ("acl", "acl_default"))
        self.unsettled = value.get("unsettled", False)
        self.xattrs = [(plain_or_base64(n), base64.b64decode(v)) for n, v in value.get("xattrs", [])]
        self.holes = [(int(offset), int(length)) for offset, length in value.get("holes", [])]
        self.holes_list = [an_id(i) for i in value.get("holes_list", [])]
        self.chunks = [an_id(i) for i in value.get("chunks", [])]
        self.list = [an_id(i) for i in value.get("list", [])]
        self.depth = int(value.get("depth", 0))
        if self.list and not 1 <= self.depth <= DEPTH_LIMIT:
            raise ValueError("its list is too deep")
        if not (0 <= self.size < 1 << 63 and 0 <= self.uid < 1 << 32 and 0 <= self.gid < 1 << 32):
            raise ValueError("a number is out of its range")
        if self.type == "symlink" and (not self.target or b"\0" in self.target):
            raise ValueError("a symbolic link has no sound target")
        if self.type in ("chardev", "blockdev"):
            self.rdev = os.makedev(*self.rdev)


def split_path(path):
    """The components of an absolute path. It is data of an adversary: every component is
    checked."""
    if not path.startswith(b"/") or len(path) > PATH_LIMIT:
        raise ValueError("%s is not an absolute path of sensible length" % show(path[:200]))
    parts = tuple(path[1:].split(b"/")) if path != b"/" else ()
    if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
        raise ValueError("the path %s could lead out of the target; it is refused" %
                         show(path[:200]))
    return parts


def read_node(data, identifier, report):
    """The children that a node of the manifest names."""
    for line in data.split(b"\n")[:-1]:
        try:
            value = parse(line)
            path = text(value, "first")
            yield an_id(value["id"]), split_path(path), path
        except BROKEN as error:
            report.damaged("a line of manifest node %s" % identifier.hex(), error)
            with contextlib.suppress(*BROKEN):
                yield an_id(value["id"]), None, None


def read_manifest(snapshot, chunks, inside, report):
    """Yields the entries at and below the path `inside` (its components), in order."""
    def outside(first, following):
        """Whether a child that begins at `first` and ends before `following` has nothing of
        `inside`."""
        if following is not None and following <= inside:
            return True
        return first is not None and first > inside and first[:len(inside)] != inside

    # Children are (id, components of the first path below, that path); top nodes do not tell it.
    children, got = [(i, None, None) for i in snapshot.ids], {}
    for level in range(snapshot.depth, -1, -1):
        got = chunks.collect(child[0] for child in children)
        below = []
        for number, (identifier, _, path) in enumerate(children):
            if identifier not in got:
                end = next((c[2] for c in children[number + 1:number + 2]), None)
                report.affected(path or b"/", "entries from here up to %s are lost (%s %s)" % (
                    show(end or b"the end"), "node" if level else "segment", identifier.hex()))
            elif level:
                below += read_node(got[identifier], identifier, report)
        if level:
            children = [child for child, after in zip(below, below[1:] + [(None, None, None)])
                        if not outside(child[1], after[1])]
    for identifier, _, _ in children:
        for line in got.pop(identifier, b"").split(b"\n")[:-1]:
            try:
                entry = Entry(line)
                if entry.parts[:len(inside)] == inside:
                    yield entry
            except BROKEN as error:
                report.damaged("a line of manifest segment %s" % identifier.hex(), error)


# -------------------------------------------------------------------------------------------------
# The target: everything is reached from its descriptor, one component at a time, following no
# symlink.

class Target:
    DIRECTORIES, FILES = 200, 200
    ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

    def __init__(self, path):
        self.made = not os.path.exists(path)
        os.makedirs(path, mode=0o700, exist_ok=True)
        self.root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if set(os.listdir(self.root)) - {"lost+found"}:  # a fresh file system has that
            raise Stop(USAGE, "%s is not empty. Name a directory that is empty or does not exist "
                              "yet." %
                       show(path))
        self.opened, self.files = collections.OrderedDict(), collections.OrderedDict()

    def directory(self, parts):
        """A descriptor of the directory, to be used at once. Directories on the way are made if
        missing."""
        have = len(parts)
        while have and parts[:have] not in self.opened:
            have -= 1
        current = self.opened[parts[:have]] if have else self.root
        for number in range(have, len(parts)):
            try:
                current = os.open(parts[number], self.ENTER, dir_fd=current)
            except FileNotFoundError:
                os.mkdir(parts[number], 0o755, dir_fd=current)
                os.chmod(parts[number], 0o755, dir_fd=current)
                current = os.open(parts[number], self.ENTER, dir_fd=current)
            self.opened[parts[:number + 1]] = current
            if len(self.opened) > self.DIRECTORIES:
                os.close(self.opened.popitem(last=False)[1])
        return current

    def write(self, parts, data, offset):
        descriptor = self.files.get(parts)
        if descriptor is None:
            descriptor = self.files[parts] = self.open(parts, os.O_WRONLY)
            if len(self.files) > self.FILES:
                os.close(self.files.popitem(last=False)[1])
        while data:
            written = os.pwrite(descriptor, data, offset)
            data, offset = data[written:], offset + written

    def open(self, parts, how):
        if not parts:
            return os.dup(self.root)
        parent = self.directory(parts[:-1])
        return os.open(parts[-1], how | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)

    def close_files(self):
        while self.files:
            os.close(self.files.popitem()[1])


# -------------------------------------------------------------------------------------------------
# Metadata.

FLAGS = {"secrm": 0x1, "undelete": 0x2, "compress": 0x4, "sync": 0x8, "immutable": 0x10,
         "append": 0x20, "nodump": 0x40, "noatime": 0x80, "nocompress": 0x400, "journal": 0x4000,
         "notail": 0x8000, "dirsync": 0x10000, "topdir": 0x20000, "nocow": 0x800000,
         "projinherit": 0x20000000, "casefold": 0x40000000}
# Flags that the file system sets by itself and nobody can (indexed, extents, encrypted, verity, …).
OWN_FLAGS = 0x107C3B00
# These two work only while the file or directory is empty.
EARLY_FLAGS = FLAGS["nocow"] | FLAGS["casefold"]
GET_FLAGS = 0x80006601 | struct.calcsize("l") << 16
SET_FLAGS = 0x40006602 | struct.calcsize("l") << 16


def flag_bits(names):
    bits = 0
    for name in names:
        bits |= FLAGS[name] if name in FLAGS else int(name, 16)
    if bits >> 32:
        raise ValueError("unknown inode flags")
    return bits


def set_flags(descriptor, bits):
    """Sets inode flags; returns those that did not take."""
    buffer = bytearray(8)
    fcntl.ioctl(descriptor, GET_FLAGS, buffer)
    now = struct.unpack_from("=I", buffer)[0]
    wanted = now | bits & ~OWN_FLAGS
    if wanted != now:
        fcntl.ioctl(descriptor, SET_FLAGS, struct.pack("=II", wanted, 0))
        fcntl.ioctl(descriptor, GET_FLAGS, buffer)
        now = struct.unpack_from("=I", buffer)[0]
    return bits & ~OWN_FLAGS & ~now


def acl_bytes(text_form):
    """An ACL as the kernel takes it in system.posix_acl_access and …_default."""
    tags = {("u", False): 1, ("u", True): 2, ("g", False): 4, ("g", True): 8,
            ("m", False): 16, ("o", False): 32}
    packed = struct.pack("<I", 2)
    for item in text_form.split(","):
        who, number, permissions = item.split(":")
        bits = sum(bit for letter, bit in zip("rwx", (4, 2, 1)) if letter in permissions)
        packed += struct.pack("<HHI", tags[who, bool(number)], bits, int(number or 0xFFFFFFFF))
    return packed


class Metadata:
    """Gives restored entries their owner, mode, attributes, times and flags."""

    def __init__(self, target, report, numeric_ids):
        self.target, self.report, self.numeric = target, report, numeric_ids
        self.users, self.groups = {}, {}
        self.inherits = "system.posix_acl_default" in self.names_of(target.root)

    @staticmethod
    def names_of(descriptor):
        try:
            return os.listxattr(descriptor)
        except OSError:
            return []

    def owner(self, entry):
        """uid and gid here: by name where this machine knows the name, else the stored number."""
        def number(cache, name, fallback, lookup):
            if name is None or self.numeric:
                return fallback
            if name not in cache:
                try:
                    cache[name] = lookup(os.fsdecode(name))[2]
                except (KeyError, ValueError):
                    cache[name] = None
            return fallback if cache[name] is None else cache[name]

        return (number(self.users, entry.user, entry.uid, pwd.getpwnam),
                number(self.groups, entry.group, entry.gid, grp.getgrnam))

    def attempt(self, entry, what, action, *arguments, **named):
        try:
            return action(*arguments, **named)
        except (OSError, ValueError, KeyError, OverflowError) as error:
            self.report.left_out(entry.path, "%s could not be set: %s" % (what, reason(error)))

    def apply(self, entry, parts):
        """Everything but flags. The order matters: chown clears setuid and capabilities, so it is
        first;
        times are last."""
        parent = name = descriptor = None
        try:
            if entry.type in ("file", "dir"):
                descriptor = self.target.open(parts, os.O_RDONLY)
                place, by_name = descriptor, {}
                path, follow = descriptor, {}
            else:
                parent, name = self.target.directory(parts[:-1]), parts[-1]
                place, by_name = name, {"dir_fd": parent, "follow_symlinks": False}
                path, follow = b"/proc/self/fd/%d/%s" % (parent, name), {"follow_symlinks": False}
            mode = entry.mode
            if not self.set_owner(entry, place, by_name) and entry.type != "dir":
                mode &= 0o1777  # never setuid for somebody else than its owner was
            for attribute, value in entry.xattrs:
                self.attempt(entry, "attribute " + show(attribute),
                             os.setxattr, path, attribute, value, **follow)
            for attribute, value in (("access", entry.acl), ("default", entry.acl_default)):
                attribute = "system.posix_acl_" + attribute
                if value is not None:
                    self.attempt(entry, "the ACL", os.setxattr, path, attribute, value, **follow)
                elif self.inherits:
                    with contextlib.suppress(OSError):
                        os.removexattr(path, attribute, **follow)
            if entry.type != "symlink":
                by_fd = {"dir_fd": parent} if descriptor is None else {}
                self.attempt(entry, "the mode", os.chmod, place, mode, **by_fd)
            self.attempt(entry, "the time", self.set_time, place, entry.mtime, by_name)
        except OSError as error:
            self.report.left_out(entry.path, "metadata could not be set: %s" % reason(error))
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def set_owner(self, entry, place, by_name):
        uid, gid = self.owner(entry)
        try:
            os.chown(place, uid, gid, **by_name)
            return True
        except (OSError, OverflowError) as error:
            if os.geteuid() == 0:
                self.report.left_out(entry.path, "owner %d:%d could not be set: %s" % (
                    uid, gid, reason(error)))
            else:
                self.report.not_owned += 1
            return False

    @staticmethod
    def set_time(place, mtime, by_name):
        os.utime(place, ns=(time.time_ns(), mtime), **by_name)
        if os.stat(place, **by_name).st_mtime_ns != mtime:
            raise ValueError("this file system cannot keep it exactly")

    def apply_flags(self, entry, parts):
        if not entry.flags:
            return

        def action():
            descriptor = self.target.open(parts, os.O_RDONLY | os.O_NONBLOCK)
            try:
                missing = set_flags(descriptor, entry.flags)
            finally:
                os.close(descriptor)
            if missing:
                raise ValueError("%s did not take" % " ".join(
                    [n for n, bit in FLAGS.items() if bit & missing] or [hex(missing)]))

        self.attempt(entry, "its flags", action)


# -------------------------------------------------------------------------------------------------
# Restoring.

class File:
    """A file under restoration. `regions` are what lies between its holes: (position among the
    data,
    offset in the file, length)."""

    def __init__(self, entry, parts):
        self.entry, self.parts, self.broken, self.regions = entry, parts, None, []
        at = self.total = 0
        for offset, length in entry.holes + [(entry.size, 0)]:
            if offset < at or length < 0 or offset + length > entry.size:
                raise ValueError("its holes are not in order")
            if offset > at:
                self.regions.append((self.total, at, offset - at))
                self.total += offset - at
            at = offset + length

    def pieces(self, at, length):
        """Where data goes that begins at position `at`: (start in it, offset in the file,
        length)."""
        done, number = 0, bisect.bisect_right(self.regions, (at, self.entry.size)) - 1
        while done < length and 0 <= number < len(self.regions):
            position, offset, size = self.regions[number]
            skip = at + done - position
            take = min(length - done, size - skip)
            yield done, offset + skip, take
            done, number = done + take, number + 1


class Restore:
    def __init__(self, chunks, target, report, options, inside):
        self.chunks, self.target, self.report, self.inside = chunks, target, report, inside
        self.metadata = Metadata(target, report, options.numeric_ids)
        self.directories, self.flagged, self.broken = [], [], []
        self.first_of_link, self.further_names = {}, {}
        self.counts = collections.Counter()
        self.shown = time.monotonic()

    def run(self, entries):
        batch, size = [], 0
        for entry in entries:
            batch.append(entry)
            size += len(entry.chunks) + 1000 * len(entry.list)
            if len(batch) >= BATCH_ENTRIES or size >= BATCH_CHUNKS:
                self.batch(batch)
                batch, size = [], 0
        self.batch(batch)
        for entry, why in self.broken:
            for path in [entry.path] + self.further_names.get(entry, []):
                self.report.affected(path, why)
        for entry, parts in self.flagged:
            self.metadata.apply_flags(entry, parts)
        if self.target.made:
            os.chmod(self.target.root, 0o755)  # unless the snapshot says otherwise, just below
        # Deepest first: a directory's time and mode change no more once what it holds is in place.
        for entry, parts in reversed(self.directories):
            self.metadata.apply(entry, parts)
            self.metadata.apply_flags(entry, parts)

    def batch(self, entries):
        """Makes the entries, then brings the content, then the metadata of what is not a
        directory."""
        made = []
        for entry in entries:
            parts = entry.parts[len(self.inside):]
            if not parts and entry.type != "dir":
                parts = entry.parts[-1:]
            try:
                if self.make(entry, parts):
                    made.append((entry, parts))
            except (FileExistsError, NotADirectoryError) as error:
                self.refuse(entry, error)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    self.refuse(entry, error)
                    continue
                stop_if_full(error)
                self.report.left_out(entry.path, reason(error))
        self.contents([item for item in made if item[0].type == "file"])
        for entry, parts in made:
            self.metadata.apply(entry, parts)
            if entry.flags and entry.type == "file":
                self.flagged.append((entry, parts))

    def refuse(self, entry, error):
        self.report.affected(entry.path, "the manifest contradicts itself here; refused (%s)" %
                             reason(error))

    def make(self, entry, parts):
        """Makes one entry, empty. True if content or metadata are to follow in this batch."""
        if entry.type == "dir":
            if parts:
                parent = self.target.directory(parts[:-1])
                try:
                    os.mkdir(parts[-1], 0o700, dir_fd=parent)
                except FileExistsError:  # made on the way to an entry below it
                    there = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False)
                    if not stat.S_ISDIR(there.st_mode):
                        raise
            self.early_flags(entry, parts)
            self.directories.append((entry, parts))
            self.counts["directories"] += 1
            return False
        if entry.link in self.first_of_link and self.make_link(entry, parts):
            return False
        parent, name = self.target.directory(parts[:-1]), parts[-1]
        if entry.type == "file":
            how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, how, 0o600, dir_fd=parent)
            try:
                self.early_flags(entry, parts)
                os.ftruncate(descriptor, entry.size)
            finally:
                os.close(descriptor)
        elif entry.type == "symlink":
            os.symlink(entry.target, name, dir_fd=parent)
        else:
            kind = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "chardev": stat.S_IFCHR,
                    "blockdev": stat.S_IFBLK}[entry.type]
            os.mknod(name, kind | 0o600, entry.rdev or 0, dir_fd=parent)
        self.counts["files" if entry.type == "file" else "others"] += 1
        if entry.link:
            self.first_of_link[entry.link] = (parts, entry)
            self.further_names[entry] = []
        return True

    def make_link(self, entry, parts):
        first, origin = self.first_of_link[entry.link]
        if origin.size != entry.size:
            return False
        source = os.dup(self.target.directory(first[:-1]))
        try:
            parent = self.target.directory(parts[:-1])
            os.link(first[-1], parts[-1], src_dir_fd=source, dst_dir_fd=parent,
                    follow_symlinks=False)
            self.counts["links"] += 1
            self.further_names[origin].append(entry.path)
            return True
        except FileExistsError:
            raise
        except OSError as error:
            self.report.left_out(entry.path, "could not be linked to %s (%s); it becomes a file of "
                                             "its own" % (
                show(origin.path), reason(error)))
            return False
        finally:
            os.close(source)

    def early_flags(self, entry, parts):
        if entry.flags & EARLY_FLAGS:
            with contextlib.suppress(OSError):  # told at the end, when all flags are set
                descriptor = self.target.open(parts, os.O_RDONLY)
                try:
                    set_flags(descriptor, entry.flags & EARLY_FLAGS)
                finally:
                    os.close(descriptor)

    def contents(self, items):
        """Brings the content of all files of a batch, bundle by bundle."""
        self.read_lists([entry for entry, _ in items])
        wanted = {chunk for entry, _ in items for chunk in entry.chunks or ()}
        places = self.chunks.places(wanted)
        files, uses = [], {}
        for entry, parts in items:
            try:
                if entry.chunks is None or entry.holes is None:
                    raise ValueError("the list of its chunks or holes is lost")
                file = File(entry, parts)
                for chunk, at in self.positions(file, places):
                    uses.setdefault(chunk, []).append((file, at))
                files.append(file)
            except ValueError as error:
                self.broken.append((entry, "%s; the file is left without content" % error))

        def deliver(chunk, data):
            for file, at in uses.pop(chunk):
                for start, offset, length in file.pieces(at, len(data)):
                    piece = memoryview(data)[start:start + length]
                    try:
                        self.target.write(file.parts, piece, offset)
                        self.counts["bytes"] += length
                    except OSError as error:
                        stop_if_full(error)
                        file.broken = file.broken or "cannot be written: " + reason(error)
            self.progress()

        for chunk in self.chunks.fetch(set(uses), places, deliver):
            for file, at in uses[chunk]:
                file.broken = file.broken or "chunk %s is lost; zeros stand in its place" % (
                    chunk.hex())
        self.target.close_files()
        for file in files:
            if file.broken:
                self.broken.append((file.entry, file.broken))
            elif file.entry.unsettled:
                self.report.note("note: %s changed while it was backed up; its content may be a "
                                 "mixture" %
                                 show(file.entry.path))

    def read_lists(self, entries):
        """Puts together the chunk lists and hole lists that are stored as chunks themselves."""
        level = {id(e): e for e in entries if e.list}
        while level:
            got = self.chunks.collect({i for e in level.values() for i in e.list})
            for key, entry in list(level.items()):
                try:
                    lines = b"".join(got[i] for i in entry.list).splitlines()
                    entry.list = [an_id(json.loads(line)) for line in lines]
                    entry.depth -= 1
                    if entry.depth == 0:
                        entry.chunks = entry.list
                        del level[key]
                except BROKEN:
                    entry.chunks = None
                    del level[key]
        holed = [e for e in entries if e.holes_list]
        got = self.chunks.collect({i for e in holed for i in e.holes_list}) if holed else {}
        for entry in holed:
            try:
                lines = b"".join(got[i] for i in entry.holes_list).splitlines()
                entry.holes = [(int(at), int(length)) for at, length in map(json.loads, lines)]
            except BROKEN:
                entry.holes = None

    @staticmethod
    def positions(file, places):
        """Where each chunk begins among the data. A chunk that the index does not know has no
        length;
        what comes after such a one is placed from the end of the file."""
        chunks = file.entry.chunks
        lengths = [places[c][0].length if c in places else None for c in chunks]
        found, at = [], 0
        for number, length in enumerate(lengths):
            found.append((chunks[number], at))
            if length is None:
                break
            at += length
        else:
            if at != file.total:
                raise ValueError("its chunks make %d bytes where %d are due" % (at, file.total))
            return found
        at = file.total
        for number in range(len(chunks) - 1, len(found) - 1, -1):
            if lengths[number] is None:
                break
            at -= lengths[number]
            found.append((chunks[number], max(at, 0)))
        return found

    def progress(self):
        if sys.stderr.isatty() and time.monotonic() - self.shown > 1:
            self.shown = time.monotonic()
            done = human(self.counts["bytes"])
            print("\r%s restored … " % done, end="", file=sys.stderr, flush=True)


def stop_if_full(error):
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        raise Stop(FAILED, "The target cannot take more: %s. What is there so far is not complete; "
                           "make room, empty the target and start again." % reason(error))


# -------------------------------------------------------------------------------------------------
# The commands.

def split_words(words):
    """SNAPSHOT[:PATH] → the words for the snapshot, and the components of the path."""
    snapshot, colon, path = words.partition(":/")
    try:
        return snapshot, split_path(os.fsencode(("/" + path).rstrip("/") or "/"))
    except ValueError as error:
        raise Stop(USAGE, "In %s: %s." % (show(words), error))


def command_list(repository, options):
    chunks = Chunks(repository, False)
    snapshots = read_snapshots(repository, chunks)
    shown = [s for s in snapshots
             if (options.all or not s.forgotten) and options.host in (None, s.host)]
    for snapshot in shown:
        print(snapshot.line())
    if not repository.sealed:
        repository.report.note("note: this repository is not encrypted, so nothing proves who "
                               "wrote it")
    if not shown:
        repository.report.note("There is no snapshot to show.")


def select(repository, options):
    words, inside = split_words(options.arguments[0])
    chunks = Chunks(repository, options.without_index)
    snapshot = choose(read_snapshots(repository, chunks), words, options.host, repository.report)
    return snapshot, inside, chunks, read_manifest(snapshot, chunks, inside, repository.report)


def command_ls(repository, options):
    letters = dict(zip(Entry.TYPES, "-dlpscb"))
    _, _, _, entries = select(repository, options)
    for entry in entries:
        print("%s%04o %s:%s %12d %s %s%s" % (
            letters[entry.type], entry.mode, show(entry.user or str(entry.uid)),
            show(entry.group or str(entry.gid)), entry.size, utc(entry.mtime, "%Y-%m-%dT%H:%M:%SZ"),
            show(entry.path), " -> " + show(entry.target) if entry.target else ""))


def command_restore(repository, options):
    report, place = repository.report, options.arguments[1]
    snapshot, inside, chunks, entries = select(repository, options)
    report.note("snapshot %s of %s, %s" % (snapshot.id[:12], show(snapshot.host),
                                           utc(snapshot.ns, "%Y-%m-%dT%H:%M:%SZ")))
    if snapshot.incomplete:
        report.note("note: it is incomplete; some of its bundles were deleted")
    target = Target(place)
    restore = Restore(chunks, target, report, options, inside)
    restore.run(entries)
    counts = restore.counts
    if inside and not counts and not report.damage:
        raise Stop(FAILED, "The snapshot has nothing at /%s. `ls %s` shows what it has." % (
            show(b"/".join(inside)), snapshot.id[:12]))
    tell_problems(snapshot, chunks, inside, report)
    if report.not_owned:
        report.note("note: %d entries belong to you instead of their owners, and none of these is "
                    "setuid or setgid, since only root may do that" % report.not_owned)
    report.note("restored %d files, %d further names of them, %d directories, %d others, %s into "
                "%s" % (
        counts["files"], counts["links"], counts["directories"], counts["others"],
        human(counts["bytes"]), show(place)))


def tell_problems(snapshot, chunks, inside, report):
    """Names what was not backed up in the first place. That is no fault of this restore."""
    try:
        ids = [an_id(i) for i in snapshot.problems["ids"]]
        got = chunks.collect(ids) if ids else {}
        for line in b"".join(got[i] for i in ids).splitlines():
            value = parse(line)
            path = text(value, "path")
            if tuple(path.split(b"/")[1:])[:len(inside)] == inside:
                report.note("note: the backup had a problem: %s: %s: %s" % (
                    show(path), show(value["kind"]), show(value["message"])))
    except BROKEN:
        report.damaged("the list of problems of snapshot %s" % snapshot.id, "it is lost")


def command_check(repository, options):
    """Compares every object with its name. Needs no key."""
    count, age = 0, ".age" if repository.sealed else ""
    places = [("keys", ".age"), ("keys", ".json"), ("index", ".jsonl.zst" + age)]
    places += [(p, ".json.zst" + age) for p in (
        "snapshots", "runs", "condemned", "forgotten", "verified", "marks")]
    if os.path.isdir(repository.path("bundles")):
        places += [("bundles/" + p, ".tar.zst" + age)
                   for p in sorted(os.listdir(repository.path("bundles")))]
    for prefix, ending in places:
        for name, identifier in repository.names(prefix, ending):
            count += 1
            try:
                repository.check_digest(name, identifier)
            except Damage as error:
                repository.report.damaged(name, error)
    print("%d objects checked, %d damaged" % (count, repository.report.damage))


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.print_usage(sys.stderr)
        raise Stop(USAGE, message)


def main(words):
    parser = Parser(prog="recover.py", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("list", "ls", "restore", "check"))
    parser.add_argument("arguments", nargs="*", metavar="SNAPSHOT[:PATH] TARGET")
    add = parser.add_argument
    add("--identity", action="append", metavar="FILE", help="the owner's age identity file")
    add("--passphrase-file", metavar="FILE", help="a file whose first line is the passphrase")
    add("--repository", metavar="DIR", help="the copy of the repository, if it is not here")
    add("--host", help="only snapshots of this host")
    add("--all", action="store_true", help="list: forgotten snapshots as well")
    add("--numeric-ids", action="store_true", help="restore: owners by number, even where the name "
                                                   "is known")
    add("--without-index", action="store_true", help="read every bundle instead of the index; for "
                                                     "a lost index")
    add("--accept-unproven", action="store_true", help="go on where the sender is not proven")
    options = parser.parse_intermixed_args(words)
    due = {"list": 0, "ls": 1, "restore": 2, "check": 0}[options.command]
    if len(options.arguments) != due:
        parser.error("%s takes %d arguments" % (options.command, due))

    os.umask(0o077)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")
    directory = options.repository
    if directory is None:
        directory = next((d for d in (os.getcwd(), os.path.dirname(os.path.abspath(__file__)))
                          if os.path.exists(os.path.join(d, "config.json"))), os.getcwd())
    report = Report()
    repository = Repository(directory, report)
    if options.command != "check":
        require_zstd()
        repository.unlock(options)
    {"list": command_list, "ls": command_ls, "restore": command_restore, "check": command_check}[
        options.command](repository, options)
    if report.damage:
        report.note("Damage was found (%d). Fetch the named objects again, from another copy if "
                    "there is one." %
                    report.damage)
    return report.code()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Stop as stop:
        print("recover.py: %s" % stop, file=sys.stderr)
        sys.exit(stop.code)
    except OSError as problem:
        name = ": " + show(os.fsencode(problem.filename)) if problem.filename else ""
        print("recover.py: %s%s" % (reason(problem), name), file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        print("recover.py: interrupted; what is in the target is not complete", file=sys.stderr)
        sys.exit(130)

"""###
    static let page: StaticString = ###"""
# How to get everything back

This directory is a **batchsync repository**: backups of one or more machines. You need neither
batchsync nor the machine that wrote it. Copy the whole directory to a disk first, if it lies on a
server or in a bucket (`rclone copy`, `aws s3 sync`, `sftp -r`), and work in the copy.

## What you need

- A Linux machine with Python 3.9 or newer, and the commands `age` and `zstd`
  (Debian: `apt install python3 age zstd`). To get owners and devices back as they were, be root.
- **The key**: either the passphrase of the repository, or the owner's age identity, a file with a line
  `AGE-SECRET-KEY-1…`. Without one of them nobody can read the content. (Where `config.json` says
  `"encryption":"none"` no key is needed, nor `age`.)

## The two commands

    python3 recover.py list                       --passphrase-file FILE
    python3 recover.py restore SNAPSHOT TARGET    --passphrase-file FILE

`FILE` holds the passphrase in its first line; without the option you are asked for it. With the owner's
identity say `--identity FILE` instead. `SNAPSHOT` is the beginning of an id that `list` shows, or
`latest`, or a date such as `2025-11-21` or `2025-11-21T03:00` (the newest at or before its end).
`TARGET` is a directory that is empty or does not exist.

- `restore SNAPSHOT TARGET` makes every path again below the target: `TARGET/srv/www/…`
- `restore SNAPSHOT:/srv/www TARGET` puts what is in `/srv/www` into the target itself.
- `ls SNAPSHOT[:/path]` lists files; `check` compares every object with its name, and needs no key.
- `--without-index` reads every bundle instead of `index/`, should that be lost.

Exit code 0: done. 3: done, but what was named could not be set. 4: damage was found; what is affected was
named, and the rest is there. 12: wrong passphrase or key. 1: failed. 64: wrong use.

## By hand, without recover.py

Open the owner's key with the passphrase (age asks for it). From here on, `identity` is that file; keep it
on a disk that you will wipe. In a repository without encryption, say `cat` for `age -d -i identity`.

    age -d keys/owner-*.age > identity

**One bundle.** A bundle is a tar, compressed with zstd, sealed with age. Small files come out under their
own paths, in the directory where you are:

    age -d -i identity bundles/HH/ID.tar.zst.age | zstd -dc | tar -xv

**Are the bytes right?** Every name carries the SHA-256 of its object. This prints what is damaged:

    find bundles index snapshots keys -type f | while read -r f; do
        n=${f##*/}; n=${n##*-}; echo "${n%%.*}  $f"; done | sha256sum -c --quiet

**One file.** All else is lines of JSON, compressed with zstd, sealed with age; the first line of each object
says what it is. A *snapshot* names the top of its manifest:

    age -d -i identity snapshots/….json.zst.age | zstd -dc | tail -n +2 | jq .manifest

The *index* says in which bundle each chunk lies. Chunks are named by the SHA-256 of their bytes:

    for i in index/*; do age -d -i identity "$i" | zstd -dc | tail -n +2; done |
      jq -r 'if .kind then "b \(.kind) \(.bundle)" else .chunks[]?|"c \(.[0])" end' |
      awk '$1=="b" {k=$2; b=$3} $1=="c" {print $2, k, b}' > where     # chunk, kind, bundle

Unpack the bundles of kind `manifest` into a directory of their own (`grep manifest where`). They hold
`.batchsync/node/ID`, whose lines name segments (or, where `depth` is above 1, more nodes) and the first path
in each, and `.batchsync/segment/ID`, whose lines are the files:

    jq -c 'select(.path=="/srv/www/index.html")' .batchsync/segment/*

That shows mode, owner, time, and the file's `chunks` in order. (A `list` instead of `chunks` names nodes, whose
lines are the chunks; as many levels as `depth` says. `holes` are stretches of zeros, as `[offset, length]`, that are
not among the chunks. A name that is not UTF-8 stands under `path_b64`, in base64.) Look the chunks up in `where`,
unpack their bundles into another directory, and find each by what it hashes to, for a chunk may lie under the path
of another file with the same content:

    find . -type f -exec sha256sum {} + | grep CHUNK

A large file is its chunks joined: `cat .batchsync/chunk/ID1 .batchsync/chunk/ID2 … > file`.

The full description of the format is `docs/format.md` in the source of batchsync.

"""###
}
