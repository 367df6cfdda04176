import ObjectStorage
package import SnapshotModel

/// What every repository carries so that it can be opened without batchsync.
package enum Recovery {
    package static let program = bytes(RecoveryText.program)
    package static let page = bytes(RecoveryText.page)

    /// SHA-256 of each `recover.py` that `init` has ever written, the newest first: a repository
    /// keeps the one that it was made with. Whoever changes the program adds a line; none is ever
    /// taken away.
    static let released = [
        "fde1cb72082c0614ed22e5154f0e413ec0a1eeaa5a5d399b63ead4f0d5c3ae96"
    ]

    private static func bytes(_ text: StaticString) -> [UInt8] {
        Array(UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    package static var digest: RecordID { Authentication.digest(program) }

    /// What stands in a repository as `recover.py`.
    package enum Found: Sendable, Equatable {
        /// A program that this release or an earlier one writes.
        case released
        case missing
        case foreign(RecordID)
    }

    package static func find(in repository: Repository) throws(RepositoryError) -> Found {
        do {
            return judge(
                try repository.readObject(
                    RepositoryLayout.recoverProgram.text, maximumBytes: 16 << 20,
                    isSound: { judge($0) == .released }))
        } catch {
            guard error.kind == .storage else { throw error }
            return .missing
        }
    }

    static func judge(_ program: [UInt8], among released: [String] = released) -> Found {
        let digest: RecordID = Authentication.digest(program)
        return released.contains(digest.description) ? .released : .foreign(digest)
    }
}
