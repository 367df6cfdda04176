import BundleFormat
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("The catalog of snapshots")
struct CatalogTests {
    /// Snapshots of no files, at these seconds and hosts.
    static func make(_ list: [(Int64, String)]) throws -> (Repository, [Snapshot]) {
        let repository = try RepositoryFixture.plain().open()
        return (repository, try list.map { try add($0.0, $0.1, to: repository) })
    }

    static func add(
        _ seconds: Int64, _ host: String, to repository: Repository, tags: [String] = []
    ) throws -> Snapshot {
        var snapshot = Snapshot(
            time: Timestamp(seconds: seconds, nanoseconds: 5), host: host, roots: [], program: "p")
        snapshot.tags = tags
        snapshot.name = try repository.putRecord(.snapshot, time: snapshot.time, snapshot.json)
        return snapshot
    }

    // 2026-03-31T22:00:00Z
    static let evening: Int64 = 1_774_994_400

    @Test(
        "Snapshots come in order of time, and one is found by id, by counting back, or by a moment")
    func finding() throws {
        let (repository, made) = try Self.make([
            (Self.evening + 86_400, "a"), (Self.evening, "a"), (Self.evening + 30, "b"),
            (Self.evening + 59, "a"),
        ])
        let catalog = try SnapshotCatalog.load(repository)
        #expect(catalog.snapshots.map(\.id) == [made[1], made[2], made[3], made[0]].map(\.id))
        func found(_ text: String, host: String? = "a") -> SnapshotID? {
            try? catalog.find(text, host: host).id
        }
        #expect(found("latest") == made[0].id)
        #expect(found("latest~1") == made[3].id)
        #expect(found("latest~2") == made[1].id)
        #expect(found("latest", host: "b") == made[2].id)
        #expect(found("latest~2", host: nil) == made[2].id)
        for snapshot in made {
            #expect(found(snapshot.id.description) == snapshot.id)
            #expect(found(snapshot.id.short, host: "nobody") == snapshot.id)
        }
        #expect(found("2026-03-31") == made[3].id)
        #expect(found("2026-03-31T22:00:00Z") == made[1].id)
        #expect(found("2026-03-31 22:00:30", host: nil) == made[2].id)
        #expect(found("2026-03-31T22:00") == made[3].id)
        #expect(found("2026-03-31T22:00", host: "b") == made[2].id)
        #expect(found("2026-03-31T21:59:59Z") == nil)
        #expect(found("2027-01-01") == made[0].id)
        #expect(
            try catalog.find("latest", host: "a") { $0.time.seconds < Self.evening + 60 }.id
                == made[3].id)
        for text in [
            "latest~3", "latest~", "latest~-1", "latest~x", "", "abc", "zzzz", "2026-02-30",
            "2026-13-01", "2026-3-1",
            "2026-03-31T24:00", "2026-03-31T22", "2026-03-31T22:00:00+02:00",
            "latest~99999999999999999999", "the one of monday",
            String(repeating: "f", count: 64), String(repeating: "f", count: 65),
        ] {
            #expect(failure { _ = try catalog.find(text, host: "a") }?.kind == .notFound, "\(text)")
        }
    }

    @Test("A host without a snapshot is told which hosts have some")
    func otherHosts() throws {
        let (repository, _) = try Self.make([(1, "a"), (2, "b")])
        let error = failure { _ = try SnapshotCatalog.load(repository).find("latest", host: "c") }
        #expect(error?.message.contains("a, b") == true)
        #expect(error?.remedy.contains("--host") == true)
        let empty = failure {
            _ = try SnapshotCatalog.load(try Self.make([]).0).find("latest", host: "c")
        }
        #expect(empty?.remedy.contains("backup") == true)
    }

    @Test("An id prefix that several share names none, and says which share it")
    func ambiguous() throws {
        let repository = try RepositoryFixture.plain().open()
        var byPrefix: [String: [Snapshot]] = [:]
        var number: Int64 = 0
        while byPrefix.values.allSatisfy({ $0.count < 2 }) {
            number += 1
            let made = try Self.add(number, "a", to: repository)
            byPrefix[String(made.id.description.prefix(4)), default: []].append(made)
            // Two of 65,536 meet soon; this bound only keeps a broken test from running on.
            try #require(number < 3000)
        }
        let (prefix, both) = try #require(byPrefix.first { $0.value.count == 2 })
        let error = try #require(
            failure { _ = try SnapshotCatalog.load(repository).find(prefix, host: "a") })
        #expect(both.allSatisfy { error.message.contains($0.id.short) })
    }

    @Test(
        "Marks apply in order of time, whatever the order they were stored in; a pin and a description too"
    )
    func marks() throws {
        let (repository, made) = try Self.make([(100, "a"), (200, "a")])
        func mark(
            _ seconds: Int64, add: [String] = [], remove: [String] = [], pin: Bool? = nil,
            text: String? = nil, of snapshot: Snapshot
        ) throws {
            var mark = MarkRecord(snapshot: snapshot.id)
            mark.add = add
            mark.remove = remove
            mark.pin = pin
            mark.description = text
            try mark.store(in: repository, time: Timestamp(seconds: seconds), host: "x")
        }
        try mark(30, remove: ["one"], pin: false, of: made[0])
        try mark(10, add: ["one", "two"], pin: true, text: "first", of: made[0])
        try mark(20, add: ["two", "three"], text: "second", of: made[0])
        try mark(40, add: ["one"], of: made[0])
        try mark(50, pin: true, of: made[1])
        try MarkRecord(snapshot: SnapshotID(1, 2, 3, 4)).store(
            in: repository, time: Timestamp(seconds: 5), host: "x")
        let catalog = try SnapshotCatalog.load(repository)
        #expect(catalog.damaged.isEmpty)
        #expect(catalog.snapshots[0].tags == ["two", "three", "one"])
        #expect(!catalog.snapshots[0].isPinned)
        #expect(catalog.snapshots[0].description == "second")
        #expect(catalog.snapshots[1].isPinned)
    }

    @Test("A forgotten snapshot is not listed until it is restored; the later record counts")
    func forgetting() throws {
        let (repository, made) = try Self.make([(100, "a"), (200, "a")])
        func put(_ seconds: Int64, _ field: String, _ ids: [SnapshotID]) throws {
            let time = Timestamp(seconds: seconds)
            try repository.putRecord(
                .forgotten, time: time,
                .object([
                    ("time", .string(time.text)), ("host", .string("a")),
                    (field, JSONValue(ids: ids)),
                ]))
        }
        func listed() throws -> [SnapshotID] {
            try SnapshotCatalog.load(repository).snapshots.map(\.id)
        }
        try put(30, "restored", [made[0].id])
        try put(20, "snapshots", [made[0].id, made[1].id])
        #expect(try listed() == [made[0].id])
        #expect(try SnapshotCatalog.load(repository).forgotten == [made[1].id])
        try put(40, "snapshots", [made[0].id])
        #expect(try listed() == [])
        try put(50, "restored", [made[0].id, made[1].id])
        #expect(try listed() == made.map(\.id))
    }

    @Test(
        "What a record says about itself comes back as it was, unknown fields included, and a critical unknown one refuses it"
    )
    func fields() throws {
        let (repository, _) = try Self.make([])
        var snapshot = Snapshot(
            time: Timestamp(seconds: 1_700_000_000, nanoseconds: 7), host: "höst",
            roots: [Array("/a".utf8), [0x2F, 0xFF]], program: "p 1")
        snapshot.tags = ["x", "y"]
        snapshot.description = "a \"word\"\n"
        snapshot.options = .object([("exclude", .array([.string("*.o")]))])
        snapshot.fileSystems = [
            FileSystemName(type: "ext4", source: "/dev/x", uuid: "u"),
            FileSystemName(type: "tmpfs", source: "tmpfs", uuid: nil),
        ]
        snapshot.manifestDepth = 3
        snapshot.manifestIDs = [ChunkID(1, 2, 3, 4), ChunkID(5, 6, 7, 8)]
        snapshot.statistics.files = 3
        snapshot.statistics.durationMilliseconds = 1234
        snapshot.problemCount = 2
        snapshot.problemIDs = [ChunkID(9, 9, 9, 9)]
        snapshot.seen = ["20260101T000000Z-\(RecordID(1, 1, 1, 1))"]
        guard case .object(var fields) = snapshot.json else {
            preconditionFailure("a snapshot is an object")
        }
        fields.append(("later", .object([("deep", .integer(1))])))
        let name = try repository.putRecord(.snapshot, time: snapshot.time, .object(fields))
        let read = try #require(try SnapshotCatalog.load(repository).snapshots.first)
        #expect(read.name == name)
        #expect(read.id.description == name.id.description)
        #expect(read.json == snapshot.json)
        #expect(read.topIDs.count == 3)
        #expect(try repository.readJSON(name)["later"] == .object([("deep", .integer(1))]))

        for (critical, isRead) in [(["host"], true), (["later"], false), (["nowhere"], false)] {
            let refused = try repository.putRecord(
                .snapshot, time: snapshot.time,
                .object(fields + [("critical", .array(critical.map { .string($0) }))]))
            let error = failure { _ = try repository.readJSON(refused) }
            #expect(isRead ? error == nil : error?.kind == .newerFormat)
        }
        for kind in RecordType.allCases where kind != .index {
            let refused = try repository.putRecord(
                kind, time: snapshot.time,
                .object([
                    ("time", .string(snapshot.time.text)),
                    ("critical", .array([.string("unheard")])),
                ]))
            #expect(failure { _ = try repository.readJSON(refused) }?.kind == .newerFormat)
        }
    }

    @Test("A record of any kind whose name and time disagree is refused")
    func names() throws {
        let (repository, _) = try Self.make([])
        for kind in RecordType.allCases where kind != .index {
            let name = try repository.putRecord(
                kind, time: Timestamp(seconds: 1_700_000_000),
                .object([("time", .string("1700000001.000000000")), ("host", .string("h"))]))
            #expect(
                failure { _ = try repository.readJSON(name) }?.message.contains("renamed") == true)
            let none = try repository.putRecord(
                kind, time: Timestamp(seconds: 1_700_000_000), .object([("host", .string("h"))]))
            #expect(failure { _ = try repository.readJSON(none) }?.kind == .damaged)
        }
    }

    // MARK: Incomplete snapshots

    @Test(
        "A snapshot is incomplete only where a delete phase that had not seen it removed, unseen, what it needs by every line",
        arguments: [
            // named under `snapshots` of the delete phase, record in `seen`, bundle needed, another
            // line without it → incomplete
            (false, false, true, false, true), (true, false, true, false, false),
            (false, true, true, false, false),
            (false, false, false, false, false), (false, false, true, true, false),
            (true, true, true, false, false),
        ])
    func fence(wasSeen: Bool, hadSeen: Bool, isNeeded: Bool, hasOtherLine: Bool, isIncomplete: Bool)
        throws
    {
        let fixture = try RepositoryFixture.plain()
        let repository = try fixture.open()
        _ = try SmallBackup(repository: repository).store([
            SmallFile(path: "/srv/a", content: [1, 2, 3])
        ])
        let needed = try #require(
            try ChunkIndex.load(repository).bundles.first { $0.kind == .content }?.id)
        let time = Timestamp(seconds: 1_700_000_050)
        let condemned = try repository.putRecord(
            .condemned, time: time,
            .object([
                ("time", .string(time.text)), ("host", .string("h")),
                ("state", .string("condemned")),
                ("bundles", JSONValue(ids: [isNeeded ? needed : BundleID(1, 1, 1, 1)])),
                ("index", .array([])),
            ]))
        let snapshot = try SmallBackup(
            repository: repository, time: Timestamp(seconds: 1_700_000_100),
            seen: hadSeen ? [condemned.text] : []
        ).store([SmallFile(path: "/srv/a", content: [1, 2, 3])])
        if hasOtherLine {
            let out = ByteBuffer()
            for id in snapshot.manifestIDs { IndexCodec.write(segment: id, bundles: [], to: out) }
            try repository.putRecord(.index, time: nil, payload: out.bytes)
        }
        let later = Timestamp(seconds: 1_700_000_200)
        try repository.putRecord(
            .condemned, time: later,
            .object([
                ("time", .string(later.text)), ("host", .string("h")),
                ("state", .string("deleting")),
                ("records", .array([.string(condemned.text)])),
                ("snapshots", JSONValue(ids: wasSeen ? [snapshot.id] : [])),
            ]))
        var catalog = try SnapshotCatalog.load(repository)
        #expect(catalog.damaged.isEmpty)
        #expect(catalog.condemned.names == [condemned.text])
        for view in [CondemnedView(), catalog.condemned] {
            catalog.markIncomplete(try ChunkIndex.load(repository, condemned: view))
            #expect(try #require(catalog.snapshots.last).isIncomplete == isIncomplete)
        }
    }

    @Test(
        "A late snapshot of which the index tells nothing any more is incomplete",
        arguments: [true, false])
    func droppedLines(keepsHolders: Bool) throws {
        let repository = try RepositoryFixture.plain().open()
        let snapshot = try SmallBackup(repository: repository).store([
            SmallFile(path: "/srv/a", content: [1, 2, 3])
        ])
        let index = try ChunkIndex.load(repository)
        let time = Timestamp(seconds: 1_700_000_050)
        let condemned = try repository.putRecord(
            .condemned, time: time,
            .object([
                ("time", .string(time.text)), ("host", .string("h")),
                ("state", .string("condemned")),
                ("bundles", JSONValue(ids: index.bundles.filter { $0.kind == .content }.map(\.id))),
                ("index", .array([])),
            ]))
        // The delete phase takes its lines out of the index, and a segment's line goes with them.
        for (name, _, _) in try repository.listRecords(.index) {
            var copy = IndexCopy(dropping: Set(index.bundles.map(\.id)))
            if keepsHolders {
                copy = IndexCopy(
                    dropping: Set(index.bundles.filter { $0.kind == .content }.map(\.id)))
            }
            try copy.add(try repository.readRecord(name), of: "index")
            if copy.lines.count > 0 {
                try repository.putRecord(.index, time: nil, payload: copy.lines.bytes)
            }
            try repository.deleteRecord(name)
        }
        let later = Timestamp(seconds: 1_700_000_200)
        try repository.putRecord(
            .condemned, time: later,
            .object([
                ("time", .string(later.text)), ("host", .string("h")),
                ("state", .string("deleting")),
                ("records", .array([.string(condemned.text)])), ("snapshots", .array([])),
            ]))
        var catalog = try SnapshotCatalog.load(repository)
        let left = try ChunkIndex.load(repository)
        #expect(left.need(of: snapshot).missing.isEmpty == false)
        catalog.markIncomplete(left)
        #expect(catalog.snapshots.map(\.isIncomplete) == [true])
    }

    @Test("A condemned record that goes between the listing and the reading is no damage")
    func vanishingCondemned() throws {
        let (repository, _) = try Self.make([])
        let time = RepositoryFixture.time
        let names = try (1...2).map { number in
            try repository.putRecord(
                .condemned, time: time,
                .object([
                    ("time", .string(time.text)), ("host", .string("h")),
                    ("state", .string("condemned")),
                    ("bundles", JSONValue(ids: [BundleID(UInt64(number), 0, 0, 0)])),
                    ("index", .array([])),
                ]))
        }
        let listing = try repository.listAllRecords()
        try repository.deleteRecord(names[0])
        var damaged: [RepositoryError] = []
        let view = try CondemnedView.load(
            repository.readingStore, in: listing, damaged: &damaged)
        #expect(damaged.isEmpty && view.names == [names[1].text])
        #expect(view.bundles == [BundleID(2, 0, 0, 0)])
        #expect(try SnapshotCatalog.load(repository.readingStore, in: listing).damaged.isEmpty)
    }

    @Test("Two index objects that say the same have different names, encrypted or not")
    func indexNames() throws {
        for repository in [
            try RepositoryFixture.plain().open(), try RepositoryFixture.withRecipient().open(),
        ] {
            let lines = ByteBuffer()
            IndexCodec.write(
                segment: ChunkID(1, 2, 3, 4), bundles: [BundleID(5, 6, 7, 8)], to: lines)
            // One that was condemned never comes back by its name.
            let names = try (1...2).map { _ in
                try repository.putRecord(.index, time: nil, payload: lines.bytes)
            }
            #expect(names[0] != names[1])
            #expect(try repository.readRecord(names[0]) == repository.readRecord(names[1]))
        }
    }

    @Test("A condemned record of a state that this release does not know is named")
    func unknownState() throws {
        let (repository, _) = try Self.make([])
        let time = RepositoryFixture.time
        let name = try repository.putRecord(
            .condemned, time: time,
            .object([
                ("time", .string(time.text)), ("host", .string("h")),
                ("state", .string("dreaming")),
            ]))
        #expect(
            try SnapshotCatalog.load(repository).damaged.map(\.subject) == [
                repository.recordKey(name)
            ])
    }

    @Test("When each bundle was read last is remembered over records, and the newest holds")
    func verified() throws {
        let (repository, _) = try Self.make([])
        let ids = (1...3).map { BundleID(UInt64($0), 0, 0, 0) }
        var first = try VerifiedRecord.load(repository)
        first.note(ids[0], .init(depth: .content, time: Timestamp(seconds: 10)))
        first.note(ids[1], .init(depth: .digest, time: Timestamp(seconds: 10)))
        try first.store(in: repository, time: Timestamp(seconds: 11), host: "a", keeping: Set(ids))
        var second = VerifiedRecord()
        second.note(ids[1], .init(depth: .content, time: Timestamp(seconds: 20)))
        second.note(ids[2], .init(depth: .digest, time: Timestamp(seconds: 5)))
        try second.store(in: repository, time: Timestamp(seconds: 21), host: "b", keeping: Set(ids))
        var both = try VerifiedRecord.load(repository)
        #expect(both.marks[ids[0]]?.depth == .content)
        #expect(both.marks[ids[1]]?.time == Timestamp(seconds: 20))
        #expect(both.marks[ids[2]]?.depth == .digest)
        both.note(ids[1], .init(depth: .digest, time: Timestamp(seconds: 19)))
        #expect(both.marks[ids[1]]?.depth == .content)
        // A later reading without an identity does not undo the one with it.
        both.note(ids[1], .init(depth: .digest, time: Timestamp(seconds: 25)))
        try both.store(in: repository, time: Timestamp(seconds: 30), host: "a", keeping: [ids[1]])
        #expect(try repository.listRecords(.verified).count == 1)
        let kept = try VerifiedRecord.load(repository)
        #expect(Set(kept.marks.keys) == [ids[1]])
        #expect(kept.lastReading(of: ids[1], atLeast: .digest) == Timestamp(seconds: 25))
        #expect(kept.lastReading(of: ids[1], atLeast: .content) == Timestamp(seconds: 20))
    }

    @Test("A file system with an identifier is the same on another device, one without is not")
    func fileSystemNames() {
        let first = FileSystemName(type: "ext4", source: "/dev/sda1", uuid: "a")
        #expect(first.isSame(as: FileSystemName(type: "ext4", source: "/dev/sdb1", uuid: "a")))
        #expect(!first.isSame(as: FileSystemName(type: "ext4", source: "/dev/sda1", uuid: "b")))
        #expect(!first.isSame(as: FileSystemName(type: "xfs", source: "/dev/sda1", uuid: "a")))
        let unnamed = FileSystemName(type: "tmpfs", source: "tmpfs", uuid: nil)
        #expect(unnamed.isSame(as: unnamed))
        #expect(!unnamed.isSame(as: FileSystemName(type: "tmpfs", source: "other", uuid: nil)))
    }

    @Test("A run's checkpoint replaces the one before it")
    func runs() throws {
        let (repository, _) = try Self.make([])
        var run = RunRecord(
            run: String(repeating: "0", count: 32), started: Timestamp(seconds: 1), host: "a",
            roots: [[0x2F, 0xFF]])
        let first = try run.store(in: repository, time: Timestamp(seconds: 2), replacing: nil)
        run.sequence = 1
        run.bundles = [BundleID(1, 2, 3, 4)]
        let second = try run.store(in: repository, time: Timestamp(seconds: 3), replacing: first)
        #expect(try repository.listRecords(.run).map(\.name) == [second])
        let value = try repository.readJSON(second)
        #expect(value["sequence"]?.count == 1)
        #expect(value["roots"]?.array?.first?.path == [0x2F, 0xFF])
        #expect(value["bundles"]?.array?.count == 1)
    }
}
