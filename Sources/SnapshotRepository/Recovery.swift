import ObjectStorage
package import SnapshotModel

/// What every repository carries so that it can be opened without batchsync.
package enum Recovery {
    package static let program = bytes(RecoveryText.program)
    package static let page = bytes(RecoveryText.page)

    private static func bytes(_ text: StaticString) -> [UInt8] {
        Array(UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    package static var digest: RecordID { Authentication.digest(program) }

    /// Whether the copy in the repository is the one this release writes; nil where it is missing.
    package static func isIntact(in repository: Repository) throws(RepositoryError) -> (
        isThere: Bool, isOurs: Bool, digest: RecordID?
    ) {
        do {
            let bytes = try repository.readObject(
                RepositoryLayout.recoverProgram.text, maximumBytes: 16 << 20)
            return (true, bytes == program, Authentication.digest(bytes))
        } catch {
            guard error.kind == .storage else { throw error }
            return (false, false, nil)
        }
    }
}
