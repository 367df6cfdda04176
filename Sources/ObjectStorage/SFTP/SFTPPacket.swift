/// Requests and answers of SFTP version 3, as bytes.
///
/// draft-ietf-secsh-filexfer-02 with OpenSSH's extensions (PROTOCOL, section 4). A packet is its
/// length in four bytes, its kind in one, and what belongs to the kind; numbers are big-endian, a
/// string is its length in four bytes and its bytes. Whatever a server sends is checked before it is
/// used: a length that points outside its packet is an error, never a read or an allocation.
enum SFTPKind {
    static let initialize: UInt8 = 1
    static let version: UInt8 = 2
    static let open: UInt8 = 3
    static let close: UInt8 = 4
    static let read: UInt8 = 5
    static let write: UInt8 = 6
    static let lstat: UInt8 = 7
    static let fstat: UInt8 = 8
    static let opendir: UInt8 = 11
    static let readdir: UInt8 = 12
    static let remove: UInt8 = 13
    static let mkdir: UInt8 = 14
    static let rmdir: UInt8 = 15
    static let stat: UInt8 = 17
    static let rename: UInt8 = 18
    static let status: UInt8 = 101
    static let handle: UInt8 = 102
    static let data: UInt8 = 103
    static let name: UInt8 = 104
    static let attributes: UInt8 = 105
    static let extended: UInt8 = 200
    static let extendedReply: UInt8 = 201
}

/// A request that is ready to be sent once it has its number.
struct SFTPRequest {
    /// Length, kind, number and fields; the first and the third are filled in by `sealed`.
    private var bytes: [UInt8]

    private init(_ kind: UInt8) {
        bytes = [0, 0, 0, 0, kind, 0, 0, 0, 0]
    }

    /// The packet with number `id`, for a body of `bodyBytes` that is sent right behind it.
    func sealed(id: UInt32, bodyBytes: Int) -> [UInt8] {
        var packet = bytes
        packet.withUnsafeMutableBytes { packet in
            let length = UInt32(packet.count - 4 + bodyBytes)
            packet.storeBytes(of: length.bigEndian, as: UInt32.self)
            packet.storeBytes(of: id.bigEndian, toByteOffset: 5, as: UInt32.self)
        }
        return packet
    }

    private mutating func append(_ number: UInt32) {
        withUnsafeBytes(of: number.bigEndian) { bytes.append(contentsOf: $0) }
    }

    private mutating func append(_ number: UInt64) {
        withUnsafeBytes(of: number.bigEndian) { bytes.append(contentsOf: $0) }
    }

    private mutating func append(string: some Collection<UInt8>) {
        append(UInt32(string.count))
        bytes.append(contentsOf: string)
    }

    /// The first packet of a connection, which has a version where others have a number.
    static let initialize: [UInt8] = [0, 0, 0, 5, SFTPKind.initialize, 0, 0, 0, 3]

    private static let readFlag: UInt32 = 0x01
    private static let createNewFlags: UInt32 = 0x02 | 0x08 | 0x20

    /// Opens what is there for reading.
    static func openForReading(_ path: [UInt8]) -> SFTPRequest {
        var request = SFTPRequest(SFTPKind.open)
        request.append(string: path)
        request.append(readFlag)
        request.append(UInt32(0))
        return request
    }

    /// Makes a file that is not there yet and opens it for writing.
    static func createNew(_ path: [UInt8], permissions: UInt32) -> SFTPRequest {
        var request = SFTPRequest(SFTPKind.open)
        request.append(string: path)
        request.append(createNewFlags)
        request.append(SFTPAttributes.permissionsFlag)
        request.append(permissions)
        return request
    }

    static func close(_ handle: [UInt8]) -> SFTPRequest { about(handle, SFTPKind.close) }
    static func fstat(_ handle: [UInt8]) -> SFTPRequest { about(handle, SFTPKind.fstat) }
    static func readdir(_ handle: [UInt8]) -> SFTPRequest { about(handle, SFTPKind.readdir) }
    static func opendir(_ path: [UInt8]) -> SFTPRequest { about(path, SFTPKind.opendir) }
    static func lstat(_ path: [UInt8]) -> SFTPRequest { about(path, SFTPKind.lstat) }
    static func stat(_ path: [UInt8]) -> SFTPRequest { about(path, SFTPKind.stat) }
    static func remove(_ path: [UInt8]) -> SFTPRequest { about(path, SFTPKind.remove) }
    static func rmdir(_ path: [UInt8]) -> SFTPRequest { about(path, SFTPKind.rmdir) }

