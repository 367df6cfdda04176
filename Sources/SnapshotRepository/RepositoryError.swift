import AgeEncryption
import BundleFormat
import ObjectStorage

/// What went wrong with a repository: what happened, to what, and what to do next.
package struct RepositoryError: Error, Sendable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        /// Nothing at this place is a repository.
        case notARepository
        /// The repository was written by a newer release.
        case newerFormat
        /// `init` found something already there.
        case exists
        /// The passphrase or identity given does not open it, or none was given.
        case wrongKey
        /// This host has no key for the repository.
        case noHostKey
        /// The recipients are not proven by the owner, or are not those this host has pinned.
        case notProven
        /// Something stored is not what it should be.
        case damaged
        /// The store failed.
        case storage
        /// A file of this host's own configuration, cache or state.
        case local
        /// What was asked for is not there, or not unique.
        case notFound
        /// What was asked for would break a rule.
        case refused
    }

    package let kind: Kind
    /// An object's name, a path, or what the user typed.
    package let subject: String
    package let message: String
    /// What to do next; empty where there is nothing to say.
    package let remedy: String
    package let isTransient: Bool
    /// The store has no such object: it was deleted, or never there.
    package let isMissing: Bool

    package init(
        _ kind: Kind, _ subject: String, _ message: String, remedy: String = "",
        isTransient: Bool = false, isMissing: Bool = false
    ) {
        self.kind = kind
        self.subject = subject
        self.message = message
        self.remedy = remedy
        self.isTransient = isTransient
        self.isMissing = isMissing
    }

    package var description: String { subject.isEmpty ? message : "\(subject): \(message)" }

    static func storage(_ error: StorageError) -> RepositoryError {
        RepositoryError(
            .storage, "", error.description, remedy: error.remedy, isTransient: error.isTransient,
            isMissing: error.kind == .notFound)
    }

    package static func damaged(_ subject: String, _ message: String) -> RepositoryError {
        RepositoryError(
            .damaged, subject, message,
            remedy: "run 'batchsync verify' to see which snapshots this affects")
    }

    static func bundle(_ error: BundleError, _ subject: String) -> RepositoryError {
        RepositoryError(.damaged, subject, error.description)
    }
}

/// Runs a call of the store and gives its error the shape of this room.
func stored<Value>(_ body: () throws(StorageError) -> Value) throws(RepositoryError) -> Value {
    do { return try body() } catch { throw .storage(error) }
}
