import AgeEncryption
import ObjectStorage
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

/// Thousands of files that were nearly right: an error each, or a value that keeps its bounds.
@Suite("Hostile bytes in the small files")
struct HostileFileTests {
    @Test(
        "config.json, mutated, is an error of this room or a configuration within its bounds",
        arguments: 0..<10)
    func config(seed: Int) throws {
        var generator = SeededGenerator(seed: UInt64(seed))
        let fixture = try RepositoryFixture.plain()
        let key = ObjectKey("config.json")!
        let sound = fixture.store.bytes(key)!
        for _ in 0..<400 {
            fixture.store.plant(mutation(of: sound, &generator), at: key)
            do throws(RepositoryError) {
                let (config, _) = try Repository.readConfig(store: fixture.store, location: "s")
                #expect(config.chunker.minimum >= 64 && config.chunker.maximum <= 16 << 20)
                #expect(config.graceSeconds >= 0 && config.graceSeconds < Int.max / 1_000_000_000)
            } catch {
                #expect([.damaged, .newerFormat].contains(error.kind))
                #expect(!error.remedy.isEmpty)
            }
        }
        for length in 0..<(sound.count - 1) {
            fixture.store.plant(Array(sound[..<length]), at: key)
            #expect(
                failure { _ = try Repository.readConfig(store: fixture.store, location: "s") }?.kind
                    == .damaged)
        }
        fixture.store.plant(Array(repeating: 0x20, count: 2 << 20), at: key)
        #expect(
            failure { _ = try Repository.readConfig(store: fixture.store, location: "s") }?.kind
                == .storage)
    }

    @Test(
        "A host's file, mutated, is an error that names the file, or a host's file",
        arguments: 0..<10)
    func host(seed: Int) throws {
        var generator = SeededGenerator(seed: UInt64(seed) &+ 100)
        let host = HostConfiguration(
            repository: RepositoryID(1, 2, 3, 4), configDigest: RecordID(5, 6, 7, 8),
            identity: X25519Identity(), recipientNumber: 3,
            owners: [X25519Identity().recipient, X25519Identity().recipient])
        for _ in 0..<300 {
            do throws(RepositoryError) {
                let read = try HostConfiguration(
                    parsing: mutation(of: host.bytes, &generator), path: "the file")
                #expect(try HostConfiguration(parsing: read.bytes, path: "").bytes == read.bytes)
            } catch {
                #expect(error.kind == .local && error.subject == "the file")
                #expect(!error.description.contains("AGE-SECRET-KEY"))
            }
        }
    }

    @Test(
        "A mutated recipient set is passed over and named, or it says what it said before",
        arguments: 0..<10)
    func recipients(seed: Int) throws {
        var generator = SeededGenerator(seed: UInt64(seed) &+ 200)
        let fixture = try RepositoryFixture.withRecipient()
        let repository = try fixture.open()
        let owner = fixture.owner!.recipient
        let proven = try #require(
            fixture.keys("keys/recipients-").first {
                KeyTests.contains(fixture.store.bytes($0)!, Array("\"proofs\":[{".utf8))
            })
        let sound = fixture.store.bytes(proven)!
        for key in fixture.keys("keys/recipients-") { try? fixture.store.delete(key) }
        let keys = RepositoryKeys(of: repository)
        for _ in 0..<150 {
            let bytes = mutation(of: sound, &generator)
            let key = ObjectKey("keys/recipients-1-\(digest(bytes)).json")!
            fixture.store.plant(bytes, at: key)
            let (sets, refused) = try keys.recipientSets(try keys.list())
            #expect(sets.count + refused.count == 1)
            // Under the host key's MAC stands nothing that it did not write.
            #expect(sets.allSatisfy { $0.owners == [owner] && $0.number == 1 })
            if let opened = try? fixture.openAsOwner(on: HostPlaces()) {
                #expect(opened.access.recipients == [owner])
            }
            try fixture.store.delete(key)
        }
        // A number that could not be counted up is none.
        let text = String(decoding: sound, as: UTF8.self).replacing(
            "\"number\":1,", with: "\"number\":9223372036854775807,")
        TamperTests.plantSet(Array(text.utf8), number: .max, in: fixture)
        #expect(try keys.recipientSets(try keys.list()).sets.isEmpty)
    }

    @Test(
        "A mutated snapshot is an error that names it, or a snapshot within its bounds",
        arguments: 0..<10)
    func snapshot(seed: Int) throws {
        var generator = SeededGenerator(seed: UInt64(seed) &+ 300)
        var snapshot = Snapshot(
            time: RepositoryFixture.time, host: "h", roots: [Array("/a".utf8), [0x2F, 0xFF]],
            program: "p")
        snapshot.manifestIDs = [ChunkID(1, 2, 3, 4)]
        snapshot.problemCount = 1
        snapshot.problemIDs = [ChunkID(5, 6, 7, 8)]
        snapshot.fileSystems = [FileSystemName(type: "ext4", source: "x", uuid: nil)]
        snapshot.tags = ["t"]
        let name = RecordName(
            type: .snapshot, utc: snapshot.time.compactUTC, id: RecordID(1, 1, 1, 1))
        let sound = snapshot.json.bytes
        #expect(
            try Snapshot(name: name, json: #require(JSONValue(parsing: sound)), key: "k").json
                == snapshot.json)
        for _ in 0..<600 {
            guard let value = JSONValue(parsing: mutation(of: sound, &generator)) else { continue }
            do throws(RepositoryError) {
                let read = try Snapshot(name: name, json: value, key: "the snapshot")
                #expect((1...ManifestLimits.levelsMaximum).contains(read.manifestDepth))
                #expect(read.time.compactUTC == name.utc)
            } catch {
                #expect(error.subject == "the snapshot")
                #expect([.damaged, .newerFormat].contains(error.kind))
            }
        }
    }

    @Test("Mutated lists of problems are refused or read", arguments: 0..<5)
    func problems(seed: Int) {
        var generator = SeededGenerator(seed: UInt64(seed) &+ 400)
        let out = ByteBuffer()
        let problems = [
            SnapshotProblem(path: Array("/a".utf8), kind: .vanished, message: "m"),
            SnapshotProblem(path: [0xFF], kind: .lost, message: ""),
        ]
        for problem in problems { problem.write(to: out) }
        #expect(SnapshotProblem.read(out.bytes) == problems)
        for _ in 0..<800 {
            let bytes = mutation(of: out.array, &generator)
            if let read = bytes.withUnsafeBytes({ SnapshotProblem.read($0) }) {
                #expect(read.count * 20 <= bytes.count)
            }
        }
    }

    @Test(
        "A record's bytes, mutated anywhere or cut short, never give a payload",
        arguments: [true, false])
    func records(isEncrypted: Bool) throws {
        var generator = SeededGenerator(seed: 500)
        let fixture =
            try isEncrypted ? RepositoryFixture.withRecipient() : RepositoryFixture.plain()
        let repository = try fixture.open()
        let name = try repository.putRecord(
            .mark, time: RepositoryFixture.time,
            .object([
                ("time", .string(RepositoryFixture.time.text)),
                ("host", .string(String(repeating: "h", count: 300))),
            ]))
        let sound = try #require(fixture.store.bytes(ObjectKey(repository.recordKey(name))!))
        let payload = try repository.openRecord(name, bytes: sound)
        for _ in 0..<1500 {
            let bytes = mutation(of: sound, &generator)
            if bytes == sound { continue }
            #expect(failure { _ = try repository.openRecord(name, bytes: bytes) }?.kind == .damaged)
            // Under a name of its own it gets further, and still says nothing else.
            let renamed = RecordName(type: .mark, utc: name.utc, id: digest(bytes))
            if let opened = try? repository.openRecord(renamed, bytes: bytes) {
                #expect(opened == payload || !isEncrypted)
            }
        }
    }
}