    static func read(_ handle: [UInt8], offset: Int, count: Int) -> SFTPRequest {
        var request = about(handle, SFTPKind.read)
        request.append(UInt64(offset))
        request.append(UInt32(count))
        return request
    }

    /// Its bytes are sent right behind it.
    static func write(_ handle: [UInt8], offset: Int, count: Int) -> SFTPRequest {
        var request = about(handle, SFTPKind.write)
        request.append(UInt64(offset))
        request.append(UInt32(count))
        return request
    }

    static func mkdir(_ path: [UInt8], permissions: UInt32) -> SFTPRequest {
        var request = about(path, SFTPKind.mkdir)
        request.append(SFTPAttributes.permissionsFlag)
        request.append(permissions)
        return request
    }

    static func rename(_ path: [UInt8], to newPath: [UInt8]) -> SFTPRequest {
        var request = about(path, SFTPKind.rename)
        request.append(string: newPath)
        return request
    }

    static func posixRename(_ path: [UInt8], to newPath: [UInt8]) -> SFTPRequest {
        var request = about(Array("posix-rename@openssh.com".utf8), SFTPKind.extended)
        request.append(string: path)
        request.append(string: newPath)
        return request
    }

    static func fsync(_ handle: [UInt8]) -> SFTPRequest {
        var request = about(Array("fsync@openssh.com".utf8), SFTPKind.extended)
        request.append(string: handle)
        return request
    }

    static func statvfs(_ path: [UInt8]) -> SFTPRequest {
        var request = about(Array("statvfs@openssh.com".utf8), SFTPKind.extended)
        request.append(string: path)
        return request
    }

    static var limits: SFTPRequest {
        about(Array("limits@openssh.com".utf8), SFTPKind.extended)
    }

    /// What a write adds to its data: kind, number, handle, offset and the length of the data.
    static let writeOverheadBytes = 1 + 4 + 4 + SFTPReply.maximumHandleBytes + 8 + 4

    private static func about(_ subject: [UInt8], _ kind: UInt8) -> SFTPRequest {
        var request = SFTPRequest(kind)
        request.append(string: subject)
        return request
    }
}

/// What a server answers to a request. Data are not in it: they lie where the request wanted them.
enum SFTPReply: Equatable {
    case status(SFTPStatus)
    case handle([UInt8])
    /// That many bytes have been read, at least one.
    case data(Int)
    case names([SFTPName])
    case attributes(SFTPAttributes)
    case extended([UInt8])

    /// The longest handle that the protocol allows.
    static let maximumHandleBytes = 256

    /// Takes apart what follows the number of any answer but data.
    init(kind: UInt8, _ packet: [UInt8]) throws(SFTPMalformed) {
        self = try SFTPFields.of(packet) { (fields) throws(SFTPMalformed) in
            try SFTPReply(kind: kind, &fields)
        }
    }

    private init(kind: UInt8, _ fields: inout SFTPFields) throws(SFTPMalformed) {
        switch kind {
        case SFTPKind.status:
            let code = try fields.number()
            // The two texts are missing with old servers.
            let text = fields.isAtEnd ? [] : try fields.string()
            self = .status(SFTPStatus(code: code, text: printable(text)))
        case SFTPKind.handle:
            let handle = try fields.string()
            guard handle.count <= SFTPReply.maximumHandleBytes else {
                throw SFTPMalformed("a handle of \(handle.count) bytes")
            }
            self = .handle(handle)
        case SFTPKind.name:
            self = .names(try SFTPName.parse(&fields))
        case SFTPKind.attributes:
            self = .attributes(try SFTPAttributes(&fields))
        case SFTPKind.extendedReply:
            self = .extended(fields.rest())
        default:
            throw SFTPMalformed("an answer of kind \(kind)")
        }
    }
}

/// What SFTP tells of a file; each may be missing.
struct SFTPAttributes: Equatable {
    var size: UInt64?
    /// Kind and permissions as in `st_mode`.
    var mode: UInt32?
    /// In seconds since 1970.
    var modified: UInt32?

    static let sizeFlag: UInt32 = 0x01
    static let ownerFlag: UInt32 = 0x02
    static let permissionsFlag: UInt32 = 0x04
    static let timesFlag: UInt32 = 0x08
    static let extendedFlag: UInt32 = 0x8000_0000

    init(size: UInt64? = nil, mode: UInt32? = nil, modified: UInt32? = nil) {
        self.size = size
        self.mode = mode
        self.modified = modified
    }

