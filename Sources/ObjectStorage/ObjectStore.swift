/// Named, immutable bytes somewhere: the contract that every store keeps.
///
/// Promises asked of a store:
/// - A put is all or nothing: until it returns nobody sees a part of the object, and once it has
///   returned the object survives a loss of power and is seen by every get, head and list.
/// - A key is written once. Putting the same length again succeeds without effect, so a put whose
///   answer was lost can be repeated; another length fails with `.exists` and changes nothing.
/// - A listing gives each key once, in byte order, with its length. An object that is there during
///   the whole listing is in it.
/// - Deleting what is not there is no error, and a delete that has returned is as durable as a put.
///
/// Every call blocks until it is done and may be made from any number of threads at once. Every
/// call throws a `StorageError` and nothing else; its `isTransient` says whether another attempt
/// may help. `StoreConformance` checks all of this against a living store.
package protocol ObjectStore: Sendable {
    /// What this store can do beyond the contract. Constant over the life of the store, but for
    /// `keepsDeleted`.
    var capabilities: StoreCapabilities { get }

    /// Stores the whole of `content` under `key` and returns once the store has promised to keep
    /// it.
    ///
    /// A spool file that this store itself made is moved into place where that is possible; it must
    /// not be appended to afterwards. A put that failed may be repeated with the same content.
    ///
    /// - Throws: `.exists` where the key holds an object of another length.
    func put(_ content: ObjectContent, at key: ObjectKey) throws(StorageError)

    /// Gives the whole object.
    ///
    /// - Throws: `.notFound`; `.tooLarge` where it is longer than `maximumBytes`, before anything
    ///   is allocated.
    func get(_ key: ObjectKey, maximumBytes: Int) throws(StorageError) -> [UInt8]

    /// Reads the bytes of `range` into the beginning of `buffer`, which must be large enough, and
    /// gives their count: less than asked for only where the object ends, 0 from its end on.
    ///
    /// - Throws: `.notFound`.
    func get(
        _ key: ObjectKey, range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(StorageError) -> Int

    /// Says what is stored under `key`, or nil where there is nothing.
    func head(_ key: ObjectKey) throws(StorageError) -> StoredObject?

    /// Hands every object whose key begins with `prefix` to `body`, in byte order of the keys,
    /// until `body` gives false. `prefix` is empty or ends with `/`. A prefix below which nothing
    /// lies is no error.
    func list(prefix: String, _ body: (StoredObject) -> Bool) throws(StorageError)

    /// The same for those objects only whose keys come behind `last`: the rest of a listing that was
    /// broken off. A store that can begin there reads nothing before it.
    func list(
        prefix: String, after last: ObjectKey?, _ body: (StoredObject) -> Bool
    ) throws(StorageError)

    /// Removes the object, durably. A missing one is no error.
    func delete(_ key: ObjectKey) throws(StorageError)

    /// Removes the objects, durably, in as few requests as the store can, and hands each that it
    /// could not remove to `failed`. Missing ones are no error. One that the store keeps on purpose,
    /// because it is under a retention, is among those and stays visible.
    func delete(_ keys: [ObjectKey], _ failed: (ObjectKey, StorageError) -> Void)

    /// Makes an empty spool file in the place that suits this store best.
    func makeSpool() throws(StorageError) -> SpoolFile

    /// The time by the store's own clock, in seconds since 1970: the clock that `modified` is told
    /// by.
    func currentTime() throws(StorageError) -> Int64

    /// Hands the SHA-256 that the store itself computes of each object's bytes now to `body`, in any
    /// order, without the bytes coming here. A missing object is left out.
    ///
    /// - Throws: `.unsupported` where the store cannot compute (see `remoteDigests`).
    func digests(
        of keys: [ObjectKey], _ body: (ObjectKey, [UInt8]) -> Bool
    ) throws(StorageError)

    /// Removes the directory `prefix` and those below it as far as nothing lies in them, where a
    /// store has directories. Never fails: an empty directory does no harm.
    func removeEmptyDirectories(below prefix: String)

    /// Told by whoever knows what the bytes of an object must be: what came of one at first was
    /// something else, and what came when it was fetched once more was right. Changes nothing; it is
    /// counted.
    func noteAlteredTransfer()
}

extension ObjectStore {
    /// Gives the whole object, however large it is.
    package func get(_ key: ObjectKey) throws(StorageError) -> [UInt8] {
        try get(key, maximumBytes: .max)
    }

    /// Every object whose key begins with `prefix`, in byte order of the keys.
    package func list(prefix: String) throws(StorageError) -> [StoredObject] {
        var objects: [StoredObject] = []
        try list(prefix: prefix) { object in
            objects.append(object)
            return true
        }
        return objects
    }

    package func list(
        prefix: String, after last: ObjectKey?, _ body: (StoredObject) -> Bool
    ) throws(StorageError) {
        guard let last else { return try list(prefix: prefix, body) }
        try list(prefix: prefix) { object in object.key <= last || body(object) }
    }

    package func delete(_ keys: [ObjectKey], _ failed: (ObjectKey, StorageError) -> Void) {
        for key in keys {
            do throws(StorageError) {
                try delete(key)
            } catch {
                failed(key, error)
            }
        }
    }

    package func removeEmptyDirectories(below prefix: String) {}

    package func noteAlteredTransfer() {}

    package func digests(
        of keys: [ObjectKey], _ body: (ObjectKey, [UInt8]) -> Bool
    ) throws(StorageError) {
        throw StorageError(
            .unsupported, .head, location: "", cause: "this store computes no digests")
    }
}

/// What a store can do beyond the contract, so that callers choose the cheaper way.
package struct StoreCapabilities: Sendable, Equatable {
    /// Two puts of one key at the same moment: the store itself sees to it that one of them loses.
    package var conditionalPut: Bool
    /// A range is read without reading the rest.
    package var rangedReads: Bool
    /// `StoredObject.md5` is known to be there in listings, so that a listing alone can prove an
    /// object.
    package var listingShowsMD5: Bool
    /// `StoredObject.modified` is there.
    package var listingShowsTime: Bool
    /// The store is a file system of this host: a read costs microseconds, not a round trip.
    package var isLocal: Bool
    /// `digests(of:)` works: the store computes SHA-256 sums where the objects lie.
    package var remoteDigests = false
    /// `StoredObject.sha256` is there when one key is asked for.
    package var headShowsSHA256 = false
    /// The digests of an object go to the service with it, so that it can refuse what arrives
    /// damaged.
    package var sendsDigests = false
    /// What is deleted is kept as an older version, and takes space until somebody removes that.
    /// Known for sure once something was deleted.
    package var keepsDeleted = false
    /// Another object is refused where a key is taken. Elsewhere that names are digests of what they
    /// name has to do.
    package var refusesReplacement = true

    package init(
        conditionalPut: Bool, rangedReads: Bool, listingShowsMD5: Bool, listingShowsTime: Bool,
        isLocal: Bool
    ) {
        self.conditionalPut = conditionalPut
        self.rangedReads = rangedReads
        self.listingShowsMD5 = listingShowsMD5
        self.listingShowsTime = listingShowsTime
        self.isLocal = isLocal
    }
}
