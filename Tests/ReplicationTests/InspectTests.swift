import BundleFormat
import FileTree
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

@Suite("Looking into snapshots")
struct InspectTests {
    typealias File = MadeRepository.File

    static func inspect(_ made: MadeRepository) throws -> Inspect {
        try Inspect(
            repository: made.repository, monitor: SilentMonitor(), cancellation: Cancellation())
    }

    static func text(_ path: [UInt8]) -> String { String(decoding: path, as: UTF8.self) }

    /// /data with three directories, one of them of many segments, and a file beside each.
    static func tree() -> [File] {
        var files = [MadeRepository.directory("/data"), MadeRepository.directory("/data/a")]
        for number in 10..<50 {
            files.append(
                MadeRepository.file("/data/a/f\(number)", [UInt8](repeating: 1, count: number)))
        }
        files.append(MadeRepository.directory("/data/a/sub"))
        files.append(MadeRepository.file("/data/a/sub/deep.txt", Array("deep".utf8)))
        files.append(
            MadeRepository.file("/data/a-file", Array("beside".utf8), mtime: 1_500_000_000))
        files.append(MadeRepository.directory("/data/b"))
        files.append(MadeRepository.file("/data/b/x.txt", Array("x".utf8)))
        files.append(MadeRepository.file("/data/z", [UInt8](repeating: 9, count: 90_000)))
        return files
    }

    static func list(_ made: MadeRepository, _ snapshot: Snapshot, _ path: String?, recursive: Bool)
        throws -> [String]
    {
        var found: [String] = []
        try inspect(made).list(snapshot, path: path.map { Array($0.utf8) }, isRecursive: recursive)
        { entry in
            found.append(text(entry.path))
            return true
        }
        return found
    }

    // MARK: ls

