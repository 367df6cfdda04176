import ObjectStorage
package import SnapshotModel

/// What every repository carries so that it can be opened without batchsync.
package enum Recovery {
    package static let program = bytes(RecoveryText.program)
    package static let page = bytes(RecoveryText.page)

    /// One of the two objects.
    package enum Object: CaseIterable, Sendable {
        case program
        case page

        package var name: String { key.text }

        fileprivate var key: ObjectKey {
            switch self {
            case .program: RepositoryLayout.recoverProgram
            case .page: RepositoryLayout.recoverPage
            }
        }

        /// What this release writes.
        package var digest: RecordID {
            Authentication.digest(self == .program ? Recovery.program : Recovery.page)
        }

        /// SHA-256 of each that `init` has ever written, the newest first: a repository keeps the
        /// one that it was made with. Whoever changes the text adds a line; none is ever taken
        /// away.
        var released: [String] {
            switch self {
            case .program: ["fde1cb72082c0614ed22e5154f0e413ec0a1eeaa5a5d399b63ead4f0d5c3ae96"]
            case .page: ["675c914847a676c7a4ae72a0f4cce86bab4bb832a4636d077f05bfb0e00375aa"]
            }
        }
    }

    private static func bytes(_ text: StaticString) -> [UInt8] {
        Array(UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// SHA-256 of the program, which `init` shows.
    package static var digest: RecordID { Object.program.digest }

    /// What stands in a repository in an object's place.
    package enum Found: Sendable, Equatable {
        /// What this release or an earlier one writes.
        case released
        case missing
        case foreign(RecordID)
    }

    package static func find(
        _ object: Object, in repository: Repository
    ) throws(RepositoryError) -> Found {
        do {
            return judge(
                try repository.readObject(
                    object.name, maximumBytes: 16 << 20,
                    isSound: { judge($0, among: object.released) == .released }),
                among: object.released)
        } catch {
            guard error.kind == .storage else { throw error }
            return .missing
        }
    }

    static func judge(_ bytes: [UInt8], among released: [String]) -> Found {
        let digest: RecordID = Authentication.digest(bytes)
        return released.contains(digest.description) ? .released : .foreign(digest)
    }
}
