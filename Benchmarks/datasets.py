"""The data sets of the benchmarks, made from a seed, and the changes made to them.

    small     200,198 files in 8,001 directories, 1.74 GB: log-normal sizes around 4 KiB up to
              64 KiB, 70 % of the files text-like, the others incompressible, a deep tree
    src       a copy of this machine's /usr/share and /usr/lib: real and mixed
    big       four files of 1 GiB: text, random, a sparse disk image with pieces of real files,
              a database
    million   1,000,000 files of at most 64 bytes in 10,001 directories
    small-N   as small, with N files: to try a measurement out

A data set lies in DIRECTORY/NAME/tree and is made once; DIRECTORY/NAME/made.json says how. A change
writes down first what it overwrites (DIRECTORY/NAME/undo), so that the tree can be put back and used
again. Run as a program:

    python3 datasets.py make|undo|choose DIRECTORY NAME SEED
    python3 datasets.py change|rename DIRECTORY NAME SEED NUMBER

It prints one JSON value. run.py calls it so, since a large process would spoil its measurements.
"""

import bisect
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import stat
import subprocess
import sys

SEED = 20251121
MIB = 1 << 20
GIB = 1 << 30
# 2025-01-01, so that no file looks as if it had been written a moment ago.
EPOCH = 1735689600 * 10**9
FREE_BYTES = {"small": 3 * GIB, "src": 8 * GIB, "big": 6 * GIB, "million": 6 * GIB}
VERSION = 1


# Content --------------------------------------------------------------------------------------


def make_lexicon(generator, count):
    """Words as they are in a language: short ones often, long ones seldom."""
    letters = "etaoinshrdlcumwfgypbvkjxqz"
    words = [
        "".join(generator.choices(letters, weights=range(30, 4, -1), k=generator.randint(2, 11)))
        for _ in range(count)
    ]
    return words, [1.0 / (rank + 3) for rank in range(count)]


def make_text(generator, length):
    """Text-like bytes, which zstd compresses about 2.3 : 1 in files of some KiB."""
    words, weights = make_lexicon(generator, 30000)
    cumulative, total = [], 0.0
    for weight in weights:
        total += weight
        cumulative.append(total)
    pieces, size = [], 0
    while size < length:
        line = " ".join(generator.choices(words, cum_weights=cumulative, k=2000))
        line = f"{line} {generator.getrandbits(40)}\n"
        pieces.append(line)
        size += len(line)
    return "".join(pieces).encode()[:length]


_pool = b""


def _open_pool(path):
    global _pool
    with open(path, "rb") as file:
        _pool = file.read()


def text_from_pool(generator, length):
    """Snippets of the pool, none long enough to be found again as a duplicate block."""
    pieces, limit, uniform = [], len(_pool) - 1024, generator.random
    while length > 0:
        take = min(length, 160 + int(uniform() * 480))
        start = int(uniform() * limit)
        pieces.append(_pool[start : start + take])
        length -= take
    return b"".join(pieces)


# A tree of many files -------------------------------------------------------------------------


def plan_directories(generator, count, most_depth):
    """Paths relative to the root, parents before children; path 0 is the root itself."""
    paths, depths = [""], [0]
    while len(paths) < count:
        # Half of the new directories go below a recent one, which makes the tree deep.
        if generator.random() < 0.5:
            parent = generator.randrange(max(0, len(paths) - 12), len(paths))
        else:
            parent = generator.randrange(len(paths))
        if depths[parent] >= most_depth:
            continue
        name = f"{generator.choice(('lib', 'doc', 'data', 'mail', 'img', 'srv'))}-{len(paths):05x}"
        paths.append(f"{paths[parent]}/{name}" if paths[parent] else name)
        depths.append(depths[parent] + 1)
    return paths


def plan_counts(generator, directories, files):
    """How many files each directory holds; the sum is exact."""
    weights = [generator.lognormvariate(0, 0.8) for _ in range(directories)]
    total = sum(weights)
    counts = [int(files * weight / total) for weight in weights]
    for i in range(files - sum(counts)):
        counts[i % directories] += 1
    return counts