    init(_ fields: inout SFTPFields) throws(SFTPMalformed) {
        let flags = try fields.number()
        if flags & SFTPAttributes.sizeFlag != 0 { size = try fields.longNumber() }
        if flags & SFTPAttributes.ownerFlag != 0 { try fields.skip(8) }
        if flags & SFTPAttributes.permissionsFlag != 0 { mode = try fields.number() }
        if flags & SFTPAttributes.timesFlag != 0 {
            try fields.skip(4)
            modified = try fields.number()
        }
        if flags & SFTPAttributes.extendedFlag != 0 {
            for _ in 0..<(try fields.number()) {
                try fields.skipString()
                try fields.skipString()
            }
        }
    }

    enum FileKind { case file, directory, symbolicLink, other }

    /// nil where the server does not tell.
    var kind: FileKind? {
        guard let mode, mode & 0o170000 != 0 else { return nil }
        return switch mode & 0o170000 {
        case 0o100000: .file
        case 0o040000: .directory
        case 0o120000: .symbolicLink
        default: .other
        }
    }
}

/// One name of a directory.
struct SFTPName: Equatable {
    let name: [UInt8]
    let attributes: SFTPAttributes

    static func parse(_ fields: inout SFTPFields) throws(SFTPMalformed) -> [SFTPName] {
        let count = try fields.number()
        // Two strings and flags: what the least name takes. Nothing is reserved for more.
        guard Int(count) <= fields.count / 12 else {
            throw SFTPMalformed("\(count) names in a packet too short for them")
        }
        var names: [SFTPName] = []
        names.reserveCapacity(Int(count))
        for _ in 0..<count {
            let name = try fields.string()
            // How `ls -l` would show it, for people.
            let shown = try fields.string()
            var attributes = try SFTPAttributes(&fields)
            if attributes.kind == nil, let first = shown.first, let kind = kinds[first] {
                attributes.mode = kind | (attributes.mode ?? 0)
            }
            names.append(SFTPName(name: name, attributes: attributes))
        }
        return names
    }

    private static let kinds: [UInt8: UInt32] = [
        UInt8(ascii: "-"): 0o100000, UInt8(ascii: "d"): 0o040000, UInt8(ascii: "l"): 0o120000,
    ]
}

/// What a server sent is no SFTP.
struct SFTPMalformed: Error, Equatable {
    let what: String
    init(_ what: String) { self.what = what }
}

/// The fields of a packet, read one after the other and never beyond its end.
struct SFTPFields {
    private let bytes: UnsafeRawBufferPointer
    private var position = 0

    /// The bytes must stay in place while this is used.
    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    /// Runs `body` with the fields of `packet`.
    static func of<Result>(
        _ packet: [UInt8], _ body: (inout SFTPFields) throws(SFTPMalformed) -> Result
    ) throws(SFTPMalformed) -> Result {
        try packet.withUnsafeBufferPointer { (bytes) throws(SFTPMalformed) in
            var fields = SFTPFields(UnsafeRawBufferPointer(bytes))
            return try body(&fields)
        }
    }

    /// Bytes that have not been read.
    var count: Int { bytes.count - position }
    var isAtEnd: Bool { count == 0 }

    mutating func number() throws(SFTPMalformed) -> UInt32 {
        let value = try load(4).loadUnaligned(as: UInt32.self)
        return UInt32(bigEndian: value)
    }

    mutating func longNumber() throws(SFTPMalformed) -> UInt64 {
        let value = try load(8).loadUnaligned(as: UInt64.self)
        return UInt64(bigEndian: value)
    }

    mutating func string() throws(SFTPMalformed) -> [UInt8] {
        [UInt8](try load(Int(try number())))
    }

    mutating func skip(_ count: Int) throws(SFTPMalformed) { _ = try load(count) }

    mutating func skipString() throws(SFTPMalformed) { try skip(Int(try number())) }

    mutating func rest() -> [UInt8] {
        defer { position = bytes.count }
        return [UInt8](bytes[position...])
    }

    private mutating func load(_ length: Int) throws(SFTPMalformed) -> UnsafeRawBufferPointer {
        guard length <= count else {
            throw SFTPMalformed("a field of \(length) bytes where \(count) are left")
        }
        defer { position += length }
        return UnsafeRawBufferPointer(rebasing: bytes[position..<position + length])
    }
}

/// Text from outside for a message: at most a line or two, and nothing that could steer a terminal.
func printable(_ bytes: some Collection<UInt8>) -> String {
    let text = String(decoding: bytes.prefix(500), as: UTF8.self)
    var shown = ""
    for scalar in text.unicodeScalars {
        let isControl = scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value)
        shown.unicodeScalars.append(isControl ? " " : scalar)
    }
    return shown
}
