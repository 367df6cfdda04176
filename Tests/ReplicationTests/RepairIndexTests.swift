import BundleFormat
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("Repair of the index")
struct RepairIndexTests {
    private static func repair(_ made: MadeRepository) throws -> RepairIndexReport {
        try RepairIndex(
            repository: try made.open(asOwner: true), monitor: SilentMonitor(),
            cancellation: Cancellation()
        ).run()
    }

    /// All lines of the index, with the frames of a bundle on its line.
    private static func lines(_ made: MadeRepository) throws -> Set<String> {
        var lines: [String] = []
        for name in try made.repository.listRecords(.index).map(\.name) {
            for line in String(decoding: try made.repository.readRecord(name), as: UTF8.self).split(
                separator: "\n")
            {
                if line.hasPrefix("{\"frame") {
                    lines[lines.count - 1] += line
                } else {
                    lines.append(String(line))
                }
            }
        }
        return Set(lines)
    }

    private static func fill(_ made: MadeRepository) throws {
        try made.commit(MadeRepository.files(12))
        try made.commit(
            MadeRepository.files(14) + [
                MadeRepository.file("/data/large", SeededGenerator.sample(150_000))
            ], at: 1_700_000_200)
    }

    @Test(
        "The index made anew says what the lost one said, line for line", arguments: [true, false])
    func fromNothing(encrypted: Bool) throws {
        let made = try MadeRepository(encrypted: encrypted)
        try Self.fill(made)
        let before = try Self.lines(made)
        for name in made.indexRecords { try made.store.delete(made.key(name)) }
        made.dropCache()
        #expect(try !VerifyTests.run(made).isSound)
        let report = try Self.repair(made)
        #expect(report.isSound)
        #expect(report.bundles == made.contentBundles.count + made.manifestBundles.count)
        #expect(report.recordsRemoved == 0 && report.recordsWritten == 2)
        #expect(try Self.lines(made) == before)
        #expect(try VerifyTests.run(made, .everything).findings.map(\.description) == [])
    }

    @Test("A sound index is replaced by one that says the same", arguments: [true, false])
    func sound(encrypted: Bool) throws {
        let made = try MadeRepository(encrypted: encrypted)
        try Self.fill(made)
        let before = try Self.lines(made)
        for _ in 0..<2 {
            #expect(try Self.repair(made).isSound)
            #expect(try Self.lines(made) == before)
        }
        #expect(try VerifyTests.run(made, asOwner: false).isSound)
    }

    @Test("A damaged or lying record of the index does not survive")
    func lyingRecord() throws {
        let made = try MadeRepository()
        try Self.fill(made)
        made.store.alter(made.key(made.indexRecords[0])) { $0[$0.count / 2] ^= 1 }
        let lie = ChunkID(1, 2, 3, 4)
        let bundle = made.contentBundles[0]
        let size = try #require(try made.repository.bundleSize(bundle))
        try made.index(
            [
                SealedBundle(
                    id: bundle, kind: .content, size: size, plain: size, md5: nil,
                    frames: [
                        FrameRecord(
                            offset: 24, length: 100, raw: 1000, fingerprint: .empty,
                            chunks: [ChunkPlace(id: lie, offset: 512, length: 10)])
                    ])
            ], segments: [])
        made.dropCache()
        let report = try Self.repair(made)
        #expect(report.isSound && report.recordsRemoved == 3)
        #expect(try Self.lines(made).allSatisfy { !$0.contains("\(lie)") })
        #expect(try VerifyTests.run(made, .everything).findings.map(\.description) == [])
    }

    @Test(
        "Of a damaged bundle the sound frames stay in the index, with and without its old lines",
        arguments: [true, false])
    func damagedBundle(keepsIndex: Bool) throws {
        let made = try MadeRepository(encrypted: false)
        made.framesPerBundle = 8
        let snapshot = try made.commit(MadeRepository.files(8))
        let bundle = made.contentBundles[0]
        let frames = try ChunkIndex.load(made.repository).frames(of: bundle)
        made.store.alter(made.key(bundle)) { $0[frames[1].offset + frames[1].length / 2] ^= 1 }
        if !keepsIndex {
            try made.store.delete(made.key(made.indexRecords[0]))
            made.dropCache()
        }
        let report = try Self.repair(made)
        #expect(report.damaged.map(\.object) == [made.repository.bundleKey(bundle)])
        // Three frames of files and the end of the archive are sound behind the damaged one, where
        // a line tells where they begin.
        #expect(report.damaged.first?.frames == (keepsIndex ? 4 : 1))
        #expect(report.harmedSnapshots == [snapshot.id])
        let lost = report.harmedPaths.map { String(decoding: $0, as: UTF8.self) }
        #expect(lost == (keepsIndex ? [2, 3] : Array(2..<8)).map { "/data/f000\($0)" })
        #expect(report.harmedPathCount == lost.count)
        let index = try ChunkIndex.load(made.repository)
        #expect(index.frames(of: bundle).count == report.damaged.first?.frames)
        #expect(!index.need(of: snapshot).missing.isEmpty, "what is not whole has no line")
    }

