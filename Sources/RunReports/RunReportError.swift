import Glibc

/// What went wrong with a file in which a host keeps what it knows of its runs, or with telling
/// somebody of a run: what happened, to what, and what to do next. Never holds a secret.
package struct RunReportError: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        /// A file of this host cannot be read or written.
        case file
        /// A notification could not be made from what was given.
        case unusable
        /// A notification did not arrive.
        case delivery
    }

    package let kind: Kind
    /// A path, or the name of a way to notify.
    package let subject: String
    package let message: String
    /// Empty where there is nothing to say.
    package let remedy: String

    package init(_ kind: Kind, _ subject: String, _ message: String, remedy: String = "") {
        self.kind = kind
        self.subject = subject
        self.message = message
        self.remedy = remedy
    }

    package var description: String { "\(subject): \(message)" }

    /// - Parameter code: A negative errno.
    static func file(_ path: String, _ step: String, _ code: Int32) -> RunReportError {
        let remedy =
            switch -code {
            case EACCES, EPERM: "check who owns it and who may write there"
            case ENOSPC, EDQUOT: "make room on that file system"
            case EROFS: "the file system is mounted read-only"
            case ENOENT: "make the directory, or name another"
            default: ""
            }
        return RunReportError(
            .file, path, "\(String(cString: strerror(-code))) (\(step))", remedy: remedy)
    }
}
