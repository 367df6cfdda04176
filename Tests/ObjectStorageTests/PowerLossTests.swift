import CSystem
import ObjectStorage
import TestSupport
import Testing

/// What must hold after a loss of power: from the call at which it returned on, an operation's
/// effect.
private struct Promise {
    let operations: Int
    let key: ObjectKey
    /// Nil after a delete.
    let bytes: [UInt8]?
}

@Suite("The directory store, when the power fails")
struct PowerLossTests {
    /// Puts and deletes of all sorts, recorded; `base` is the directory above the store.
    private struct Recording {
        let log: [FileOperation]
        let promises: [Promise]

        init() throws {
            let directory = TemporaryDirectory.inMemory()
            let operations = RecordingFileOperations(watching: directory.path)
            let store = try LocalStore.create(at: directory.path("store"), operations: operations)
            var promises: [Promise] = []
            var generator = SeededGenerator(seed: 7)

            func put(_ name: String, _ size: Int, spooled: Bool = false) throws {
                let bytes = generator.bytes(size)
                let key = ObjectKey(validated: name)
                if spooled {
                    let spool = try store.makeSpool()
                    for part in stride(from: 0, to: size, by: 100) {
                        try spool.append(Array(bytes[part..<min(size, part + 100)]))
                    }
                    try store.put(ObjectContent(file: spool, digest: sha256(bytes)), at: key)
                } else {
                    try store.put(bytes, at: key)
                }
                let done = operations.operations.count
                promises.append(Promise(operations: done, key: key, bytes: bytes))
            }
            func delete(_ name: String) throws {
                let key = ObjectKey(validated: name)
                try store.delete(key)
                let done = operations.operations.count
                promises.append(Promise(operations: done, key: key, bytes: nil))
            }

            try put("config.json", 40)
            try put("bundles/ab/one", 300, spooled: true)
            try put("bundles/ab/two", 250, spooled: true)
            try put("bundles/cd/three", 50)
            try delete("bundles/ab/one")
            try put("snapshots/four", 20)
            try delete("snapshots/four")
            log = operations.operations
            self.promises = promises
        }
    }

    @Test("What a call promised is there in every state of the disk from then on")
    func promisesHold() throws {
        let recording = try Recording()
        #expect(violations(recording.log, recording.promises) == [])
    }

    @Test("Without any one of its synchronisations a promise is broken")
    func everySynchronisationIsNeeded() throws {
        let recording = try Recording()
        let synchronisations = recording.log.indices.filter { recording.log[$0].isSynchronization }
        #expect(synchronisations.count >= 15)
        for index in synchronisations {
            var log = recording.log
            let removed = log.remove(at: index)
            let promises = recording.promises.map {
                Promise(
                    operations: $0.operations > index ? $0.operations - 1 : $0.operations,
                    key: $0.key, bytes: $0.bytes)
            }
            // An object that is overtaken by its own delete has nothing left to lose, so each
            // promise is looked at up to the next one about the same key.
            #expect(violations(log, promises) != [], "\(removed), number \(index), is not needed")
        }
    }

    @Test("Every state of the disk opens as a store of whole objects without debris")
    func everyStateOpens() throws {
        let recording = try Recording()
        let known = Dictionary(
            grouping: recording.promises.filter { $0.bytes != nil }, by: \.key)
        var states = 0
        var withDebris = 0
        try forEachPowerLoss(in: recording.log) { operations, directory in
            states += 1
            guard directory.contents().contains("store/") else { return }
            let store = try LocalStore.open(at: directory.path("store"))
            let objects = try store.list(prefix: "")
            if !treeContents(directory.path("store/+tmp")).isEmpty { withDebris += 1 }
            for object in objects {
                let bytes = try store.get(object.key)
                #expect(known[object.key]?.first?.bytes == bytes, "\(object.key) at \(operations)")
            }
            // Whatever was lost can be put again.
            if let (key, promise) = known.first, let bytes = promise.first?.bytes {
                try store.put(bytes, at: key)
                #expect(try store.get(key) == bytes)
            }
        }
        #expect(states > 100)
        #expect(withDebris == 0)
    }

