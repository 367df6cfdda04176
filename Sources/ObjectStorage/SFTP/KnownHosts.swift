import CSystem
import Crypto
import Glibc
import SnapshotModel

/// The host keys that a user trusts, as OpenSSH keeps them in known_hosts (sshd(8)).
///
/// Names may be patterns, hashed, and marked as revoked. Keys that only a certificate authority
/// vouches for are none of these: they cannot be judged without ssh.
struct KnownHosts: Sendable {
    /// What is known of a key that a host presents.
    enum Verdict: Equatable {
        case trusted
        /// Nothing is known of the host.
        case unknown
        /// The host is known by other keys, of these kinds.
        case different(kinds: [String])
        case revoked
    }

    private struct Line {
        let names: [String]
        let isRevoked: Bool
        /// Such as `ssh-ed25519`.
        let kind: String
        /// In the encoding of RFC 4253.
        let key: [UInt8]
    }

    private var lines: [Line] = []

    /// Reads files of this form; one that is not there holds nothing.
    init(files: [String]) {
        for file in files { add(KnownHosts.contents(of: file)) }
    }

    init(text: String) { add(text) }

    private mutating func add(_ text: String) {
        for line in text.split(whereSeparator: \.isNewline) {
            var fields = line.split(whereSeparator: { $0 == " " || $0 == "\t" })[...]
            guard let first = fields.first, first.first != "#" else { continue }
            var isRevoked = false
            if first.first == "@" {
                guard first == "@revoked" else { continue }
                isRevoked = true
                fields = fields.dropFirst()
            }
            guard fields.count >= 3 else { continue }
            let parts = Array(fields.prefix(3))
            guard let key = decodedBase64(parts[2]) else { continue }
            lines.append(
                Line(
                    names: parts[0].split(separator: ",").map(String.init), isRevoked: isRevoked,
                    kind: String(parts[1]), key: key))
        }
    }

    /// Judges the key `key` of `host`. A name stands in a line as `host` for port 22, and as
    /// `[host]:port` for another.
    func judge(_ key: [UInt8], of host: String, port: Int?) -> Verdict {
        let ofHost = lines(of: host, port: port)
        if ofHost.contains(where: { $0.isRevoked && $0.key == key }) { return .revoked }
        let trusted = ofHost.filter { !$0.isRevoked }
        if trusted.contains(where: { $0.key == key }) { return .trusted }
        if trusted.isEmpty { return .unknown }
        return .different(kinds: Set(trusted.map(\.kind)).sorted())
    }

    /// A line, for the one kind of key that the host should be asked for: without it a host that has
    /// several would present one that is not known. Kinds that libssh2 1.10 can use with today's
    /// servers come first; of an RSA key it can make no use at all, since it knows RSA with SHA-1
    /// only, which servers refuse, and asking for it would end the handshake.
    func expectedLine(of host: String, port: Int?) -> String? {
        let usable = [
            "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
        ]
        let trusted = lines(of: host, port: port).filter { !$0.isRevoked }
        for kind in usable {
            if let line = trusted.first(where: { $0.kind == kind }) {
                let name = KnownHosts.name(of: host, port: port)
                return "\(name) \(kind) \(Base64.encode(line.key))"
            }
        }
        return nil
    }

    private func lines(of host: String, port: Int?) -> [Line] {
        let name = KnownHosts.name(of: host, port: port).lowercased()
        return lines.filter { KnownHosts.names($0.names, match: name) }
    }

    private static func name(of host: String, port: Int?) -> String {
        guard let port, port != 22 else { return host }
        return "[\(host)]:\(port)"
    }

    // MARK: - Names

    /// Whether one of `names` is or covers `name`, and none that begins with `!` does.
    private static func names(_ names: [String], match name: String) -> Bool {
        var isMatched = false
        for pattern in names {
            if pattern.hasPrefix("|1|") {
                if isHash(pattern, of: name) { isMatched = true }
            } else if pattern.hasPrefix("!") {
                if matches(Array(pattern.dropFirst().lowercased().utf8)[...], name) { return false }
            } else if matches(Array(pattern.lowercased().utf8)[...], name) {
                isMatched = true
            }
        }
        return isMatched
    }

