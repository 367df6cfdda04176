/// What went wrong in a store, with which object, and what to do about it.
///
/// `kind` decides what the program does; everything else explains it to a person.
package struct StorageError: Error, Sendable, CustomStringConvertible {
    package enum Kind: String, Sendable, CaseIterable {
        /// There is no such object, or no such store.
        case notFound
        /// The key holds something else, or the place where a store was to be made is taken.
        case exists
        /// The store does not let this user or this key do it.
        case denied
        /// The store, or a quota in it, is full.
        case noSpace
        /// The store takes no writes.
        case readOnly
        /// Something that is no directory stands where one is needed.
        case notADirectory
        /// Reading or writing failed underneath.
        case io
        /// The store, or something it needs, cannot be reached now.
        case unavailable
        /// The object is larger than the caller, or than the store, accepts.
        case tooLarge
        /// Something that was there a moment ago has gone or has changed, which nothing of ours
        /// does.
        case lost
        /// The store or its file system cannot do what is needed.
        case unsupported
        /// Who answers cannot prove to be the store: its certificate or host key is not the
        /// expected one.
        case untrusted
    }

    /// What the store was asked to do.
    package enum Operation: String, Sendable, CaseIterable {
        case create, open, put, get, head, list, delete, spool, clock

        /// Finishes the words "cannot …".
        var verb: String {
            switch self {
            case .create: "create a store"
            case .open: "open the store"
            case .put: "store"
            case .get: "read"
            case .head: "look up"
            case .list: "list"
            case .delete: "delete"
            case .spool: "write a temporary file"
            case .clock: "ask for the time"
            }
        }
    }

    package let kind: Kind
    package let operation: Operation
    /// The object concerned, where there is one.
    package let key: ObjectKey?
    /// The store, or the path, as its user would name it.
    package let location: String
    /// What the layer below said, such as `No space left on device (write)`.
    package let cause: String
    /// Whether the same call may succeed when it is made again later.
    package let isTransient: Bool
    /// Whether the store said that it is asked too much: fewer calls at once would help.
    package let isOverload: Bool
    /// How long the store asked to be left alone, in seconds; nil where it did not say.
    package let retryAfterSeconds: Double?
    /// Until when the store keeps the object whatever anybody asks, in seconds since 1970 by its own
    /// clock; nil where nothing keeps it or the store did not say.
    package let retainedUntil: Int64?
    /// What its reader can do next, where the store knows better than the kind alone tells.
    private let hint: String?

    package init(
        _ kind: Kind, _ operation: Operation, key: ObjectKey? = nil, location: String,
        cause: String, isTransient: Bool = false, isOverload: Bool = false,
        retryAfterSeconds: Double? = nil, retainedUntil: Int64? = nil, hint: String? = nil
    ) {
        self.kind = kind
        self.operation = operation
        self.key = key
        self.location = location
        self.cause = cause
        self.isTransient = isTransient
        self.isOverload = isOverload
        self.retryAfterSeconds = retryAfterSeconds
        self.retainedUntil = retainedUntil
        self.hint = hint
    }

    /// The same error, with more to its cause.
    func adding(_ words: String) -> StorageError {
        StorageError(
            kind, operation, key: key, location: location, cause: "\(cause); \(words)",
            isTransient: isTransient, isOverload: isOverload,
            retryAfterSeconds: retryAfterSeconds, retainedUntil: retainedUntil, hint: hint)
    }

    /// One sentence: what could not be done to what, and why.
    package var description: String {
        let place = location.isEmpty ? "the store" : location
        guard let key else {
            let joint =
                operation == .spool || operation == .clock || operation == .list ? " in " : " at "
            return "cannot \(operation.verb)\(joint)\(place): \(cause)"
        }
        return "cannot \(operation.verb) \(key) in \(place): \(cause)"
    }

    /// One sentence: what its reader can do next.
    package var remedy: String {
        if let hint { return hint }
        return switch kind {
        case .notFound:
            key == nil
                ? "check the path or address; `batchsync init` makes a new repository"
                : "run `batchsync verify` to see what else is missing"
        case .exists:
            key == nil
                ? "choose a new or an empty directory"
                : "run `batchsync verify`: one of the two objects is damaged"
        case .denied: "give this user the right to do it, or run as a user who has it"
        case .noSpace: "free space or raise the quota; what is stored already is untouched"
        case .readOnly: "make the store writable; reading from it still works"
        case .notADirectory: "move away what stands where a directory is needed"
        case .io: "look at the disk and the system's log before trying again"
        case .unavailable: "try again later"
        case .tooLarge: "run `batchsync verify`: an object of this kind is never that large"
        case .lost: "see who else writes in that place, then try again"
        case .unsupported: "use another file system or another store"
        case .untrusted: "find out who answers there before anything is sent"
        }
    }
}
