import Glibc
import ObjectStorage
import Synchronization
import TestSupport
import Testing

@Suite("The contract of a store")
struct StoreContractTests {
    @Test("A store in memory keeps every promise")
    func memory() {
        let store = MemoryStore()
        #expect(StoreContract.run(store) == [])
        #expect(store.keys == [])
    }

    @Test("Stores around a store keep every promise")
    func decorators() {
        let store = RecordingStore(
            FaultyStore(CrashingStore(MemoryStore(), crashAt: nil), faults: []))
        #expect(StoreContract.run(store, listedObjects: 30) == [])
    }

    @Test("A store that breaks a promise is found out", arguments: Defect.allCases)
    func defects(defect: Defect) {
        let broken = StoreContract.run(DefectiveStore(defect), listedObjects: 30)
        #expect(!broken.isEmpty)
    }

    @Test("A name that is listed before its object can be read breaks no promise")
    func listedEarly() {
        let store = SlowStore(.nothing)
        #expect(StoreContract.run(store, listedObjects: 30) == [])
        #expect(store.wasCaughtInTheAct)
    }

    @Test(
        "An object that is seen in part or is lost after its put is found out",
        arguments: [SlowStore.Sight.part, .nothingEver])
    func seenInPart(sight: SlowStore.Sight) {
        let broken = StoreContract.run(SlowStore(sight), listedObjects: 30)
        let claim = StoreConformance.Promise.atomicPut.claim
        #expect(broken.contains { $0.hasPrefix(claim) }, "\(broken)")
    }

    @Test("Every promise can be told apart by its claim")
    func claims() {
        let claims = StoreConformance.Promise.allCases.map(\.claim)
        #expect(Set(claims).count == claims.count)
    }
}

/// What may be wrong with a store.
enum Defect: String, CaseIterable, Sendable {
    case overwrites, refusesRepeats, acceptsAnything, forgetsAfterDelete, listsUnsorted, listsTwice
    case listsOnePage, listsNeighbours, listsWrongLength, listsOn, rangePastEndFails, rangeOffByOne
    case missingIsEmpty, headFindsNothing, deleteFailsWhenMissing, deleteDoesNothing
    case ignoresMaximum, spoolsAreLost, altersLargeObjects, clockIsWrong, refusesDots
    case listsLastAgain
}

/// A store in memory with one thing wrong.
final class DefectiveStore: ObjectStore {
    private let base = MemoryStore()
    private let defect: Defect

    init(_ defect: Defect) { self.defect = defect }

    var capabilities: StoreCapabilities { base.capabilities }

    func put(_ content: ObjectContent, at key: ObjectKey) throws(StorageError) {
        var bytes: [UInt8]
        switch content.body {
        case .bytes(let inMemory): bytes = inMemory
        case .file(let file): bytes = try file.contents()
        }
        if case .file = content.body, defect == .spoolsAreLost { return }
        let existing = base.bytes(key)
        if existing != nil && defect == .acceptsAnything { return }
        if existing != nil && defect == .refusesRepeats { throw failure(.exists, key) }
        if defect == .refusesDots && key.name.first == "." { throw failure(.denied, key) }
        if defect == .altersLargeObjects && bytes.count > 1_000_000 { bytes[1_000_000] ^= 1 }
        if defect == .overwrites { return base.plant(bytes, at: key) }
        try base.put(bytes, at: key)
    }

    func get(_ key: ObjectKey, maximumBytes: Int) throws(StorageError) -> [UInt8] {
        if defect == .missingIsEmpty && base.bytes(key) == nil { return [] }
        return try base.get(
            key, maximumBytes: defect == .ignoresMaximum ? .max : maximumBytes)
    }

