#!/usr/bin/env python3
"""Holds recover.py to docs/format.md, with repositories that make_repository.py writes.

    python3 test_recover.py [-v]

Needs age, age-keygen, zstd, and root for owners, devices and trusted attributes (else skipped).
"""

import glob
import hashlib
import os
import random
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, HERE)
import make_repository as make  # noqa: E402

RECOVER = os.path.join(HERE, "../../../Sources/SnapshotRepository/Recovery/recover.py")
DAY = 86400 * 10**9
START = 1763600000 * 10**9 + 123456789  # 2025-11-20T00:53:20Z


def plant(tree, seed=1):
    """A small tree with one of everything that an ordinary user can make."""
    chance = random.Random(seed)
    for directory in ("a/b", "empty", "many", "sp ace", "nl\nname"):
        os.makedirs(os.path.join(tree, directory))

    def write(name, data):
        with open(os.path.join(os.fsencode(tree), os.fsencode(name)), "wb") as file:
            file.write(data)

    write("a/hello", b"hello")
    write("a/zero", b"")
    large = chance.randbytes(120000)
    write("a/big", large)
    write("a/same", large)
    write(b"nl\nname/\xff\xfe", b"not UTF-8")
    for number in range(120):
        write("many/f%03d" % number, chance.randbytes(200 + number * 5))
    os.link(os.path.join(tree, "a/hello"), os.path.join(tree, "a/b/linked"))
    os.symlink("../hello", os.path.join(tree, "a/b/symlink"))
    os.symlink(b"/\xfe", os.path.join(os.fsencode(tree), b"dangling"))
    os.mkfifo(os.path.join(tree, "fifo"))
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.join(tree, "socket"))
    server.close()
    with open(os.path.join(tree, "sparse"), "wb") as file:
        for number in range(60):
            file.seek(number * 32768)
            file.write(chance.randbytes(4096))
        file.truncate(3 << 20)
    with open(os.path.join(tree, "hole"), "wb") as file:
        file.truncate(1 << 20)
    with open(os.path.join(tree, "holes"), "wb") as file:
        file.truncate(1 << 20)
        os.pwrite(file.fileno(), b"x" * 4096, 65536)
    os.chmod(os.path.join(tree, "a/hello"), 0o640)
    os.chmod(os.path.join(tree, "empty"), 0o1500)
    for name, moment in (
        ("a/zero", -148000000 * 10**9 + 1),
        ("a/b", 5),
        ("a", 10**18 + 7),
        ("empty", 77),
    ):
        os.utime(os.path.join(tree, name), ns=(0, moment))


def describe(root):
    """Everything of a tree that a restore has to bring back, by path."""
    root, found, links = os.fsencode(root).rstrip(b"/"), {}, {}
    paths = [root] + [
        os.path.join(d, n) for d, names, files in os.walk(root) for n in names + files
    ]
    for path in sorted(paths):
        at = os.lstat(path)
        value = [
            at.st_mode,
            at.st_uid,
            at.st_gid,
            at.st_mtime_ns,
            at.st_rdev,
            links.setdefault((at.st_dev, at.st_ino), path[len(root) :]),
        ]
        value += sorted(
            (n, os.getxattr(path, n, follow_symlinks=False))
            for n in os.listxattr(path, follow_symlinks=False)
        )
        if stat.S_ISLNK(at.st_mode):
            value.append(os.readlink(path))
        if stat.S_ISREG(at.st_mode):
            with open(path, "rb") as file:
                value.append(
                    (
                        at.st_size,
                        hashlib.sha256(file.read()).hexdigest(),
                        at.st_blocks < at.st_size // 512,
                    )
                )
        if stat.S_ISREG(at.st_mode) or stat.S_ISDIR(at.st_mode):
            value.append(make.inode_flags(path))
        found[path[len(root) :]] = value
    return found


def flip(path, at):
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