def _write_directory(job):
    """Writes one directory of a tree; its own seed makes it the same whoever writes it."""
    root, path, count, seed, shape = job
    generator = random.Random(seed)
    directory = os.path.join(root, path)
    written = 0
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(count):
            if shape == "small":
                size = min(65536, int(generator.lognormvariate(8.3178, 1.3)) + 1)
                if generator.random() < 0.7:
                    name, content = f"{number:04d}-note.txt", text_from_pool(generator, size)
                else:
                    name, content = f"{number:04d}-blob.bin", generator.randbytes(size)
            else:
                content = b"%d %x\n" % (number, generator.getrandbits(generator.randint(8, 220)))
                name = f"item-{number:04d}"
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=handle)
            os.write(file, content)
            moment = EPOCH + generator.randrange(10**16)
            os.utime(file, ns=(moment, moment))
            os.close(file)
            written += len(content)
    finally:
        os.close(handle)
    return written


def make_many(root, seed, shape, files, directories, most_depth, work):
    generator = random.Random(seed)
    paths = plan_directories(generator, directories, most_depth)
    counts = plan_counts(generator, directories, files)
    for path in paths:
        os.mkdir(os.path.join(root, path)) if path else None
    pool = os.path.join(work, "pool")
    with open(pool, "wb") as file:
        file.write(make_text(generator, 20 * MIB) if shape == "small" else b"")
    jobs = [(root, path, counts[i], f"{seed}/{path}", shape) for i, path in enumerate(paths)]
    with multiprocessing.Pool(os.cpu_count() or 2, _open_pool, (pool,)) as workers:
        for _ in workers.imap_unordered(_write_directory, jobs, chunksize=32):
            pass
    os.unlink(pool)


# Real files, large files ----------------------------------------------------------------------


def make_src(root):
    for source in ("/usr/share", "/usr/lib"):
        place = os.path.join(root, os.path.basename(source))
        # A file that only root may read is left out, and cp then says so with its status.
        subprocess.run(["cp", "-a", "--one-file-system", source, place], check=os.geteuid() == 0)