    func get(
        _ key: ObjectKey, range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(StorageError) -> Int {
        if defect == .rangePastEndFails, let bytes = base.bytes(key), range.upperBound > bytes.count
        {
            throw failure(.io, key)
        }
        let shifted = range.lowerBound + 1..<range.upperBound + 1
        return try base.get(key, range: defect == .rangeOffByOne ? shifted : range, into: buffer)
    }

    func head(_ key: ObjectKey) throws(StorageError) -> StoredObject? {
        defect == .headFindsNothing ? nil : try base.head(key)
    }

    func list(prefix: String, _ body: (StoredObject) -> Bool) throws(StorageError) {
        var found = try base.list(prefix: prefix)
        switch defect {
        case .listsUnsorted: found.reverse()
        case .listsTwice: found = found.flatMap { [$0, $0] }
        case .listsOnePage: found = Array(found.prefix(20))
        case .listsNeighbours:
            found = try base.list(prefix: "").filter { $0.key.text.hasPrefix(prefix.dropLast()) }
        case .listsWrongLength:
            found = found.map { StoredObject(key: $0.key, length: 1, modified: $0.modified) }
        default: break
        }
        for object in found where !body(object) && defect != .listsOn { return }
    }

    func list(
        prefix: String, after last: ObjectKey?, _ body: (StoredObject) -> Bool
    ) throws(StorageError) {
        guard let last else { return try list(prefix: prefix, body) }
        try list(prefix: prefix) { object in
            let isBefore = defect == .listsLastAgain ? object.key < last : object.key <= last
            return isBefore || body(object)
        }
    }

    func delete(_ key: ObjectKey) throws(StorageError) {
        if defect == .deleteFailsWhenMissing && base.bytes(key) == nil {
            throw failure(.notFound, key)
        }
        if defect == .deleteDoesNothing { return }
        if defect == .forgetsAfterDelete {
            for other in base.keys where other.directory == key.directory { try base.delete(other) }
        }
        try base.delete(key)
    }

    func makeSpool() throws(StorageError) -> SpoolFile { try base.makeSpool() }

    func currentTime() throws(StorageError) -> Int64 {
        try base.currentTime() + (defect == .clockIsWrong ? 3_600 : 0)
    }

    private func failure(_ kind: StorageError.Kind, _ key: ObjectKey) -> StorageError {
        StorageError(kind, .put, key: key, location: "a defective store", cause: "on purpose")
    }
}

/// A store in memory whose puts below `atomic/` end only when somebody has tried to read the object,
/// or no longer wants to.
final class SlowStore: StoreDecorator {
    /// What a reader sees of an object that is being put; it is listed at its full length.
    enum Sight: Sendable { case nothing, part, nothingEver }

    private struct State {
        var unfinished: ObjectKey?
        var wasRead = false
        var wasEverRead = false
    }

    let base: any ObjectStore
    private let sight: Sight
    private let state = Mutex(State())

    init(_ sight: Sight) {
        self.sight = sight
        base = MemoryStore()
    }

    var wasCaughtInTheAct: Bool { state.withLock(\.wasEverRead) }

    func perform(
        _ operation: StoreOperation, _ subject: String, _ effect: () throws(StorageError) -> Int
    ) throws(StorageError) {
        _ = try effect()
    }

    func put(_ content: ObjectContent, at key: ObjectKey) throws(StorageError) {
        try base.put(content, at: key)
        guard key.text.contains("/atomic/") else { return }
        state.withLock {
            $0.unfinished = key
            $0.wasRead = false
        }
        // A reader that has seen enough comes no more: the wait must end then too.
        let patience = ContinuousClock.now + .seconds(2)
        while !state.withLock(\.wasRead), ContinuousClock.now < patience { sched_yield() }
        if sight != .nothingEver { state.withLock { $0.unfinished = nil } }
    }

    func get(_ key: ObjectKey, maximumBytes: Int) throws(StorageError) -> [UInt8] {
        let isUnfinished = state.withLock {
            guard $0.unfinished == key else { return false }
            $0.wasRead = true
            $0.wasEverRead = true
            return true
        }
        let bytes = try base.get(key, maximumBytes: maximumBytes)
        guard isUnfinished else { return bytes }
        if sight == .part { return Array(bytes.prefix(bytes.count / 2)) }
        throw StorageError(.notFound, .get, key: key, location: "a slow store", cause: "on purpose")
    }
}
