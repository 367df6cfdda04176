package import FileTree
import SnapshotModel
package import SnapshotRepository

/// What stopped a verb: what happened, to what, and what to do next.
package struct ReplicationError: Error, Sendable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        case repository(RepositoryError.Kind)
        /// A source, or the target, of the user's words.
        case files
        case usage
        /// The user or the system asked it to stop.
        case interrupted
        /// A program that was started failed.
        case command
        /// Whoever read the output has gone, as `head` does.
        case outputClosed
        case other
    }

    package let kind: Kind
    package let subject: String
    package let message: String
    package let remedy: String

    package init(_ kind: Kind, _ subject: String, _ message: String, remedy: String = "") {
        self.kind = kind
        self.subject = subject
        self.message = message
        self.remedy = remedy
    }

    package init(_ error: RepositoryError) {
        self.init(.repository(error.kind), error.subject, error.message, remedy: error.remedy)
    }

    package init(_ error: FileTreeError) {
        self.init(
            .files, UTF8Text.display(error.path), error.description, remedy: error.remedy)
    }

    package static let interrupted = ReplicationError(.interrupted, "", "interrupted")

    package var description: String {
        subject.isEmpty || message.contains(subject) ? message : "\(subject): \(message)"
    }
}

/// Runs a call of a lower room and gives its error the shape of this one.
func lifted<Value>(_ body: () throws -> Value) throws(ReplicationError) -> Value {
    do {
        return try body()
    } catch let error as RepositoryError {
        throw ReplicationError(error)
    } catch let error as FileTreeError {
        throw ReplicationError(error)
    } catch let error as ReplicationError {
        throw error
    } catch {
        throw ReplicationError(.other, "", "\(error)")
    }
}