    /// `|1|SALT|HMAC-SHA1 of the name under it|`, both in base64.
    private static func isHash(_ pattern: String, of name: String) -> Bool {
        let parts = pattern.split(separator: "|")
        guard parts.count == 3, let salt = decodedBase64(parts[1]),
            let expected = decodedBase64(parts[2])
        else { return false }
        let code = HMAC<Insecure.SHA1>.authenticationCode(
            for: Array(name.utf8), using: SymmetricKey(data: salt))
        return Array(code) == expected
    }

    private static func matches(_ pattern: ArraySlice<UInt8>, _ name: String) -> Bool {
        matches(pattern, Array(name.utf8)[...])
    }

    /// `*` for any characters, `?` for one. Goes back to the last star only, so it ends soon however
    /// many there are.
    private static func matches(_ pattern: ArraySlice<UInt8>, _ name: ArraySlice<UInt8>) -> Bool {
        var (at, position) = (pattern.startIndex, name.startIndex)
        var star: (pattern: Int, name: Int)?
        while position < name.endIndex {
            if at < pattern.endIndex, pattern[at] == UInt8(ascii: "*") {
                star = (at, position)
                at += 1
            } else if at < pattern.endIndex,
                pattern[at] == UInt8(ascii: "?") || pattern[at] == name[position]
            {
                at += 1
                position += 1
            } else if let last = star {
                star = (last.pattern, last.name + 1)
                at = last.pattern + 1
                position = last.name + 1
            } else {
                return false
            }
        }
        return pattern[at...].allSatisfy { $0 == UInt8(ascii: "*") }
    }

    // MARK: - Keys

    /// How people compare a key: `SHA256:` and base64, as `ssh-keygen -l` shows it.
    static func fingerprint(of key: [UInt8]) -> String {
        "SHA256:" + Base64.encode(Array(SHA256.hash(data: key))).filter { $0 != "=" }
    }

    /// The kind that a key in the encoding of RFC 4253 says it is.
    static func kind(of key: [UInt8]) -> String? {
        guard
            let name = try? SFTPFields.of(
                key,
                { (fields) throws(SFTPMalformed) in
                    try fields.string()
                }), name.count <= 64
        else { return nil }
        return printable(name)
    }

    /// Adds a key to a file of this form, which is made where it is missing.
    ///
    /// - Throws: The negated errno as `.io` and the like, about `subject`.
    static func remember(
        _ key: [UInt8], of host: String, port: Int?, in file: String, _ subject: StorageSubject
    ) throws(StorageError) {
        guard let kind = kind(of: key) else {
            throw subject.failure(.untrusted, "the host's key is of no known form")
        }
        if let slash = file.lastIndex(of: "/") {
            // Whether it is there shows when the file is opened.
            _ = csys_mkdirat(AT_FDCWD, String(file[..<slash]), 0o700)
        }
        let name = name(of: host, port: port)
        var text = Array("\(name) \(kind) \(Base64.encode(key))\n".utf8)
        // A last line that was not ended must not run on into this one.
        if let last = contents(of: file).utf8.last, last != UInt8(ascii: "\n") {
            text.insert(UInt8(ascii: "\n"), at: 0)
        }
        let descriptor = csys_open(file, O_WRONLY | O_APPEND | O_CREAT | CSYS_O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw subject.failure(descriptor, "open \(file)")
        }
        defer { _ = csys_close(descriptor) }
        let written = write(descriptor, text, text.count)
        guard written == text.count else {
            throw subject.failure(written < 0 ? errno : EIO, "write \(file)")
        }
    }

    private static func contents(of file: String) -> String {
        let descriptor = csys_open(file, O_RDONLY | CSYS_O_CLOEXEC, 0)
        guard descriptor >= 0 else { return "" }
        defer { _ = csys_close(descriptor) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count < maximumFileBytes {
            let count = csys_pread(descriptor, &buffer, buffer.count, Int64(bytes.count))
            if count <= 0 { break }
            bytes += buffer[..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// A hundred thousand hosts; more is not this file.
    private static let maximumFileBytes = 64 << 20
}

private func decodedBase64(_ text: some StringProtocol) -> [UInt8]? {
    Array(text.utf8).withUnsafeBytes { Base64.decode($0) }
}
