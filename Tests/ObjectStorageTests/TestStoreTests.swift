import ObjectStorage
import TestSupport
import Testing

@Suite("The stores that tests use")
struct TestStoreTests {
    private func key(_ text: String) -> ObjectKey { ObjectKey(validated: text) }

    @Test("A recording store counts calls, bytes and requests")
    func recording() throws {
        let memory = MemoryStore()
        for index in 0..<2_500 { memory.plant([], at: key("many/\(index)")) }
        let store = RecordingStore(memory)
        try store.put([1, 2, 3], at: key("a/x"))
        _ = try store.get(key("a/x"))
        var two = [UInt8](repeating: 0, count: 2)
        _ = try two.withUnsafeMutableBytes { try store.get(key("a/x"), range: 1..<3, into: $0) }
        #expect(two == [2, 3])
        _ = try store.list(prefix: "many/")
        _ = try? store.get(key("none"))
        #expect(store.counts == [.put: 1, .get: 2, .range: 1, .list: 1])
        #expect(store.requests == 7)
        #expect(store.bytesPut == 3)
        #expect(store.bytesRead == 5)
        #expect(store.count(of: .get, below: "a/") == 1)
        #expect(store.calls.last?.failed == true)
        #expect(store.reset().count == 5)
        #expect(store.calls == [])
    }

    @Test("A fault happens where the script says, and says whether it has")
    func faults() throws {
        let memory = MemoryStore()
        let store = FaultyStore(
            memory,
            faults: [
                .init(.put, below: "bundles/", occurrence: 2, .after, isTransient: true),
                .init(.get, kind: .denied), .init(.delete),
            ])
        try store.put([1], at: key("bundles/1"))
        try store.put([1], at: key("index/1"))
        let lost = #expect(throws: StorageError.self) { try store.put([2], at: key("bundles/2")) }
        #expect(lost?.isTransient == true)
        #expect(memory.bytes(key("bundles/2")) == [2])
        let denied = #expect(throws: StorageError.self) { try store.get(key("index/1")) }
        #expect(denied?.kind == .denied)
        #expect(try store.get(key("index/1")) == [1])
        #expect(store.firedCount == 2)
        #expect(store.pending.map(\.operation) == [.delete])
    }

    @Test("After a crash nothing succeeds any more")
    func crashFault() throws {
        let store = FaultyStore(MemoryStore(), faults: [.init(.put, isCrash: true)])
        #expect(try store.list(prefix: "") == [])
        #expect(throws: StorageError.self) { try store.put([1], at: key("a")) }
        #expect(throws: StorageError.self) { try store.list(prefix: "") }
        #expect(throws: StorageError.self) { try store.put([1], at: key("a")) }
    }

    @Test("A crashing store stops at each of its calls in turn", arguments: [true, false])
    func crashing(writesOnly: Bool) throws {
        func work(_ store: CrashingStore) {
            for index in 0..<3 {
                guard (try? store.put([1], at: key("\(index)"))) != nil else { return }
                guard (try? store.head(key("\(index)"))) != nil else { return }
            }
        }
        let whole = CrashingStore(MemoryStore(), crashAt: nil, writesOnly: writesOnly)
        work(whole)
        #expect(whole.operations == (writesOnly ? 3 : 6))
        #expect(!whole.hasCrashed)
        for number in 1...whole.operations {
            for timing in [FaultyStore.Fault.Timing.before, .after] {
                let memory = MemoryStore()
                let store = CrashingStore(memory, crashAt: number, timing, writesOnly: writesOnly)
                work(store)
                #expect(store.hasCrashed)
                let puts = writesOnly ? number : (number + 1) / 2
                let isPut = writesOnly || number % 2 == 1
                #expect(memory.keys.count == puts - (isPut && timing == .before ? 1 : 0))
            }
        }
    }

    @Test("The seeded generator gives the published numbers of SplitMix64")
    func generator() {
        var generator = SeededGenerator(seed: 1_234_567)
        #expect(
            (0..<5).map { _ in generator.next() } == [
                6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423,
                4_593_380_528_125_082_431, 16_408_922_859_458_223_821,
            ])
        #expect(generator.bytes(13).count == 13)
        #expect(generator.text(1_000).count == 1_000)
    }

    @Test("A model of the disk keeps what was synchronised and loses the rest in every way")
    func powerLoss() {
        var model = PowerLoss()
        model.apply(.createFile("a"))
        model.apply(.write("a", offset: 0, bytes: [1, 2, 3, 4]))
        // The name may be there or not; the bytes none, all, half or zeros.
        #expect(
            Set(model.images().map { $0.bytes(at: "a") }) == [
                nil, [], [1, 2, 3, 4], [1, 2], [0, 0, 0, 0],
            ])
        model.apply(.synchronizeDirectory(""))
        #expect(Set(model.images().map { $0.bytes(at: "a") }).contains(nil) == false)
        model.apply(.synchronizeFile("a"))
        #expect(model.images().map { $0.bytes(at: "a") } == [[1, 2, 3, 4]])
        model.apply(.makeDirectory("d"))
        model.apply(.rename("a", to: "d/b"))
        // Three names in doubt: d, d/b and the removal of a.
        let paths = Set(model.images().map(\.paths))
        #expect(
            paths == [
                ["a"], [], ["a", "d/"], ["d/"], ["a", "d/", "d/b"], ["d/", "d/b"],
            ])
        model.apply(.synchronizeDirectory("d"))
        model.apply(.synchronizeDirectory(""))
        #expect(model.images().map(\.paths) == [["d/", "d/b"]])
    }

    @Test("A temporary directory is gone with its last reference")
    func temporaryDirectory() {
        var directory: TemporaryDirectory? = TemporaryDirectory()
        let path = directory!.path
        directory?.write([1], to: "file", mode: 0o400)
        makeDirectory("\(path)/d", mode: 0o500)
        #expect(directory?.contents() == ["d/", "file"])
        #expect(directory?.read("file") == [1])
        #expect(directory?.read("none") == nil)
        directory = nil
        #expect(treeContents(path) == [])
        #expect(readFile(path) == nil)
    }
}