    @Test("The lines of a run that has not committed yet stay")
    func runInProgress() throws {
        let made = try MadeRepository()
        try Self.fill(made)
        let other = try made.commit(MadeRepository.files(5, seed: 7), at: 1_700_000_300)
        let record = made.key(try #require(other.name))
        let bytes = try #require(made.store.bytes(record))
        try made.store.delete(record)
        let before = try Self.lines(made)
        #expect(try Self.repair(made).isSound)
        #expect(try Self.lines(made) == before)
        made.store.plant(bytes, at: record)
        #expect(try VerifyTests.run(made).isSound)
    }

    @Test("A forgotten snapshot keeps its lines, so that forgetting can be taken back")
    func forgotten() throws {
        let made = try MadeRepository()
        try Self.fill(made)
        let last = try made.commit(MadeRepository.files(5, seed: 7), at: 1_700_000_300)
        let before = try Self.lines(made)
        try made.repository.putRecord(
            .forgotten, time: VerifyTests.now,
            .object([
                ("time", .string(VerifyTests.now.text)), ("host", .string("a")),
                ("snapshots", .array([.string(last.id.description)])),
            ]))
        for name in made.indexRecords { try made.store.delete(made.key(name)) }
        made.dropCache()
        #expect(try Self.repair(made).isSound)
        #expect(try Self.lines(made) == before)
    }

    @Test("Whatever store operation fails, no line is lost, and the next repair succeeds")
    func failures() throws {
        for step in 1... {
            let made = try MadeRepository()
            made.framesPerBundle = 8
            try made.commit(MadeRepository.files(6))
            try made.commit(MadeRepository.files(7), at: 1_700_000_200)
            let before = try Self.lines(made)
            let crashing = CrashingStore(made.store, crashAt: step)
            let opened = try? Repository.open(
                store: crashing, location: "memory", credential: .identities([made.owner]),
                needsOwner: true,
                directories: made.directories)
            if let opened {
                _ = try? RepairIndex(
                    repository: opened, monitor: SilentMonitor(), cancellation: Cancellation()
                ).run()
            }
            let after = try Self.lines(made)
            #expect(before.allSatisfy { after.contains($0) }, "step \(step)")
            made.dropCache()
            #expect(try VerifyTests.run(made).isSound, "step \(step)")
            #expect(try Self.repair(made).isSound)
            #expect(try Self.lines(made) == before)
            if !crashing.hasCrashed { break }
        }
    }

    @Test(
        "One failed read of a bundle costs no line: the repair stops, or finds the bytes by another line"
    )
    func failedRead() throws {
        for occurrence in 1... {
            let made = try MadeRepository()
            made.framesPerBundle = 8
            try made.commit(MadeRepository.files(6))
            let before = try Self.lines(made)
            let faulty = FaultyStore(
                made.store,
                faults: [
                    FaultyStore.Fault(.range, below: "bundles/", occurrence: occurrence, kind: .io)
                ])
            let opened = try Repository.open(
                store: faulty, location: "memory", credential: .identities([made.owner]),
                needsOwner: true,
                directories: made.directories)
            _ = try? RepairIndex(
                repository: opened, monitor: SilentMonitor(), cancellation: Cancellation()
            ).run()
            if !faulty.pending.isEmpty { break }
            let after = try Self.lines(made)
            #expect(before.allSatisfy { after.contains($0) }, "read \(occurrence)")
        }
    }

    @Test("Without an owner's identity nothing is touched")
    func needsOwner() throws {
        let made = try MadeRepository()
        try Self.fill(made)
        let before = made.store.contents
        let host = try made.open(asOwner: false)
        #expect {
            try RepairIndex(
                repository: host, monitor: SilentMonitor(), cancellation: Cancellation()
            ).run()
        } throws: { ($0 as? ReplicationError)?.kind == .repository(.wrongKey) }
        #expect(made.store.contents == before)
    }
}

extension SeededGenerator {
    fileprivate static func sample(_ count: Int) -> [UInt8] {
        var generator = SeededGenerator(seed: 77)
        return generator.bytes(count)
    }
}
