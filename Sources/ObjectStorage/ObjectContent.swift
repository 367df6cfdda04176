package import Transfer

/// What a store says of an object, in a listing or when asked for one key.
package struct StoredObject: Sendable, Equatable {
    package let key: ObjectKey
    /// Length of the stored bytes.
    package let length: Int
    /// When the object came into being, in whole seconds since 1970 by the store's own clock; nil
    /// where the store does not tell.
    package let modified: Int64?
    /// The MD5 of the stored bytes (16 bytes) where the store shows it. In a listing it may be
    /// something else of the same form, as an S3 service shows it of what a customer's key has
    /// encrypted: there only equality proves something.
    package let md5: [UInt8]?
    /// The SHA-256 of the stored bytes (32 bytes) where the store keeps one and tells it when asked
    /// for the key.
    package let sha256: [UInt8]?

    package init(
        key: ObjectKey, length: Int, modified: Int64? = nil, md5: [UInt8]? = nil,
        sha256: [UInt8]? = nil
    ) {
        self.key = key
        self.length = length
        self.modified = modified
        self.md5 = md5
        self.sha256 = sha256
    }
}

/// The complete and unchanging content of an object that is about to be put.
///
/// Length and SHA-256 are known before a byte leaves, so a request can carry both and a retry can
/// begin again from the first byte.
package struct ObjectContent: Sendable {
    /// Where the bytes lie.
    package enum Body: Sendable {
        case bytes([UInt8])
        case file(SpoolFile)
    }

    package let body: Body
    /// Length in bytes.
    package let length: Int
    /// The SHA-256 of the bytes, 32 bytes; the caller answers for it.
    package let digest: [UInt8]
    /// The MD5 of the bytes, 16 bytes, where the caller computed it for a store that shows it.
    package let md5: [UInt8]?
    /// How fast the bytes may leave; nil for as fast as they can. A store that sends them over a
    /// line asks it before each piece.
    package var pacer: (any Pacer)?

    package init(bytes: [UInt8], digest: [UInt8], md5: [UInt8]? = nil) {
        precondition(digest.count == 32, "a SHA-256 has 32 bytes")
        precondition(md5 == nil || md5?.count == 16, "an MD5 has 16 bytes")
        self.body = .bytes(bytes)
        self.length = bytes.count
        self.digest = digest
        self.md5 = md5
    }

    /// Takes everything appended to `file` so far; nothing may be appended from here on.
    package init(file: SpoolFile, digest: [UInt8], md5: [UInt8]? = nil) {
        precondition(digest.count == 32, "a SHA-256 has 32 bytes")
        precondition(md5 == nil || md5?.count == 16, "an MD5 has 16 bytes")
        self.body = .file(file)
        self.length = file.length
        self.digest = digest
        self.md5 = md5
    }

    package static func bytes(_ bytes: [UInt8], digest: [UInt8]) -> ObjectContent {
        ObjectContent(bytes: bytes, digest: digest)
    }

    package static func file(_ file: SpoolFile, digest: [UInt8]) -> ObjectContent {
        ObjectContent(file: file, digest: digest)
    }
}
