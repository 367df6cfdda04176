/// Where a store is, as a user writes it.
///
/// `sftp://[user@]host[:port]/absolute/path`, `s3://bucket[/prefix]`, or the path of a directory. A
/// directory whose path looks like an address is written `./…`.
package enum StoreLocation: Sendable, Equatable {
    case directory(String)
    case sftp(SFTPLocation)
    /// What lies behind `s3://`; where the service is depends on more than the address.
    case s3(String)

    /// - Throws: `.unsupported` for an address of another kind, or one that is not well formed.
    package init(_ text: String) throws(StorageError) {
        guard let scheme = Self.scheme(of: text) else {
            self = .directory(text)
            return
        }
        switch scheme {
        case "sftp": self = .sftp(try SFTPLocation(text))
        case "s3": self = .s3(text)
        default:
            throw StorageError(
                .unsupported, .open, location: text,
                cause: "\(scheme):// is no kind of store",
                hint:
                    "write a path, sftp://[user@]host[:port]/path or s3://bucket[/prefix]; a directory of that name is written ./\(text)"
            )
        }
    }

    /// The word before `://` where the text is an address.
    private static func scheme(of text: String) -> String? {
        let word = text.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "+") }
        guard !word.isEmpty, text[word.endIndex...].hasPrefix("://") else { return nil }
        return word.lowercased()
    }
}
