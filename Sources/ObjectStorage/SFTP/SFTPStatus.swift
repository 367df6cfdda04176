/// How an SFTP server says that something went well or did not.
struct SFTPStatus: Equatable {
    let code: UInt32
    /// The server's own words, often none.
    let text: String

    static let ok: UInt32 = 0
    static let endOfFile: UInt32 = 1
    static let noSuchFile: UInt32 = 2
    static let permissionDenied: UInt32 = 3
    static let failure: UInt32 = 4
    static let badMessage: UInt32 = 5
    static let unsupported: UInt32 = 8

    var isOK: Bool { code == SFTPStatus.ok }
    var isMissing: Bool { code == SFTPStatus.noSuchFile || code == SFTPStatus.noSuchPath }
    var isEndOfFile: Bool { code == SFTPStatus.endOfFile }
    var isUnsupported: Bool { code == SFTPStatus.unsupported }

    // Of later versions, which some servers use all the same.
    private static let noSuchPath: UInt32 = 10
    private static let fileAlreadyExists: UInt32 = 11
    private static let writeProtected: UInt32 = 12
    private static let noSpace: UInt32 = 14
    private static let quotaExceeded: UInt32 = 15

    /// What it means by itself; nil where the server must be asked for more, since version 3 has
    /// one and the same failure for a full disk, a name that is taken, and a broken disk.
    var meaning: StorageError.Kind? {
        switch code {
        case SFTPStatus.noSuchFile, SFTPStatus.noSuchPath: return .notFound
        case SFTPStatus.permissionDenied: return .denied
        case SFTPStatus.badMessage, SFTPStatus.unsupported: return .unsupported
        case SFTPStatus.fileAlreadyExists: return .exists
        case SFTPStatus.writeProtected: return .readOnly
        case SFTPStatus.noSpace, SFTPStatus.quotaExceeded: return .noSpace
        default: break
        }
        let words = text.lowercased()
        if words.contains("no space") || words.contains("quota") || words.contains("disk full") {
            return .noSpace
        }
        if words.contains("read-only") || words.contains("read only") { return .readOnly }
        return nil
    }

    /// The words for a message: the server's own, or those of the protocol.
    var description: String {
        if !text.isEmpty { return text }
        return switch code {
        case SFTPStatus.noSuchFile: "No such file"
        case SFTPStatus.permissionDenied: "Permission denied"
        case SFTPStatus.failure: "Failure"
        case SFTPStatus.badMessage: "Bad message"
        case SFTPStatus.unsupported: "Operation unsupported"
        default: "error \(code)"
        }
    }
}

/// What `statvfs@openssh.com` tells of the file system behind a path.
struct SFTPFileSystem {
    /// Bytes that this account may still write.
    let availableBytes: UInt64
    /// Whether new files can be made, as far as their number goes.
    let hasFreeFiles: Bool
    let isReadOnly: Bool

    /// Eleven numbers, as in `struct statvfs`.
    init(_ reply: [UInt8]) throws(SFTPMalformed) {
        self = try SFTPFields.of(reply) { (fields) throws(SFTPMalformed) in
            var numbers: [UInt64] = []
            for _ in 0..<11 { numbers.append(try fields.longNumber()) }
            return SFTPFileSystem(numbers)
        }
    }

    private init(_ numbers: [UInt64]) {
        let (bytes, isHuge) = numbers[4].multipliedReportingOverflow(by: numbers[1])
        availableBytes = isHuge ? .max : bytes
        hasFreeFiles = numbers[5] == 0 || numbers[7] > 0
        isReadOnly = numbers[9] & 1 != 0
    }
}