def make_big(root, seed):
    generator = random.Random(seed)
    text = make_text(generator, 32 * MIB)
    with open(os.path.join(root, "text.log"), "wb") as file:
        # Snippets in ever new order, each line numbered: compressible, not deduplicable.
        size = number = 0
        while size < GIB:
            start = generator.randrange(len(text) - 2048)
            line = b"%012d %b\n" % (number, text[start : start + generator.randint(80, 1500)])
            file.write(line[: GIB - size])
            size += len(line)
            number += 1
    with open(os.path.join(root, "random.bin"), "wb") as file:
        for _ in range(GIB // MIB):
            file.write(generator.randbytes(MIB))
    make_disk_image(os.path.join(root, "machine.img"), generator)
    with open(os.path.join(root, "records.db"), "wb") as file:
        # 8 KiB pages: a header that counts, rows of a fixed shape, a free tail.
        for page in range(GIB // 8192):
            rows = b"".join(
                b"%08x|%-24d|%b|" % (page * 40 + row, generator.getrandbits(64), text[at : at + 90])
                for row, at in enumerate(generator.choices(range(len(text) - 90), k=48))
            )
            header = b"PAGE%012d" % page
            file.write((header + rows[: 8192 - 16 - 1024]).ljust(8192, b"\0"))
    for name in os.listdir(root):
        os.utime(os.path.join(root, name), ns=(EPOCH, EPOCH))


def make_disk_image(path, generator):
    """1 GiB as of a virtual machine: real files at block borders, some twice, and holes between."""
    donors = []
    for directory, _, names in os.walk("/usr/lib"):
        for name in names:
            donor = os.path.join(directory, name)
            if os.path.isfile(donor) and not os.path.islink(donor):
                if 65536 <= os.path.getsize(donor) <= 32 * MIB:
                    donors.append(donor)
    donors.sort()
    generator.shuffle(donors)
    with open(path, "wb") as file:
        file.truncate(GIB)
        at = 0
        for number, donor in enumerate(donors):
            try:
                with open(donors[number // 2] if number % 4 == 3 else donor, "rb") as source:
                    content = source.read()
            except OSError:
                continue
            if at + len(content) > GIB - 4 * MIB:
                break
            file.seek(at)
            file.write(content)
            at += (len(content) + 4095) // 4096 * 4096
            if number % 5 == 0:
                at += generator.randrange(64, 1024) * 4096


# Making and counting --------------------------------------------------------------------------


def count_tree(root):
    """Files, directories, other entries, and bytes of the files."""
    files = directories = others = size = 0
    stack = [root]
    while stack:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    directories += 1
                    stack.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    files += 1
                    size += entry.stat(follow_symlinks=False).st_size
                else:
                    others += 1
    return {"files": files, "directories": directories + 1, "others": others, "bytes": size}


def make(directory, name, seed=SEED):
    """Makes the data set unless it is there, puts it back as it was made, and returns its counts."""
    place = os.path.join(directory, name)
    root, record = os.path.join(place, "tree"), os.path.join(place, "made.json")
    if os.path.exists(record):
        with open(record) as file:
            made = json.load(file)
        if made["version"] == VERSION and made["seed"] == seed:
            undo_changes(directory, name)
            return made
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(root)
    free = os.statvfs(place)
    if free.f_bavail * free.f_frsize < FREE_BYTES.get(name, GIB):
        raise SystemExit(f"benchmarks: {place} has too little room to make '{name}'")
    if name == "small":
        make_many(root, seed, "small", 200198, 8001, 24, place)
    elif name.startswith("small-") and name[6:].isdigit():
        files = int(name[6:])
        make_many(root, seed, "small", files, 1 + files // 25, 24, place)
    elif name == "million":
        make_many(root, seed, "million", 1000000, 10001, 12, place)
    elif name == "src":
        make_src(root)
    elif name == "big":
        make_big(root, seed)
    else:
        raise SystemExit(f"benchmarks: there is no data set '{name}'")
    made = {"version": VERSION, "name": name, "seed": seed, **count_tree(root)}
    with open(record, "w") as file:
        json.dump(made, file)
    os.sync()
    return made


# Changes, and taking them back ----------------------------------------------------------------


def _list_files(root):
    """All regular files with content, in one order."""
    found = []
    for directory, subdirectories, names in os.walk(root):
        subdirectories.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and status.st_size and status.st_nlink == 1:
                found.append(path)
    return found


class Undo:
    """What a change is about to overwrite, written down before it does."""

    def __init__(self, directory, name):
        self.place = os.path.join(directory, name, "undo")
        os.makedirs(self.place, exist_ok=True)
        self.log = open(os.path.join(self.place, "log"), "a")

    def note(self, **what):
        self.log.write(json.dumps(what) + "\n")
        self.log.flush()

    def keep(self, path, offset, length):
        """Keeps a range of a file, its length and its times."""
        status = os.stat(path)
        with open(path, "rb") as file:
            file.seek(offset)
            content = file.read(length)
        key = hashlib.sha256(f"{path}\0{offset}\0{os.urandom(8).hex()}".encode()).hexdigest()
        with open(os.path.join(self.place, key), "wb") as file:
            file.write(content)
        self.note(do="write", path=os.fsencode(path).hex(), offset=offset, key=key,
                  size=status.st_size, mtime=status.st_mtime_ns)

    def close(self):
        self.log.close()


def undo_changes(directory, name):
    """Puts the tree back, newest change first."""
    place = os.path.join(directory, name, "undo")
    try:
        with open(os.path.join(place, "log")) as file:
            steps = [json.loads(line) for line in file]
    except FileNotFoundError:
        return
    for step in reversed(steps):
        path = os.fsdecode(bytes.fromhex(step["path"]))
        if step["do"] == "rename":
            new = os.fsdecode(bytes.fromhex(step["new"]))
            if os.path.lexists(new):
                os.rename(new, path)
            continue
        with open(os.path.join(place, step["key"]), "rb") as file:
            content = file.read()
        with open(path, "r+b") as file:
            file.seek(step["offset"])
            file.write(content)
            file.truncate(step["size"])
        os.utime(path, ns=(step["mtime"], step["mtime"]))
    shutil.rmtree(place)


def change_files(directory, name, number, seed=SEED):
    """Edits 1 % of the files, others for each number. Returns how many."""
    root = os.path.join(directory, name, "tree")
    if name == "big":
        return mutate_big(directory, number, seed)
    generator = random.Random(f"{seed}/edit/{number}")
    files = _list_files(root)
    chosen = generator.sample(files, len(files) // 100)
    undo = Undo(directory, name)
    for path in chosen:
        size = os.path.getsize(path)
        offset = generator.randrange(size)
        length = min(64, size - offset)
        undo.keep(path, offset, length)
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(generator.randbytes(length))
    undo.close()
    return len(chosen)


def is_data(descriptor, offset):
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA) == offset
    except OSError:
        # Nothing but a hole up to the end.
        return False


def mutate_big(directory, number, seed):
    """1 MB inserted in the middle, 200 blocks of 4 KiB overwritten in each file, 50 MB appended."""
    root = os.path.join(directory, "big", "tree")
    generator = random.Random(f"{seed}/mutate/{number}")
    undo = Undo(directory, "big")
    for name in sorted(os.listdir(root)):
        path = os.path.join(root, name)
        size = os.path.getsize(path)
        if name == "text.log":
            undo.keep(path, size // 2, size - size // 2)
            with open(path, "r+b") as file:
                file.seek(size // 2)
                tail = file.read()
                file.seek(size // 2)
                file.write(generator.randbytes(10**6))
                file.write(tail)
        with open(path, "rb") as file:
            # Holes stay holes, so that taking the change back leaves the file as it was.
            data = [block for block in range(size // 4096)
                    if is_data(file.fileno(), block * 4096)] \
                if name == "machine.img" else range(size // 4096)
        blocks = sorted(generator.sample(data, 200))
        for block in blocks:
            undo.keep(path, block * 4096, 4096)
        with open(path, "r+b") as file:
            for block in blocks:
                file.seek(block * 4096)
                file.write(generator.randbytes(4096))
            if name == "records.db":
                undo.keep(path, size, 0)
                file.seek(0, os.SEEK_END)
                for _ in range(50):
                    file.write(generator.randbytes(10**6))
    undo.close()
    return len(os.listdir(root))


def rename_directory(directory, name, number, seed=SEED):
    """Renames the directory that holds the least share of the files above 10 %; returns the share."""
    root = os.path.join(directory, name, "tree")
    counts, order = {}, []
    for path, subdirectories, names in os.walk(root):
        subdirectories.sort()
        counts[path] = len(names)
        order.append(path)
    for path in reversed(order):
        if path != root:
            counts[os.path.dirname(path)] += counts[path]
    total = counts[root]
    candidates = [p for p in order if p != root and counts[p] * 10 >= total]
    if not candidates:
        raise SystemExit(f"benchmarks: no directory of '{name}' holds a tenth of the files")
    old = min(candidates, key=lambda path: (counts[path], path))
    new = f"{old.rsplit('-renamed', 1)[0]}-renamed{number}"
    undo = Undo(directory, name)
    undo.note(do="rename", path=os.fsencode(old).hex(), new=os.fsencode(new).hex())
    os.rename(old, new)
    undo.close()
    return counts[old] / total


def choose_file(directory, name, seed=SEED):
    """The path of one file of middling size."""
    files = _list_files(os.path.join(directory, name, "tree"))
    sizes = sorted(os.path.getsize(path) for path in files)
    middle = sizes[len(sizes) // 2]
    generator = random.Random(f"{seed}/one")
    fitting = [path for path in files if middle // 2 <= os.path.getsize(path) <= middle * 2]
    return generator.choice(fitting)


def main(arguments):
    if len(arguments) < 4:
        raise SystemExit(__doc__)
    verb, directory, name, seed = arguments[0], os.path.abspath(arguments[1]), arguments[2], int(arguments[3])
    number = int(arguments[4]) if len(arguments) > 4 else 0
    if verb == "make":
        result = make(directory, name, seed)
    elif verb == "undo":
        result = undo_changes(directory, name)
    elif verb == "choose":
        result = choose_file(directory, name, seed)
    elif verb == "change":
        result = change_files(directory, name, number, seed)
    elif verb == "rename":
        result = rename_directory(directory, name, number, seed)
    else:
        raise SystemExit(__doc__)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
