/// The contract of `ObjectStore`, promise by promise, tried on a living store.
///
/// The tests of every store run it, and so does `batchsync store check`, by which a user proves her
/// own server. It works below a prefix that nobody else uses and removes everything it put there.
package struct StoreConformance: Sendable {
    /// What a store promises. The raw value names it in messages and in JSON.
    package enum Promise: String, CaseIterable, Sendable {
        case readAfterWrite = "read-after-write"
        case sizes
        case spooled = "put-from-spool"
        case head
        case missing = "missing-objects"
        case bounded = "bounded-get"
        case ranges
        case idempotentPut = "idempotent-put"
        case writtenOnce = "written-once"
        case idempotentDelete = "idempotent-delete"
        case legalKeys = "legal-keys"
        case listing
        case listingPrefixes = "listing-prefixes"
        case threads
        case atomicPut = "atomic-put"
        case racingPuts = "racing-puts"
        case clock
        case cleanUp = "clean-up"

        /// The promise in words.
        package var claim: String {
            switch self {
            case .readAfterWrite: "what was put is read back, byte for byte, at once"
            case .sizes: "objects from no byte to 5 MB are kept as they are"
            case .spooled: "an object can be put from a spool file, more than once"
            case .head: "an object's length and time are told without reading it"
            case .missing: "an object that is not there is said not to be there"
            case .bounded: "an object larger than expected is refused"
            case .ranges: "any range of an object is read, shorter only at its end"
            case .idempotentPut: "putting the same object again succeeds"
            case .writtenOnce: "an object is never replaced by another"
            case .idempotentDelete: "deleting takes effect at once, and twice is no error"
            case .legalKeys: "every legal name can be put, read, listed and deleted"
            case .listing: "a listing of many names gives each once, in order, with its length"
            case .listingPrefixes: "a listing keeps to its prefix and stops when told to"
            case .threads: "many threads may use the store at once"
            case .atomicPut: "nobody sees a part of an object that is being put"
            case .racingPuts: "of several puts of one object at once none fails"
            case .clock: "the store's clock agrees with the times of new objects"
            case .cleanUp: "everything that was put can be removed again"
            }
        }
    }

    package enum Verdict: Sendable, Equatable {
        case kept
        case broken(String)
        case skipped(String)
    }

    package struct Outcome: Sendable {
        package let promise: Promise
        package let verdict: Verdict
    }

    /// How a promise was broken; ends the examination of that promise.
    struct Broken: Error {
        let how: String
        init(_ how: String) { self.how = how }
    }

    let store: any ObjectStore
    /// Ends with a slash.
    let prefix: String
    /// How many objects are put in order to see more than one page of a listing.
    let listedObjects: Int
    private let digest: @Sendable ([UInt8]) -> [UInt8]

    /// - Parameter prefix: Where to work, ending with `/`; nothing may lie below it.
    /// - Parameter listedObjects: More than the 1,000 that S3 gives in one page, unless each put
    ///   costs too much.
    /// - Parameter digest: SHA-256, which some stores are sent with each object.
    package init(
        of store: any ObjectStore, prefix: String, listedObjects: Int = 1_100,
        digest: @escaping @Sendable ([UInt8]) -> [UInt8]
    ) {
        precondition(prefix.count > 1 && ObjectKey.isDirectoryPrefix(prefix))
        self.store = store
        self.prefix = prefix
        self.listedObjects = listedObjects
        self.digest = digest
    }

    /// Examines every promise in turn and hands each outcome to `report` as soon as it is known.
    ///
    /// - Returns: Whether none was broken.
    package func run(_ report: (Outcome) -> Void) -> Bool {
        var isKept = true
        for promise in Promise.allCases {
            let verdict = examine(promise)
            if case .broken = verdict { isKept = false }
            report(Outcome(promise: promise, verdict: verdict))
        }
        return isKept
    }

    private func examine(_ promise: Promise) -> Verdict {
        do throws(Broken) {
            switch promise {
            case .readAfterWrite: try checkReadAfterWrite()
            case .sizes: try checkSizes()
            case .spooled: try checkSpooled()
            case .head: try checkHead()
            case .missing: try checkMissing()
            case .bounded: try checkBounded()
            case .ranges: try checkRanges()
            case .idempotentPut: try checkIdempotentPut()
            case .writtenOnce:
                guard store.capabilities.refusesReplacement else {
                    return .skipped(
                        "the store takes another object under the same name; names are digests, so none comes"
                    )
                }
                try checkWrittenOnce()
            case .idempotentDelete: try checkIdempotentDelete()
            case .legalKeys: try checkLegalKeys()
            case .listing: try checkListing()
            case .listingPrefixes: try checkListingPrefixes()
            case .threads: try checkThreads()
            case .atomicPut: try checkAtomicPut()
            case .racingPuts:
                guard store.capabilities.conditionalPut else {
                    return .skipped("the store cannot tell puts that race with one another")
                }
                try checkRacingPuts()
            case .clock:
                guard store.capabilities.listingShowsTime else {
                    return .skipped("the store does not tell when an object was put")
                }
                try checkClock()
            case .cleanUp: try cleanUp()
            }
            return .kept
        } catch {
            return .broken(error.how)
        }
    }

    // MARK: - What the checks are made of

    func key(_ name: String) -> ObjectKey { ObjectKey(validated: prefix + name) }

    /// Bytes that look like nothing else: a simple generator begun from `seed`.
    func sample(_ count: Int, seed: Int) -> [UInt8] {
        var state = UInt64(bitPattern: Int64(seed)) &* 0x9e37_79b9_7f4a_7c15 | 1
        return [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            let bytes = UnsafeMutableRawBufferPointer(buffer)
            var index = 0
            while index < count {
                state ^= state << 13
                state ^= state >> 7
                state ^= state << 17
                if index + 8 <= count {
                    bytes.storeBytes(of: state.littleEndian, toByteOffset: index, as: UInt64.self)
                    index += 8
                } else {
                    bytes[index] = UInt8(truncatingIfNeeded: state >> 24)
                    index += 1
                }
            }
            initialized = count
        }
    }

    func content(_ bytes: [UInt8]) -> ObjectContent {
        ObjectContent(bytes: bytes, digest: digest(bytes))
    }

    func spooled(_ bytes: [UInt8]) throws(Broken) -> ObjectContent {
        let spool = try attempt("making a spool file") { () throws(StorageError) in
            let spool = try store.makeSpool()
            // In uneven pieces, as a bundle is made.
            var rest = bytes[...]
            while !rest.isEmpty {
                try spool.append([UInt8](rest.prefix(70_001)))
                rest = rest.dropFirst(70_001)
            }
            return spool
        }
        return ObjectContent(file: spool, digest: digest(bytes))
    }

    func put(_ content: ObjectContent, _ name: String) throws(Broken) {
        try attempt("put of \(name)") { () throws(StorageError) in
            try store.put(content, at: key(name))
        }
    }

    func expect(_ bytes: [UInt8], at name: String, _ when: String = "") throws(Broken) {
        let read = try attempt("get of \(name)") { () throws(StorageError) in
            try store.get(key(name))
        }
        try require(read == bytes, "\(name) reads differently from what was put\(when)")
    }

    /// Runs what has to succeed.
    func attempt<R>(_ what: String, _ body: () throws(StorageError) -> R) throws(Broken) -> R {
        do throws(StorageError) {
            return try body()
        } catch {
            throw Broken("\(what) failed: \(error)")
        }
    }

    /// Runs what has to fail in one certain way.
    func expectFailure<R>(
        _ kind: StorageError.Kind, _ what: String, _ body: () throws(StorageError) -> R
    ) throws(Broken) {
        do throws(StorageError) {
            _ = try body()
        } catch {
            try require(
                error.kind == kind, "\(what) failed with \(error.kind) instead of \(kind): \(error)"
            )
            return
        }
        throw Broken("\(what) succeeded")
    }

    func require(_ condition: Bool, _ how: @autoclosure () -> String) throws(Broken) {
        if !condition { throw Broken(how()) }
    }
}
