import AgeEncryption
import BundleFormat
import Glibc
import ObjectStorage
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

/// Repositories written by each released format, by the program of its time, with what the trees
/// held as Python saw them. They are never written again: what can no longer read one breaks a
/// promise.
@Suite("Golden repositories")
struct GoldenRepositoryTests {
    static let fixtures =
        String(#filePath.prefix(#filePath.count - "GoldenRepositoryTests.swift".count)) + "Fixtures"

    /// A fixture in memory, so that reading can change nothing in it.
    static func load(_ name: String) throws -> RepositoryFixture {
        let folder = "\(fixtures)/\(name)"
        let store = MemoryStore()
        for path in treeContents(folder) where !path.hasSuffix("/") {
            store.plant(
                try #require(readFile("\(folder)/\(path)")), at: try #require(ObjectKey(path)))
        }
        try #require(!store.keys.isEmpty, "\(folder) is missing")
        return RepositoryFixture(store: store, host: HostPlaces(), owner: nil)
    }

    static func text(_ name: String) throws -> [UInt8] {
        try #require(readFile("\(fixtures)/\(name)"))
    }

    @Test("There is one for each format up to the newest")
    func none() {
        for version in 1...RepositoryConfig.formatVersion {
            for kind in ["encrypted", "plain"] {
                #expect(!treeContents("\(Self.fixtures)/v\(version)/\(kind)").isEmpty)
            }
        }
    }

    @Test(
        "Nothing in them has changed since they were made",
        arguments: [
            (
                "v1/encrypted", 19,
                "4e54e390fba83da317e681e19651e22c4c7b673af31440d600c70fcfbfc29ed0"
            ),
            ("v1/plain", 14, "69a87468af4011e3493bdd47dd3a02db6bad494366daaa0b8721c78d6cf86ec7"),
        ])
    func unchanged(name: String, count: Int, sum: String) throws {
        let contents = try Self.load(name).store.contents
        #expect(contents.count == count)
        let list = contents.keys.sorted().map { "\(digest(contents[$0]!))  \($0)\n" }.joined()
        #expect(digest(Array(list.utf8)).description == sum)
    }

    enum Way: CaseIterable { case passphrase, identity, plain }

    @Test(
        "Each opens with every key that it was made with, and gives every snapshot back as it was",
        arguments: Way.allCases)
    func restores(way: Way) throws {
        let fixture = try Self.load(way == .plain ? "v1/plain" : "v1/encrypted")
        let credential: OwnerCredential =
            switch way {
            case .plain: .none
            case .passphrase: .passphrase(try Self.text("v1/passphrase"))
            case .identity: .identities(try AgeIdentityFile.parse(try Self.text("v1/owner.txt")))
            }
        let repository = try fixture.open(credential)
        #expect(repository.access.notes.isEmpty)
        let catalog = try SnapshotCatalog.load(repository)
        #expect(catalog.damaged.isEmpty)
        #expect(catalog.snapshots.map(\.tags) == [["g1"], ["g2", "kept"], ["g3"]])
        #expect(catalog.snapshots.map(\.isPinned) == [false, true, false])
        #expect(catalog.snapshots.allSatisfy { $0.host == "golden" && $0.problemCount == 0 })
        let index = try ChunkIndex.load(repository)
        #expect(index.damaged.isEmpty)
        let listed = try repository.listBundles()
        #expect(Set(listed.keys) == Set(index.bundles.map(\.id)))
        #expect(index.bundles.allSatisfy { listed[$0.id] == $0.size })
        #expect(Set(try VerifiedRecord.load(repository).marks.keys) == Set(listed.keys))
        for (number, snapshot) in catalog.snapshots.enumerated() {
            let need = index.need(of: snapshot)
            #expect(need.missing.isEmpty)
            #expect(need.bundles.isSubset(of: Set(listed.keys)))
            try check(snapshot, of: repository, index, against: "v1/expected-\(number + 1).json")
        }
    }

    private func check(
        _ snapshot: Snapshot, of repository: Repository, _ index: ChunkIndex, against name: String
    ) throws {
        let expected = try #require(JSONValue(parsing: try Self.text(name))?.array)
        let fetcher = try FrameFetcher(
            repository, index: index, accesses: BundleAccessCache(repository))
        let reader = ManifestReader(snapshot, fetcher: fetcher)
        var entries: [Entry] = []
        try reader.forEach(below: nil) { entry, _ in
            entries.append(entry)
            return true
        }
        try #require(entries.count == expected.count)
        for (entry, expected) in zip(entries, expected) {
            let name = UTF8Text.display(entry.path)
            #expect(Hex.text(entry.path) == expected["path"]?.string)
            #expect(entry.kind.name.description == expected["type"]?.string, "\(name)")
            #expect(String(entry.mode, radix: 8) == expected["mode"]?.string, "\(name)")
            #expect(
                String(entry.mtime.nanosecondsSince1970) == expected["mtime_ns"]?.string, "\(name)")
            if let target = expected["target"]?.string { #expect(Hex.text(entry.target) == target) }
            guard entry.kind == .file else { continue }
            #expect(Int(entry.size) == expected["size"]?.count, "\(name)")
            #expect(Int(entry.links) == expected["links"]?.count, "\(name)")
            #expect(
                try contentDigest(of: entry, reader, fetcher) == expected["sha256"]?.string,
                "\(name)")
        }
        let attributes = entries.filter { $0.path.hasSuffix("/text") }.flatMap(\.xattrs)
        #expect(
            attributes == [
                ExtendedAttribute(
                    name: Array("user.note".utf8), value: [0, 1] + Array("binary".utf8))
            ])
        // The long forms of both lists are in there.
        #expect(entries.contains { $0.holesList.count > 0 })
        #expect(entries.contains { $0.listDepth == 1 } == name.hasSuffix("-1.json"))
    }

    /// The digest of a file put together: zeros where it has holes, its chunks in between.
    private func contentDigest(of entry: Entry, _ reader: ManifestReader, _ fetcher: FrameFetcher)
        throws -> String
    {
        var hash = DigestStream()
        let zeros = [UInt8](repeating: 0, count: 1 << 20)
        var at: UInt64 = 0
        func skip(_ hole: Hole) {
            var left = Int(hole.length)
            while left > 0 {
                let count = min(left, zeros.count)
                zeros.withUnsafeBytes {
                    hash.update(UnsafeRawBufferPointer(rebasing: $0[..<count]))
                }
                left -= count
            }
            at += hole.length
        }
        var holes = try reader.holes(of: entry)[...]
        for id in try reader.chunks(of: entry) {
            var bytes = try fetcher.chunk(id)
            while bytes.count > 0 {
                if let hole = holes.first, hole.offset == at {
                    skip(hole)
                    holes.removeFirst()
                    continue
                }
                let run = holes.first.map { min(bytes.count, Int($0.offset - at)) } ?? bytes.count
                hash.update(UnsafeRawBufferPointer(rebasing: bytes[..<run]))
                at += UInt64(run)
                bytes = UnsafeRawBufferPointer(rebasing: bytes[run...])
            }
        }
        for hole in holes { skip(hole) }
        #expect(at == entry.size)
        let id: RecordID = hash.finish()
        return id.description
    }
}

extension Array where Element == UInt8 {
    fileprivate func hasSuffix(_ text: String) -> Bool {
        Array(suffix(text.utf8.count)) == Array(text.utf8)
    }
}
