import Glibc

/// What went wrong with a file of this host, which file, and what was being done to it.
///
/// `kind` decides what the program does; everything else explains it to a person. Trouble with one
/// file among many is not thrown: walks and metadata report it beside their results.
package struct FileTreeError: Error, Sendable, CustomStringConvertible {
    package enum Kind: String, Sendable, CaseIterable {
        /// Nothing has that path.
        case notFound
        /// This user may not do it.
        case denied
        /// Something stands where something new was to be made.
        case exists
        /// Something that is no directory stands where one is needed.
        case notADirectory
        /// Something else stands there now than a moment ago, or a symbolic link where none is
        /// followed.
        case changed
        /// The file system, or a quota in it, is full.
        case noSpace
        /// The file system takes no writes.
        case readOnly
        /// Larger or longer than the file system, or this program, accepts.
        case tooLarge
        /// The file system cannot do it.
        case unsupported
        /// The kernel or a server is short of something now.
        case unavailable
        /// What was to be written makes no sense: damaged, or made to do harm.
        case malformed
        /// Reading or writing failed underneath.
        case io
    }

    package let kind: Kind
    /// The file concerned, absolute where it is known to be; bytes, since names need not be UTF-8.
    package let path: [UInt8]
    /// Finishes the words "cannot …": `open`, `list`, `set the owner of`.
    package let operation: String
    /// errno of the call that failed, 0 where none did.
    package let errno: Int32
    /// What the layer below said, such as `Permission denied (openat)`.
    package let cause: String

    package init(
        _ kind: Kind, _ operation: String, path: [UInt8], cause: String, errno: Int32 = 0
    ) {
        self.kind = kind
        self.path = path
        self.operation = operation
        self.errno = errno
        self.cause = cause
    }

    /// Says what a system call's errno means here.
    ///
    /// - Parameter code: errno, positive or negated as the functions of CSystem give it.
    /// - Parameter call: The name of the call, for whoever reads the message with `strace` at hand.
    package static func system(
        _ code: some BinaryInteger, _ call: String, _ operation: String, path: [UInt8]
    ) -> FileTreeError {
        let errno = Int32(truncatingIfNeeded: code.magnitude)
        return FileTreeError(
            kind(of: errno), operation, path: path, cause: "\(text(of: errno)) (\(call))",
            errno: errno)
    }

    /// One sentence: what could not be done to what, and why.
    package var description: String {
        path.isEmpty
            ? "cannot \(operation): \(cause)"
            : "cannot \(operation) \(Self.printable(path)): \(cause)"
    }

    /// What to do next.
    package var remedy: String {
        switch kind {
        case .notFound: "check the path"
        case .denied: "run this as a user who may do that, or change the permissions"
        case .exists: "choose another path, or move away what lies there"
        case .notADirectory: "name a directory, or move away what lies there"
        case .changed: "name the path without symbolic links, and run this again"
        case .noSpace: "make room on that file system"
        case .readOnly: "mount that file system writable, or choose another"
        case .tooLarge, .unsupported: "choose a place on another file system"
        case .unavailable: "run this again when the machine has less to do"
        case .malformed: "'batchsync verify' tells whether the repository is damaged"
        case .io: "the kernel's log, 'dmesg', tells more: the device may be failing"
        }
    }

    /// The description for a message that has named `known` already.
    package func message(after known: [UInt8]) -> String {
        path == known && !path.isEmpty ? "cannot \(operation) it: \(cause)" : description
    }

    /// The system's words for an errno.
    package static func text(of errno: Int32) -> String {
        // glibc keeps the text of an unknown error for each thread, so no other call can change it
        // underneath.
        strerror(errno).map { String(cString: $0) } ?? "error \(errno)"
    }

    package static func kind(of errno: Int32) -> Kind {
        switch errno {
        case ENOENT: .notFound
        case EACCES, EPERM: .denied
        case EEXIST, ENOTEMPTY: .exists
        case ENOTDIR, EISDIR: .notADirectory
        case ELOOP, ESTALE, EXDEV: .changed
        case ENOSPC, EDQUOT: .noSpace
        case EROFS: .readOnly
        case EFBIG, EOVERFLOW, ENAMETOOLONG, E2BIG, ERANGE: .tooLarge
        case ENOSYS, EOPNOTSUPP, ENOTTY, EINVAL, EMLINK: .unsupported
        case EAGAIN, EBUSY, ENOMEM, EMFILE, ENFILE, ETXTBSY: .unavailable
        default: .io
        }
    }

    /// A path's bytes as text for a message: what is no UTF-8, and what would steer a terminal, as
    /// `\xNN`.
    package static func printable(_ bytes: some Collection<UInt8>) -> String {
        var text = ""
        var rest = Array(bytes)[...]
        while let first = rest.first {
            var input = rest.makeIterator()
            // A decoder for each character: one reads ahead after an error, and its place would be
            // lost.
            var decoder = UTF8()
            if case .scalarValue(let scalar) = decoder.decode(&input), scalar.value >= 0x20,
                !(0x7F...0x9F).contains(scalar.value)
            {
                text.unicodeScalars.append(scalar)
                rest = rest.dropFirst(UTF8.width(scalar))
            } else {
                let digits = String(first, radix: 16)
                text += "\\x" + (digits.count == 1 ? "0" : "") + digits
                rest = rest.dropFirst()
            }
        }
        return text
    }
}