    @Test("A listing shows a directory and what is in it, one level or all")
    func listing() throws {
        let made = try MadeRepository()
        let snapshot = try made.commit(Self.tree())
        let all = Self.tree().map { Self.text($0.entry.path) }
        #expect(try Self.list(made, snapshot, nil, recursive: true) == all)
        #expect(
            try Self.list(made, snapshot, nil, recursive: false) == [
                "/data", "/data/a", "/data/a-file", "/data/b", "/data/z",
            ])
        #expect(try Self.list(made, snapshot, "/data", recursive: false).count == 5)
        #expect(try Self.list(made, snapshot, "/", recursive: false) == ["/data"])
        #expect(
            try Self.list(made, snapshot, "/data/b", recursive: false) == [
                "/data/b", "/data/b/x.txt",
            ])
        #expect(
            try Self.list(made, snapshot, "/data/a/sub", recursive: true) == [
                "/data/a/sub", "/data/a/sub/deep.txt",
            ])
        #expect(try Self.list(made, snapshot, "/data/z", recursive: false) == ["/data/z"])
        #expect(try Self.list(made, snapshot, "/data/a", recursive: false).count == 42)
        #expect(try Self.list(made, snapshot, "/data/a-file", recursive: true) == ["/data/a-file"])
    }

    @Test("A listing of what is not there says so")
    func notThere() throws {
        let made = try MadeRepository()
        let snapshot = try made.commit(Self.tree())
        for path in ["/data/c", "/data/a/f1", "/dat", "/data/z/below"] {
            #expect {
                try Self.list(made, snapshot, path, recursive: true)
            } throws: { ($0 as? ReplicationError)?.kind == .repository(.notFound) }
        }
    }

    @Test("A listing ends where it is told to")
    func ends() throws {
        let made = try MadeRepository()
        let snapshot = try made.commit(Self.tree())
        var count = 0
        try Self.inspect(made).list(snapshot, isRecursive: true) { _ in
            count += 1
            return count < 3
        }
        #expect(count == 3)
    }

    @Test("A damaged part of a manifest is told, and the rest is listed")
    func damagedManifest() throws {
        let made = try MadeRepository(encrypted: false)
        let snapshot = try made.commit(Self.tree())
        // Two segments a frame, three frames a bundle: the first bundle has the beginning, the last
        // the node.
        let bundle = made.manifestBundles[0]
        let frame = try ChunkIndex.load(made.repository).frames(of: bundle)[1]
        made.store.alter(made.key(bundle)) { $0[frame.offset + frame.length / 2] ^= 1 }
        let inspect = try Self.inspect(made)
        var found: [String] = []
        try inspect.list(snapshot, isRecursive: true) { entry in
            found.append(Self.text(entry.path))
            return true
        }
        #expect(inspect.damagedPieces == 2)
        #expect(found.count == Self.tree().count - 2 * made.linesPerSegment)
        #expect(found.first == "/data" && found.last == "/data/z")
    }

    @Test(
        "Permissions read as ls shows them",
        arguments: [
            (EntryKind.file, 0o644, "-rw-r--r--"), (.directory, 0o1777, "drwxrwxrwt"),
            (.file, 0o4755, "-rwsr-xr-x"),
            (.file, 0o2644, "-rw-r-Sr--"), (.symlink, 0o777, "lrwxrwxrwx"),
            (.blockDevice, 0o660, "brw-rw----"),
        ])
    func permissions(kind: EntryKind, mode: Int, text: String) {
        var entry = Entry(path: [0x2F, 0x61], kind: kind)
        entry.mode = UInt32(mode)
        #expect(entry.permissionText == text)
        entry.acl = Array("u::rw-".utf8)
        #expect(entry.permissionText == text + "+")
    }

    // MARK: find

    static func find(
        _ made: MadeRepository, _ snapshots: [Snapshot], _ change: (inout Inspect.Query) -> Void
    ) throws -> [String] {
        var query = Inspect.Query()
        change(&query)
        var found: [String] = []
        try inspect(made).find(query, in: snapshots) { _, entry in
            found.append(text(entry.path))
            return true
        }
        return found
    }

    @Test("A pattern without a slash speaks of names, one with a slash of paths")
    func patterns() throws {
        let made = try MadeRepository()
        let snapshot = try made.commit(Self.tree())
        func search(_ pattern: String) throws -> [String] {
            try Self.find(made, [snapshot]) { $0.patterns = [GlobPattern(Array(pattern.utf8))] }
        }
        #expect(try search("*.txt") == ["/data/a/sub/deep.txt", "/data/b/x.txt"])
        #expect(try search("/data/*.txt") == [])
        #expect(try search("data/**/*.txt") == ["/data/a/sub/deep.txt", "/data/b/x.txt"])
        #expect(try search("a/") == ["/data/a"])
        #expect(try search("f1[0-2]") == ["/data/a/f10", "/data/a/f11", "/data/a/f12"])
    }

    @Test("Type, size, time and place narrow what is found")
    func filters() throws {
        let made = try MadeRepository()
        let snapshot = try made.commit(Self.tree())
        #expect(try Self.find(made, [snapshot]) { $0.kinds = [.directory] }.count == 4)
        #expect(
            try Self.find(made, [snapshot]) { $0.sizeAtLeast = 49 } == ["/data/a/f49", "/data/z"])
        #expect(
            try Self.find(made, [snapshot]) {
                $0.sizeAtLeast = 6
                $0.sizeAtMost = 11
            } == ["/data/a/f10", "/data/a/f11", "/data/a-file"])
        #expect(
            try Self.find(made, [snapshot]) {
                $0.modifiedUntil = Timestamp(seconds: 1_500_000_000, nanoseconds: 5)
            } == ["/data/a-file"])
        #expect(
            try Self.find(made, [snapshot]) {
                $0.modifiedSince = Timestamp(seconds: 1_600_000_000, nanoseconds: 5)
            }.count
                == Self.tree().count - 5)
        #expect(
            try Self.find(made, [snapshot]) { $0.below = Array("/data/a".utf8) }.count == 43)
    }

    @Test("Several snapshots are searched one after the other, and shared segments are read once")
    func severalSnapshots() throws {
        let made = try MadeRepository()
        let first = try made.commit(Self.tree())
        let second = try made.commit(
            Self.tree() + [MadeRepository.file("/data/zz.txt", [1])], at: 1_700_000_200)
        let monitor = SilentMonitor()
        let inspect = try Inspect(
            repository: made.repository, monitor: monitor, cancellation: Cancellation())
        var query = Inspect.Query()
        query.patterns = [GlobPattern(Array("*.txt".utf8))]
        var found: [String] = []
        try inspect.find(query, in: [first, second]) { snapshot, entry in
            found.append("\(snapshot.id == first.id ? 1 : 2) \(Self.text(entry.path))")
            return true
        }
        #expect(
            found == [
                "1 /data/a/sub/deep.txt", "1 /data/b/x.txt", "2 /data/a/sub/deep.txt",
                "2 /data/b/x.txt", "2 /data/zz.txt",
            ])
        #expect(
            monitor.counts.entries.load(ordering: .relaxed) <= Self.tree().count + 1
                + made.linesPerSegment)
    }

    // MARK: diff

    static func difference(
        _ made: MadeRepository, _ old: Snapshot, _ new: Snapshot, path: String? = nil
    ) throws -> (lines: [String], totals: DifferenceTotals) {
        var lines: [String] = []
        let totals = try inspect(made).difference(old, new, path: path.map { Array($0.utf8) }) {
            difference in
            lines.append(
                "\(difference.kind.rawValue) \(text(difference.path)) \(difference.aspects.joined(separator: ","))"
            )
            return true
        }
        return (lines, totals)
    }

    @Test("A difference names what was added, removed, changed, and touched")
    func differences() throws {
        let made = try MadeRepository()
        let old = Self.tree()
        var new = old
        new.removeAll { $0.entry.path == Array("/data/a/f20".utf8) }
        new.insert(
            MadeRepository.file("/data/a/f30x", [1, 2, 3]),
            at: new.firstIndex { $0.entry.path == Array("/data/a/f31".utf8) }!)
        let changed = new.firstIndex { $0.entry.path == Array("/data/b/x.txt".utf8) }!
        new[changed] = MadeRepository.file(
            "/data/b/x.txt", Array("longer".utf8), mtime: 1_600_000_001)
        let touched = new.firstIndex { $0.entry.path == Array("/data/a/f40".utf8) }!
        new[touched].entry.mode = 0o600
        new[touched].entry.uid = 7
        let turned = new.firstIndex { $0.entry.path == Array("/data/a/sub".utf8) }!
        new.remove(at: turned + 1)
        new[turned] = MadeRepository.file("/data/a/sub", [5])
        let seen = new.firstIndex { $0.entry.path == Array("/data/a/f45".utf8) }!
        new[seen].entry.inode = 99
        new[seen].entry.ctime = Timestamp(seconds: 5)
        let first = try made.commit(old)
        let second = try made.commit(new, at: 1_700_000_200)
        let (lines, totals) = try Self.difference(made, first, second)
        #expect(
            lines == [
                "removed /data/a/f20 ", "added /data/a/f30x ", "metadata /data/a/f40 mode,owner",
                "type /data/a/sub ",
                "removed /data/a/sub/deep.txt ", "changed /data/b/x.txt mtime",
            ])
        #expect(
            totals.added == 1 && totals.removed == 2 && totals.changed == 1 && totals.metadata == 1
                && totals.type == 1)
        #expect(
            totals.addedBytes == 3 + 5 + 1 && totals.removedBytes == 20 + 4
                && totals.changedBytes == 6)
        #expect(
            try Self.difference(made, first, second, path: "/data/b").lines == [
                "changed /data/b/x.txt mtime"
            ])
        #expect(
            try Self.difference(made, second, first, path: "/data/a/f20").lines == [
                "added /data/a/f20 "
            ])
        #expect(try Self.difference(made, first, first).totals.isEmpty)
    }

    @Test("Any two snapshots differ as their lists do", arguments: UInt64(1)...UInt64(40))
    func model(seed: UInt64) throws {
        var generator = SeededGenerator(seed: seed)
        let made = try MadeRepository(encrypted: false)
        made.linesPerSegment = Int.random(in: 1...7, using: &generator)
        func files() -> [String: File] {
            var files = ["/data": MadeRepository.directory("/data")]
            for _ in 0..<Int.random(in: 0...60, using: &generator) {
                let path =
                    "/data/\(["a", "b", "b-", "c"][Int.random(in: 0...3, using: &generator)])\(Int.random(in: 0...20, using: &generator))"
                files[path] = MadeRepository.file(
                    path, [UInt8(Int.random(in: 0...2, using: &generator))])
            }
            return files
        }
        let old = files()
        var new = files()
        if seed % 2 == 0 {
            new = old
            for (path, _) in old
            where path != "/data" && Int.random(in: 0...9, using: &generator) == 0 {
                new[path] = nil
            }
            for number in 0..<3 {
                new["/data/b-\(number)x"] = MadeRepository.file("/data/b-\(number)x", [1])
            }
        }
        func sorted(_ files: [String: File]) -> [File] {
            files.values.sorted { EntryPath.precedes($0.entry.path, $1.entry.path) }
        }
        let first = try made.commit(sorted(old))
        made.linesPerSegment = Int.random(in: 1...7, using: &generator)
        let second = try made.commit(sorted(new), at: 1_700_000_200)
        var expected: [String] = []
        for path in Set(old.keys).union(new.keys) {
            if old[path] == nil {
                expected.append("added \(path) ")
            } else if new[path] == nil {
                expected.append("removed \(path) ")
            } else if old[path]!.content != new[path]!.content {
                expected.append("changed \(path) ")
            }
        }
        let found = try Self.difference(made, first, second)
        #expect(found.lines.sorted() == expected.sorted())
        let paths = found.lines.map { Array($0.split(separator: " ")[1].utf8) }
        #expect(
            zip(paths, paths.dropFirst()).allSatisfy { EntryPath.precedes($0, $1) }, "in path order"
        )
    }

    @Test("What two snapshots share is not read")
    func sharedPieces() throws {
        let made = try MadeRepository()
        var files = MadeRepository.files(400)
        let first = try made.commit(files)
        files[200] = MadeRepository.file(Self.text(files[200].entry.path), [1])
        let second = try made.commit(files, at: 1_700_000_200)
        let recording = RecordingStore(made.store)
        let repository = try Repository.open(
            store: recording, location: "memory", credential: .identities([made.owner]),
            needsOwner: true,
            directories: made.directories)
        let inspect = try Inspect(
            repository: repository, monitor: SilentMonitor(), cancellation: Cancellation())
        recording.reset()
        let totals = try inspect.difference(first, second) { _ in true }
        #expect(totals.changed == 1)
        #expect(totals.sharedPieces == 100)
        // Two top nodes and two segments: a seal and a frame each.
        #expect(recording.requests <= 8)
    }

    // MARK: stats

    @Test("Statistics count objects, chunks and what each snapshot costs")
    func statistics() throws {
        let made = try MadeRepository()
        let first = try made.commit(MadeRepository.files(10))
        let second = try made.commit(
            MadeRepository.files(10) + [MadeRepository.file("/data/g", [1, 2, 3])],
            at: 1_700_000_200, host: "beta")
        let host = try made.open(asOwner: false)
        let statistics = try RepositoryStatistics(of: host, cancellation: Cancellation())
        #expect(statistics.snapshotCount == 2)
        #expect(statistics.chunks == 11)
        #expect(statistics.chunkBytes == second.statistics.bytes)
        #expect(statistics.snapshotBytes == first.statistics.bytes + second.statistics.bytes)
        #expect(statistics.bundles == made.contentBundles.count + made.manifestBundles.count)
        let stored = statistics.contentStoredBytes + statistics.manifestStoredBytes
        let bundles = try #require(statistics.objects.first { $0.kind == "bundles" })
        #expect(bundles.bytes == stored && bundles.count == statistics.bundles)
        #expect(statistics.objectCount == made.store.keys.count)
        #expect(try #require(statistics.deduplication) > 1.9)
        #expect(try #require(statistics.compression) < 1.1, "random bytes do not compress")
        // The second snapshot's own manifest and its one new file.
        #expect(statistics.snapshots[1].bundles > statistics.snapshots[0].bundles - 1)
        #expect(statistics.snapshots[1].ownBytes > 0)
        #expect(statistics.snapshots.allSatisfy { $0.ownBytes < $0.storedBytes })
        let mine = try RepositoryStatistics(of: host, cancellation: Cancellation()) {
            $0.host == "beta"
        }
        #expect(mine.snapshots.map(\.snapshot.id) == [second.id])
        #expect(mine.snapshotBytes == statistics.snapshotBytes)
    }
}