class Recovery(unittest.TestCase):
    maxDiff = 2000

    def setUp(self):
        self.place = tempfile.mkdtemp(prefix="recover-test.")
        self.addCleanup(subprocess.run, ["rm", "-rf", self.place], check=False)
        self.tree, self.repository, self.out = (
            os.path.join(self.place, n) for n in ("tree", "repository", "out")
        )
        os.mkdir(self.tree)
        self.owner = os.path.join(self.place, "owner")

    def writer(self, **options):
        writer = make.Writer(self.repository, small=options.pop("small", True), **options)
        if writer.owner_keys:
            with open(self.owner, "wb") as file:
                file.write(writer.owner_keys[-1][0])
        return writer

    def recover(self, *words, expect=0, key=True, environment=None, before=()):
        if key and os.path.exists(self.owner):
            words += ("--identity", self.owner)
        ran = subprocess.run(
            list(before) + [sys.executable, RECOVER, *words],
            cwd=self.repository,
            text=True,
            capture_output=True,
            check=False,
            errors="surrogateescape",
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        self.assertNotIn("Traceback", ran.stderr)
        self.assertIn(
            ran.returncode, (0, 4) if expect is None else (expect,), ran.stdout + ran.stderr
        )
        return ran.stdout + ran.stderr

    def restored(self, *words, below="srv/data", **more):
        said = self.recover("restore", *(words or ("latest",)), self.out, **more)
        return describe(os.path.join(self.out, below)), said

    def bundles(self, writer, kind):
        """Paths of the bundles of a kind, told apart by what make_repository gave them."""
        return [
            path
            for path in glob.glob(self.repository + "/bundles/*/*")
            if kind in writer.kinds[os.path.basename(path)[:64]]
        ]

    # -- what is whole comes back whole

    def test_a_tree_comes_back_as_it_was(self):
        plant(self.tree)
        if os.geteuid() == 0:
            os.mknod(self.tree + "/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            os.mknod(self.tree + "/loop", stat.S_IFBLK | 0o660, os.makedev(7, 5))
            os.chown(self.tree + "/a/big", 1234, 4321)
            os.chmod(self.tree + "/a/big", 0o6755)
            os.chown(self.tree + "/a/b/symlink", 55, 66, follow_symlinks=False)
            os.setxattr(
                self.tree + "/a/b/symlink", "trusted.link", b"\0\xff", follow_symlinks=False
            )
            os.setxattr(
                self.tree + "/a/same",
                "security.capability",
                bytes.fromhex("0100000200040000000000000000000000000000"),
            )
            subprocess.run(["chattr", "+dA", self.tree + "/a/hello"], check=True)
        os.setxattr(self.tree + "/a/zero", "user.some", b"thing")
        subprocess.run(["setfacl", "-m", "u:1000:rwx,g:50:r", self.tree + "/a/hello"], check=True)
        subprocess.run(["setfacl", "-d", "-m", "u:1001:rx", self.tree + "/a/b"], check=True)
        os.utime(self.tree + "/a/b", ns=(0, 5))
        self.writer().snapshot(self.tree)
        got, _ = self.restored()
        self.assertEqual(got, describe(self.tree))

    def test_inode_flags_that_forbid_changes_are_set_last(self):
        os.makedirs(self.tree + "/d")
        for name in ("d/f", "d/g"):
            open(self.tree + "/" + name, "w").close()
        os.link(self.tree + "/d/f", self.tree + "/d/z")
        paths = [self.tree + "/d/f", self.tree + "/d"]
        if subprocess.run(["chattr", "+i", *paths], capture_output=True, check=False).returncode:
            self.skipTest("this user or file system cannot set the immutable flag")
        try:
            self.writer().snapshot(self.tree)
            got, _ = self.restored()
            self.assertEqual(got, describe(self.tree))
        finally:
            subprocess.run(
                ["chattr", "-R", "-i", self.tree, self.out], capture_output=True, check=False
            )

    def test_a_repository_without_encryption_needs_no_age(self):
        plant(self.tree)
        self.writer(plain=True).snapshot(self.tree)
        got, _ = self.restored(environment={"PATH": self.commands("zstd")})
        self.assertEqual(got, describe(self.tree))

    def test_sizes_of_an_ordinary_repository(self):
        chance = random.Random(3)
        for number in range(12):
            with open("%s/f%d" % (self.tree, number), "wb") as file:
                file.write(chance.randbytes(900000))
        self.writer(small=False).snapshot(self.tree)
        got, _ = self.restored()
        self.assertEqual(got, describe(self.tree))

    def test_without_the_age_command_bundles_open_too(self):
        plant(self.tree)
        self.writer().snapshot(self.tree)
        got, _ = self.restored(environment={"PATH": self.commands("zstd")})
        self.assertEqual(got, describe(self.tree))

    def commands(self, *names):
        place = os.path.join(self.place, "commands")
        os.mkdir(place)
        for name in names:
            os.symlink(shutil.which(name), os.path.join(place, name))
        return place

    def test_the_passphrase_opens_the_repository(self):
        plant(self.tree)
        self.writer(passphrase="correct horse").snapshot(self.tree)
        for text, expect in (("correct horse\n", 0), ("wrong horse\n", 12)):
            with open(self.place + "/passphrase", "w") as file:
                file.write(text)
            self.recover(
                "--passphrase-file", self.place + "/passphrase", "list", expect=expect, key=False
            )
        self.recover("list", key=False, expect=64)

    def test_another_owner_is_refused(self):
        self.writer().snapshot(self.tree)
        with open(self.owner, "wb") as file:
            file.write(make.new_identity()[0])
        self.recover("list", expect=12)

    def test_each_of_two_owners_opens_it(self):
        plant(self.tree)
        writer = self.writer(owners=2)
        writer.snapshot(self.tree)
        for key in writer.owner_keys:
            with open(self.owner, "wb") as file:
                file.write(key[0])
            self.assertIn("alpha", self.recover("list"))

    # -- choosing

    def test_snapshots_are_found_by_id_date_and_latest(self):
        writer, ids = self.writer(), []
        for number in range(3):
            with open(self.tree + "/file", "w") as file:
                file.write("version %d" % number)
            ids.append(writer.snapshot(self.tree, START + number * DAY)[1])
        local = time.strftime("%Y-%m-%d", time.localtime(START // 10**9 + 86400))
        for words, number in (
            (ids[0][:10], 0),
            ("latest", 2),
            ("latest~2", 0),
            (local, 1),
            ("2025-11-21T00:53:20Z", 1),
            ("2025-11-21T00:53:19Z", 0),
            ("2030-01-01", 2),
        ):
            got, _ = self.restored(words + ":/srv/data/file", below="")
            with open(self.out + "/file") as file:
                self.assertEqual(file.read(), "version %d" % number, words)
            self.assertEqual(set(got), {b"", b"/file"})
            shutil.rmtree(self.out)
        for words, expect in (
            ("2020-01-01", 1),
            ("ffffffff00", 1),
            ("yesterday", 64),
            ("latest~3", 1),
            ("latest:/srv/data/none", 1),
            ("latest:/srv/../x", 64),
        ):
            self.recover("restore", words, self.out, expect=expect)
            shutil.rmtree(self.out, ignore_errors=True)

    def test_a_directory_is_put_into_the_target_itself(self):
        plant(self.tree)
        self.writer().snapshot(self.tree)
        got, _ = self.restored("latest:/srv/data/many/", below="")
        self.assertEqual(got, describe(self.tree + "/many"))
        self.recover("restore", "latest", self.out, expect=64)

    def test_latest_of_several_hosts_must_be_chosen(self):
        writer = self.writer()
        writer.snapshot(self.tree, START)
        writer.snapshot(self.tree, START + DAY, host="beta")
        self.assertIn("alpha, beta", self.recover("ls", "latest", expect=64))
        self.recover("ls", "latest", "--host", "alpha")

    def test_forgotten_marked_and_restored_snapshots(self):
        writer = self.writer()
        first, second = (
            writer.snapshot(self.tree, START + n * DAY, tags=["one"])[1] for n in (0, 1)
        )

        def say(kind, number, **fields):
            value = {"time": make.time_text(START + number * DAY), "host": "alpha", **fields}
            writer.record(kind, make.dense(value) + b"\n", START + number * DAY)

        say("forgotten", 2, snapshots=[first, second])
        say("forgotten", 3, restored=[second])
        say("mark", 4, snapshot=second, add=["two"], remove=["one"], pin=True)
        said = self.recover("list")
        self.assertNotIn(first[:12], said)
        self.assertIn("[two]  pinned", said)
        self.assertIn(first[:12], self.recover("list", "--all"))

    def test_a_snapshot_that_lost_a_race_with_prune_is_incomplete(self):
        plant(self.tree)
        writer = self.writer()
        good = writer.snapshot(self.tree, START)[1]
        late = writer.snapshot(self.tree, START + DAY)[1]
        moment = START + 2 * DAY
        used = writer.where[hashlib.sha256(b"hello").hexdigest()]
        common = {"time": make.time_text(moment), "host": "alpha"}
        record = writer.record(
            "condemned",
            make.dense({**common, "state": "condemned", "bundles": [used], "index": []}) + b"\n",
            moment,
        )[0]
        writer.record(
            "condemned",
            make.dense({**common, "state": "deleting", "records": [record], "snapshots": [good]})
            + b"\n",
            moment,
        )
        said = self.recover("list").splitlines()
        self.assertEqual(["INCOMPLETE" in line for line in said], [False, True])
        self.assertIn("passing over " + late[:12], self.recover("restore", "latest", self.out))

    # -- damage

    def damaged_content(self, without):
        plant(self.tree)
        writer = self.writer()
        writer.snapshot(self.tree)
        paths = self.bundles(writer, "content")
        victim = max(paths, key=os.path.getsize)
        self.assertGreater(len(paths), 1)
        without(victim)
        got, said = self.restored(expect=4)
        self.assertIn(os.path.basename(victim), said)
        expected = describe(self.tree)
        self.assertEqual(set(got), set(expected))
        wrong = {path for path in got if got[path] != expected[path]}
        for path in wrong:
            self.assertIn(("affected: /srv/data" + path.decode()), said)
        return wrong, len(expected)

    def test_a_flipped_byte_costs_only_what_it_touches(self):
        wrong, _ = self.damaged_content(lambda path: flip(path, os.path.getsize(path) - 5000))
        self.assertTrue(0 < len(wrong) < 60, wrong)

    def test_a_missing_bundle_costs_only_its_files(self):
        wrong, every = self.damaged_content(os.remove)
        self.assertTrue(0 < len(wrong) < every - 20, wrong)

    def test_a_truncated_bundle_is_named(self):
        wrong, _ = self.damaged_content(lambda path: os.truncate(path, os.path.getsize(path) - 100))
        self.assertTrue(wrong)

    def test_a_second_copy_of_a_chunk_stands_in(self):
        plant(self.tree)
        writer = self.writer()
        first = writer.snapshot(self.tree)[1]
        before = set(self.bundles(writer, ""))
        writer.where.clear()
        writer.snapshot(self.tree)
        codes = set()
        for damaged in (before, set(self.bundles(writer, "")) - before):
            for path in damaged:
                flip(path, os.path.getsize(path) - 300)
            got, said = self.restored(first, expect=None)
            self.assertNotIn("affected", said)
            self.assertEqual(got, describe(self.tree))
            codes.add("damaged: bundles/" in said)
            shutil.rmtree(self.out)
            for path in damaged:
                flip(path, os.path.getsize(path) - 300)
        self.assertIn(True, codes)

    def test_damage_in_the_manifest_is_named(self):
        plant(self.tree)
        writer = self.writer()
        writer.snapshot(self.tree)
        for path in self.bundles(writer, "manifest"):
            flip(path, 2000)
        self.assertIn("affected: /", self.restored(expect=4, below="")[1])

    def test_a_lost_index_is_made_good_by_reading_bundles(self):
        plant(self.tree)
        self.writer().snapshot(self.tree)
        flip(glob.glob(self.repository + "/index/*")[0], 300)
        self.assertIn("damaged: index/", self.recover("restore", "latest", self.out, expect=4))
        shutil.rmtree(self.out)
        got, _ = self.restored("latest", "--without-index")
        self.assertEqual(got, describe(self.tree))

    def test_check_needs_no_key(self):
        plant(self.tree)
        writer = self.writer()
        writer.snapshot(self.tree)
        self.assertIn(" 0 damaged", self.recover("check", key=False))
        flip(self.bundles(writer, "content")[0], 9)
        self.assertIn(" 1 damaged", self.recover("check", key=False, expect=4))

    # -- forgery

    def test_forged_snapshots_are_not_listed(self):
        writer = self.writer()
        honest = writer.snapshot(self.tree, START)[1]
        payload = (
            make.dense(
                {
                    "time": make.time_text(START),
                    "host": "alpha",
                    "roots": [],
                    "program": "",
                    "options": {},
                    "file_systems": [],
                    "manifest": {"depth": 1, "ids": []},
                    "seen": [],
                }
            )
            + b"\n"
        )
        for options in ({"secret": bytes(32)}, {"repository": "00" * 32}):
            writer.record("snapshot", payload, START, **options)
        writer.snapshot(self.tree, START, named=START + DAY)
        writer.store("snapshots/20251120T005320Z-%s.json.zst.age" % ("00" * 32), b"junk")
        writer.store("snapshots/README", b"a name of no meaning")
        listed = [
            line for line in self.recover("list", expect=4).splitlines() if "  alpha  " in line
        ]
        self.assertEqual([line[:12] for line in listed], [honest[:12]])

    def test_a_record_moved_to_another_kind_is_refused(self):
        writer = self.writer()
        name, identifier = writer.snapshot(self.tree, START)
        shutil.copytree(self.repository + "/snapshots", self.repository + "/forgotten")
        self.assertIn("damaged: forgotten/", self.recover("list", expect=4))

    def test_a_record_that_unfolds_beyond_its_limit_is_refused(self):
        writer = self.writer()
        writer.snapshot(self.tree, START)
        for size in (70 << 20, 1 << 40):
            bomb = bytearray(make.compress(bytes(70 << 20)))
            if size > 70 << 20:  # a frame header that lies
                bomb[4:9] = bytes([bomb[4] & 0x1F | 0xC0, 0x50]) + size.to_bytes(8, "little")[:3]
            stored = writer.sealed(bytes(bomb), writer.owners + [writer.host[1]])
            writer.store("snapshots/20251120T005320Z-%s.json.zst.age" % make.sha256(stored), stored)
        self.assertEqual(self.recover("list", expect=4).count("damaged: snapshots/"), 2)

    def test_recipients_without_proof_are_not_believed(self):
        for proven in (False, True):
            writer = self.writer(proven=False)
            writer.snapshot(self.tree)
            if proven:  # a proof that is there, but false
                os.remove(glob.glob(self.repository + "/keys/recipients*")[0])
                key = writer.owner_keys[0]
                writer.owner_keys[0] = (key[0], key[1], bytes(32))
                writer.put_recipients(1)
                self.recover("list", "--accept-unproven", expect=12)
            else:
                self.assertIn("sender not proven", self.recover("list", expect=1))
                self.assertIn("alpha", self.recover("list", "--accept-unproven"))
                shutil.rmtree(self.repository)

    def test_a_higher_set_without_proof_changes_nothing(self):
        writer = self.writer()
        writer.snapshot(self.tree)
        writer.host = make.new_identity()
        writer.put_recipients(2, proven=False)
        self.assertIn("alpha", self.recover("list"))

    def test_an_exchanged_config_is_noticed(self):
        writer = self.writer()
        writer.snapshot(self.tree)
        with open(self.repository + "/config.json", "ab") as file:
            file.write(b" \n")
        self.recover("list", expect=12)

    def test_malformed_key_files_are_named_and_passed_over(self):
        writer = self.writer()
        writer.snapshot(self.tree)
        first = make.dense(
            {
                "batchsync": 1,
                "kind": "recipients",
                "number": 2,
                "repository": writer.id.hex(),
                "config": make.sha256(writer.config),
                "owners": None,
                "host": 7,
            }
        )
        for data in (
            first + b"\n{}\n",
            b"{}\n[]\n",
            b"\xff\n\n",
            b"[" * 100000 + b"\n\n",
            b"",
            b"2\n2\n",
        ):
            writer.store("keys/recipients-2-%s.json" % make.sha256(data), data)
        for data in (b"", b"age-encryption.org/v1\n-> scrypt x 99\n\n--- \n", os.urandom(500)):
            writer.store("keys/host-%s.age" % make.sha256(data), data)
        said = self.recover("list", expect=4)
        self.assertEqual(said.count("damaged: keys/recipients-2-"), 6)
        self.assertIn("  alpha  ", said)

    def test_a_newer_format_is_refused(self):
        self.writer(plain=True)
        with open(self.repository + "/config.json", "r+") as file:
            config = file.read().replace('"batchsync":1', '"batchsync":2')
            file.seek(0)
            file.write(config)
        self.assertIn("newer release", self.recover("list", expect=1))

    # -- manifests that no honest writer makes

    def hostile(self, *lines, expect=4):
        """Restores a manifest with more lines; returns (tree, what was said)."""
        plant(self.tree)
        common = {
            "mode": "644",
            "uid": os.getuid(),
            "gid": os.getgid(),
            "mtime": "5.000000000",
            "ctime": "5.000000000",
            "fs": 0,
            "ino": 1,
        }
        chunk = make.sha256(b"hello")

        def change(entries):
            more = []
            for line in lines:
                line = {"type": "file", "size": 5, "chunks": [chunk], **common, **line}
                if line["type"] != "file":
                    del line["size"], line["chunks"]
                more.append((str(line["path"]).encode(), line, [chunk]))
            return entries + more

        self.writer().snapshot(self.tree, change=change)
        before = set(os.listdir(self.place))
        got, said = self.restored(expect=expect)
        self.assertEqual(set(os.listdir(self.place)), before | {"out"})
        expected = describe(self.tree)
        self.assertEqual({k: got.get(k) for k in expected}, expected)
        return got, said

    def test_no_path_leads_out_of_the_target(self):
        bad = [
            "/../escaped",
            "/srv/data/../../../escaped",
            "/srv//x",
            "/srv/./x",
            "escaped",
            "/srv/data/n\0l",
            "/srv/data/",
            "//x",
            "",
        ]
        got, said = self.hostile(*[{"path": path} for path in bad])
        self.assertEqual(said.count("damaged: a line of manifest segment") >= 1, True)
        self.assertEqual(set(os.listdir(self.out)), {"srv"})

    def test_no_symlink_below_the_target_is_followed(self):
        os.mkdir(self.place + "/elsewhere")
        got, said = self.hostile(
            {"path": "/srv/data/way", "type": "symlink", "target": self.place + "/elsewhere"},
            {"path": "/srv/data/way/escaped"},
            {"path": "/srv/data/way/sub", "type": "dir"},
            {"path": "/srv/data/dangling", "type": "dir"},
            {"path": "/srv/data/dangling"},
            {"path": "/srv/data/a/hello/below"},
        )
        self.assertEqual(os.listdir(self.place + "/elsewhere"), [])
        self.assertEqual(said.count("affected: "), 5)

    def test_paths_longer_than_the_kernel_takes_at_once(self):
        long = "/srv/data" + ("/" + "x" * 200) * 40
        common = {
            "mode": "755",
            "uid": os.getuid(),
            "gid": os.getgid(),
            "mtime": "5.000000000",
            "ctime": "5.000000000",
            "fs": 0,
            "ino": 1,
        }
        self.writer().snapshot(
            self.tree,
            change=lambda entries: entries
            + [
                (b"", {"path": long, "type": "dir", **common}, []),
                (
                    b"",
                    {
                        "path": long + "/file",
                        "type": "file",
                        "size": 5,
                        **common,
                        "holes": [[0, 5]],
                    },
                    [],
                ),
            ],
        )
        self.recover("restore", "latest", self.out)
        ran = subprocess.run(
            ["find", self.out, "-name", "file", "-size", "5c"], capture_output=True, check=True
        )
        self.assertIn(b"x" * 200, ran.stdout)

    def test_fields_of_the_wrong_kind_are_damage_not_a_crash(self):
        self.hostile(
            {"path": "/srv/data/x1", "mode": 5},
            {"path": 7},
            {"path": "/srv/data/x2", "chunks": "no"},
            {"path": "/srv/data/x3", "size": -1},
            {"path": "/srv/data/x4", "type": "door"},
            {"path": "/srv/data/x5", "mtime": 3},
            {"path": "/srv/data/x6", "size": 9},
            {"path": "/srv/data/x7", "holes": [[3, 9]]},
            {"path": "/srv/data/x8", "uid": "x"},
            {"path": "/srv/data/x9", "critical": ["hologram"]},
            {"path": "/srv/data/x10", "fs": []},
        )

    # -- as an ordinary user

    def test_an_ordinary_user_gets_everything_but_the_owners(self):
        if os.geteuid():
            self.skipTest("needs root")
        plant(self.tree)
        os.chmod(self.tree + "/a/big", 0o4755)
        self.writer().snapshot(self.tree)
        subprocess.run(["chmod", "-R", "a+rX", self.place], check=True)
        shutil.copy(RECOVER, self.place)
        os.mkdir(self.out)
        os.chown(self.out, 65534, 65534)
        user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        ran = subprocess.run(
            user
            + [
                "python3",
                self.place + "/recover.py",
                "restore",
                "latest",
                self.out,
                "--identity",
                self.owner,
                "--repository",
                self.repository,
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertIn("belong to you", ran.stderr)
        self.assertEqual(os.stat(self.out + "/srv/data/a/big").st_mode & 0o7777, 0o755)
        with (
            open(self.out + "/srv/data/a/big", "rb") as one,
            open(self.tree + "/a/big", "rb") as other,
        ):
            self.assertEqual(one.read(), other.read())


if __name__ == "__main__":
    unittest.main()
