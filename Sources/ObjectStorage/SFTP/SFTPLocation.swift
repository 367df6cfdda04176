/// Where an SFTP store lies: `sftp://[user@]host[:port]/absolute/path`.
///
/// The host may be a name that only the user's ssh configuration knows; an IPv6 address stands in
/// brackets. User and path may be percent-encoded, and what they stand for need not be UTF-8.
package struct SFTPLocation: Sendable, Equatable {
    /// nil for the user that ssh takes by itself.
    package let user: String?
    /// Without the brackets of an IPv6 address.
    package let host: String
    /// nil for the port that ssh takes by itself.
    package let port: Int?
    /// Absolute, without a trailing slash, decoded; empty for the root of what the server shows.
    package let path: [UInt8]

    /// Takes an address apart.
    ///
    /// - Throws: `.unsupported` with what is wrong with it. Whatever looks like an option of ssh is
    ///   refused, since user and host become words of its command line.
    package init(_ text: String) throws(StorageError) {
        func refusal(_ cause: String, hint: String) -> StorageError {
            StorageError(
                .unsupported, .open, location: SFTPLocation.withoutPassword(text), cause: cause,
                hint: hint)
        }
        let form = "write sftp://[user@]host[:port]/absolute/path"
        guard text.lowercased().hasPrefix(SFTPLocation.scheme) else {
            throw refusal("it does not begin with sftp://", hint: form)
        }
        let rest = text.utf8.dropFirst(SFTPLocation.scheme.utf8.count)
        guard let slash = rest.firstIndex(of: UInt8(ascii: "/")) else {
            throw refusal("it names no path on the server", hint: form)
        }
        var authority = rest[..<slash]
        if let at = authority.lastIndex(of: UInt8(ascii: "@")) {
            let encoded = authority[..<at]
            guard !encoded.contains(UInt8(ascii: ":")) else {
                throw refusal(
                    "a password must not stand in an address",
                    hint: "put the password into a file of mode 0600 and name it by --password-file"
                )
            }
            guard let bytes = percentDecoded(encoded),
                let name = String(validating: bytes, as: UTF8.self),
                SFTPLocation.isSafeWord(name)
            else { throw refusal("its user name cannot be used", hint: form) }
            user = name
            authority = authority[authority.index(after: at)...]
        } else {
            user = nil
        }
        guard let (host, port) = SFTPLocation.hostAndPort(authority) else {
            throw refusal("its host or port cannot be used", hint: form)
        }
        self.host = host
        self.port = port
        guard var path = percentDecoded(rest[slash...]), !path.contains(0) else {
            throw refusal("its path is not percent-encoded correctly", hint: form)
        }
        let components = path.split(separator: UInt8(ascii: "/"))
        guard !components.contains(where: { $0.elementsEqual("..".utf8) }) else {
            throw refusal("its path contains ..", hint: "name the directory itself")
        }
        path = components.filter { !$0.elementsEqual(".".utf8) }
            .flatMap { [UInt8(ascii: "/")] + $0 }
        guard path.count <= SFTPLocation.maximumPathBytes else {
            throw refusal("its path is too long", hint: form)
        }
        self.path = path
    }

    /// The address as its user would write it, percent-encoded where it has to be.
    package var description: String {
        var text = SFTPLocation.scheme
        if let user { text += percentEncoded(user.utf8) + "@" }
        text += host.contains(":") ? "[\(host)]" : host
        if let port { text += ":\(port)" }
        return text + (path.isEmpty ? "/" : percentEncoded(path))
    }

    /// The path itself, for the server.
    var rootPath: [UInt8] { path.isEmpty ? [UInt8(ascii: "/")] : path }

    /// What begins every such address.
    package static let scheme = "sftp://"
    /// Room for a key behind it, within what Linux takes as a path.
    private static let maximumPathBytes = 4096 - ObjectKey.maximumBytes - 2

    private static func hostAndPort(_ authority: Substring.UTF8View) -> (String, Int?)? {
        var host = authority
        var port: Substring.UTF8View?
        if authority.first == UInt8(ascii: "[") {
            guard let close = authority.firstIndex(of: UInt8(ascii: "]")) else { return nil }
            host = authority[authority.index(after: authority.startIndex)..<close]
            let behind = authority[authority.index(after: close)...]
            guard behind.isEmpty || behind.first == UInt8(ascii: ":") else { return nil }
            port = behind.isEmpty ? nil : behind.dropFirst()
            guard host.contains(UInt8(ascii: ":")) else { return nil }
        } else if let colon = authority.lastIndex(of: UInt8(ascii: ":")) {
            host = authority[..<colon]
            port = authority[authority.index(after: colon)...]
            guard !host.contains(UInt8(ascii: ":")) else { return nil }
        }
        guard let name = String(Substring(host)) as String?, isSafeHost(name) else { return nil }
        guard let port else { return (name, nil) }
        guard let number = Int(Substring(port)), (1...65_535).contains(number),
            port.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
        else { return nil }
        return (name, number)
    }

    /// Letters, digits and the few others of names, addresses and IPv6 zones; no leading `-`.
    private static func isSafeHost(_ host: String) -> Bool {
        let others = Array("._-:%".utf8)
        return !host.isEmpty && host.utf8.first != UInt8(ascii: "-")
            && host.utf8.allSatisfy { isLetterOrDigit($0) || others.contains($0) }
    }

    /// Not empty, no option, nothing that would break a line of a message.
    private static func isSafeWord(_ word: String) -> Bool {
        !word.isEmpty && word.utf8.first != UInt8(ascii: "-")
            && word.unicodeScalars.allSatisfy { $0.value > 0x20 && $0.value != 0x7F }
    }

    /// The address for a message about it: what stands between user and host is left out.
    private static func withoutPassword(_ text: String) -> String {
        guard text.lowercased().hasPrefix(scheme) else { return text }
        let rest = text.dropFirst(scheme.count)
        let authority = rest.prefix { $0 != "/" }
        guard let at = authority.lastIndex(of: "@"),
            let colon = authority[..<at].firstIndex(of: ":")
        else { return text }
        return scheme + authority[..<colon] + rest[at...]
    }
}

private func isLetterOrDigit(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"):
        true
    default: false
    }
}

/// What `text` stands for; nil where a `%` is not followed by two hexadecimal digits.
private func percentDecoded(_ text: some Sequence<UInt8>) -> [UInt8]? {
    var decoded: [UInt8] = []
    var bytes = text.makeIterator()
    while let byte = bytes.next() {
        guard byte == UInt8(ascii: "%") else {
            decoded.append(byte)
            continue
        }
        guard let high = bytes.next().flatMap(hexadecimalValue),
            let low = bytes.next().flatMap(hexadecimalValue)
        else { return nil }
        decoded.append(high << 4 | low)
    }
    return decoded
}

/// `bytes` with everything but letters, digits and `/._-~+@=,` as `%XX`.
private func percentEncoded(_ bytes: some Sequence<UInt8>) -> String {
    let plain = Array("/._-~+=,".utf8)
    let digits = Array("0123456789ABCDEF".utf8)
    var text: [UInt8] = []
    for byte in bytes {
        if isLetterOrDigit(byte) || plain.contains(byte) {
            text.append(byte)
        } else {
            text += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
        }
    }
    return String(decoding: text, as: UTF8.self)
}

/// The value of a hexadecimal digit in ASCII.
func hexadecimalValue(_ digit: UInt8) -> UInt8? {
    switch digit {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
    default: nil
    }
}