    @Test("Directories that another process made and never synchronised are synchronised for it")
    func othersDirectories() throws {
        let directory = TemporaryDirectory.inMemory()
        let operations = RecordingFileOperations(watching: directory.path)
        let store = try LocalStore.create(at: directory.path("store"), operations: operations)
        let other = try LocalStore.open(
            at: directory.path("store"), operations: CarelessOperations(operations))
        let bytes = [UInt8](repeating: 9, count: 100)
        try other.put(bytes, at: ObjectKey(validated: "bundles/ab/first"))
        let key = ObjectKey(validated: "bundles/ab/second")
        try store.put(bytes, at: key)
        let done = operations.operations.count
        let promise = Promise(operations: done, key: key, bytes: bytes)
        #expect(violations(operations.operations, [promise]) == [])
    }

    @Test("A directory that others removed and made again in mid-put is synchronised anew")
    func remadeDirectory() throws {
        let directory = TemporaryDirectory.inMemory()
        let recording = RecordingFileOperations(watching: directory.path)
        let renames = Counter()
        let parent = directory.path("store/bundles")
        let operations = FaultyFileOperations(base: recording) { _, call in
            if call == .renameWithoutReplacing && renames.next() == 2 {
                let bundles = csys_open(parent, CSYS_O_DIRECTORY, 0)
                #expect(recording.removeDirectory(in: bundles, named: "ab") == 0)
                #expect(recording.makeDirectory(in: bundles, named: "ab", mode: 0o700) == 0)
                #expect(csys_close(bundles) == 0)
            }
            return .pass
        }
        let store = try LocalStore.create(at: directory.path("store"), operations: operations)
        let bytes = [UInt8](repeating: 7, count: 100)
        let (first, second) = (
            ObjectKey(validated: "bundles/ab/first"), ObjectKey(validated: "bundles/ab/second")
        )
        try store.put(bytes, at: first)
        try store.delete(first)
        try store.put(bytes, at: second)
        #expect(renames.value == 3)
        let done = recording.operations.count
        let promise = Promise(operations: done, key: second, bytes: bytes)
        #expect(violations(recording.operations, [promise]) == [])
    }

    @Test("An object found in place counts as stored only after it was synchronised")
    func othersObject() throws {
        let directory = TemporaryDirectory.inMemory()
        let operations = RecordingFileOperations(watching: directory.path)
        // A process that leaves out every synchronisation, as if killed before each of them took
        // effect, and then a second one that finds the object in its place.
        let careless = try LocalStore.create(
            at: directory.path("store"), operations: CarelessOperations(operations))
        let key = ObjectKey(validated: "bundles/ab/object")
        let bytes = [UInt8](repeating: 8, count: 100)
        try careless.put(bytes, at: key)
        var model = PowerLoss()
        // The store's own directory is not what this is about.
        var log = operations.operations
        let storeMade = try #require(log.firstIndex(of: .makeDirectory("store")))
        log.insert(.synchronizeDirectory(""), at: storeMade + 1)
        for operation in log { model.apply(operation) }
        let path = "store/\(key)"
        #expect(model.images().contains { $0.bytes(at: path) == nil })
        #expect(model.images().contains { $0.bytes(at: path)?.isEmpty == true })

        let store = try LocalStore.open(at: directory.path("store"), operations: operations)
        try store.put(bytes, at: key)
        for operation in operations.operations.dropFirst(log.count - 1) { model.apply(operation) }
        #expect(model.images().allSatisfy { $0.bytes(at: path) == bytes })
    }

    // MARK: -

    /// Each promise that some state of the disk breaks, as text.
    private func violations(_ log: [FileOperation], _ promises: [Promise]) -> Set<String> {
        var found: Set<String> = []
        var model = PowerLoss()
        for count in 0...log.count {
            if count > 0 { model.apply(log[count - 1]) }
            let due = promises.enumerated().filter { index, promise in
                // Until the call after it, which may be about the same key, has begun.
                let next = promises[(index + 1)...].first { $0.key == promise.key }
                let previous = next.flatMap { next in
                    promises.last { $0.operations < next.operations }
                }
                return promise.operations <= count && count <= previous?.operations ?? .max
            }
            guard !due.isEmpty else { continue }
            for image in model.images() {
                for (_, promise) in due
                where image.bytes(at: "store/\(promise.key)") != promise.bytes {
                    found.insert("\(promise.key) \(promise.bytes == nil ? "is back" : "is lost")")
                }
            }
        }
        return found
    }
}
