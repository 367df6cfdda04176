/// What one server's SFTP can do beyond version 3.
struct SFTPAbilities: Sendable, Equatable {
    var canReplaceByRename = false
    var canSynchronize = false
    var canTellFileSystem = false
    var canTellLimits = false
    /// It carries out one request after the other, in the order in which they come, and its rename
    /// never replaces. The protocol asks for no less, but servers that work on several requests at
    /// once have been seen to close a file before they had written all of it, and some rename over
    /// what is there.
    var isOpenSSH = false

    /// Sends our version and takes the server's.
    static func exchangeVersions(
        over process: SSHProcess, _ stream: SFTPStream, seconds: Int
    ) throws(SFTPStream.End) -> SFTPAbilities {
        let deadline = monotonicNanoseconds() + Int64(seconds) * 1_000_000_000
        func isTooLate() -> Bool { monotonicNanoseconds() > deadline }
        let none = UnsafeRawBufferPointer(start: nil, count: 0)
        // Where nobody takes it, the attempt to read says why.
        _ = SFTPRequest.initialize.withUnsafeBytes { process.send($0, none) }
        let answer = try stream.readVersion(isTooLate)
        return try SFTPAbilities(version: answer)
    }

    /// Takes the fields of a version packet: the version, then pairs of names and data.
    private init(version packet: [UInt8]) throws(SFTPStream.End) {
        do throws(SFTPMalformed) {
            self = try SFTPFields.of(packet) { (fields) throws(SFTPMalformed) in
                let version = try fields.number()
                guard version == 3 else { throw SFTPMalformed("version \(version) instead of 3") }
                var names: Set<[UInt8]> = []
                while !fields.isAtEnd {
                    names.insert(try fields.string())
                    try fields.skipString()
                }
                return SFTPAbilities(extensions: names)
            }
        } catch {
            throw .malformed(error.what)
        }
    }

    private init(extensions: Set<[UInt8]>) {
        func has(_ name: String) -> Bool { extensions.contains(Array(name.utf8)) }
        canReplaceByRename = has("posix-rename@openssh.com")
        canSynchronize = has("fsync@openssh.com")
        canTellFileSystem = has("statvfs@openssh.com")
        canTellLimits = has("limits@openssh.com")
        // Since OpenSSH 8.7; no other server is known to have it.
        isOpenSSH = has("expand-path@openssh.com") && canSynchronize
    }
}

/// How many bytes of data one server takes and gives in one packet.
struct SFTPLimits: Sendable, Equatable {
    /// The most that is asked for in one read.
    var readBytes = SFTPLimits.safeDataBytes
    /// The most that is sent in one write.
    var writeBytes = SFTPLimits.safeDataBytes

    /// What every server takes: the protocol demands packets of 34,000 bytes.
    static let safeDataBytes = 32 << 10
    /// Beyond this a larger packet saves nothing. (OpenSSH closes the connection on one of 256 KiB.)
    static let greatestDataBytes = 255 << 10
    /// Less than this no server of use would allow.
    private static let leastDataBytes = 1 << 10

    init() {}

    /// Takes what `limits@openssh.com` is answered with: longest packet, longest read, longest
    /// write, most open handles; 0 where there is no limit.
    init(_ reply: [UInt8]) throws(SFTPMalformed) {
        let (packet, read, write) = try SFTPFields.of(reply) { (fields) throws(SFTPMalformed) in
            (try fields.longNumber(), try fields.longNumber(), try fields.longNumber())
        }
        func data(_ limit: UInt64, overhead: Int) -> Int {
            var count = SFTPLimits.greatestDataBytes
            if limit > 0 { count = min(count, Int(clamping: limit)) }
            if packet > 0 { count = min(count, Int(clamping: packet) - overhead) }
            return max(count, SFTPLimits.leastDataBytes)
        }
        readBytes = data(read, overhead: 1 + 4 + 4)
        writeBytes = data(write, overhead: SFTPRequest.writeOverheadBytes)
    }
}
