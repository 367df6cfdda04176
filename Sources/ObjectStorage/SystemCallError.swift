import Glibc

/// The one place where the numbers of the kernel become errors of this room.
extension StorageError {
    /// Says what a system call's errno means for a store.
    ///
    /// - Parameter code: errno, positive or negated as the functions of CSystem give it.
    /// - Parameter call: The name of the call, for whoever reads the message with `strace` at hand.
    static func system(
        _ code: some BinaryInteger, _ call: String, _ operation: Operation, key: ObjectKey? = nil,
        location: String
    ) -> StorageError {
        let errno = Int32(truncatingIfNeeded: code.magnitude)
        let meaning = meaning(of: errno)
        // glibc keeps the text of an error for each thread, so no other call can change it
        // underneath.
        let text = strerror(errno).map { String(cString: $0) } ?? "error \(errno)"
        return StorageError(
            meaning.kind, operation, key: key, location: location, cause: "\(text) (\(call))",
            isTransient: meaning.isTransient)
    }

    private static func meaning(of errno: Int32) -> (kind: Kind, isTransient: Bool) {
        switch errno {
        case ENOENT: (.notFound, false)
        case EEXIST, ENOTEMPTY: (.exists, false)
        case EACCES, EPERM: (.denied, false)
        // Space comes back only when somebody makes some, which no retry within a run waits for.
        case ENOSPC, EDQUOT: (.noSpace, false)
        case EROFS: (.readOnly, false)
        case ENOTDIR, EISDIR, ELOOP: (.notADirectory, false)
        case EFBIG, EOVERFLOW: (.tooLarge, false)
        case ENAMETOOLONG, EINVAL, EXDEV, ENOSYS, EOPNOTSUPP, EMLINK: (.unsupported, false)
        // A network file system that was away, or a host that is short of something, may recover.
        case EAGAIN, EBUSY, EINTR, ENOMEM, EMFILE, ENFILE, ENOBUFS, ENOLCK: (.unavailable, true)
        case ETIMEDOUT, ESTALE, ENETDOWN, ENETUNREACH, ENETRESET, ECONNRESET, ECONNABORTED,
            ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH, ENOTCONN, EREMOTEIO:
            (.unavailable, true)
        // The device is gone; it comes back by hand, not by itself.
        case ENODEV, ENXIO, ENOMEDIUM: (.unavailable, false)
        default: (.io, false)
        }
    }
}
