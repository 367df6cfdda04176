/// The name of an object in a store, relative to the store's root.
///
/// One to many components joined by `/`, each one to 255 bytes of `[A-Za-z0-9._-]` and none of them
/// `.` or `..`; at most 1,024 bytes in all, which is what S3 allows. So a key is at once a legal S3
/// key that needs no escaping, a relative path that cannot leave its root, and a line in a log.
/// Keys compare by their bytes.
package struct ObjectKey: Hashable, Sendable, Comparable, CustomStringConvertible {
    package let text: String

    /// Takes `text` if it is a legal key, else gives nil.
    package init?(_ text: String) {
        guard ObjectKey.isLegal(text) else { return nil }
        self.text = text
    }

    /// Takes a name that the program itself has put together; an illegal one is a bug and traps.
    package init(validated text: String) {
        precondition(ObjectKey.isLegal(text), "illegal object key")
        self.text = text
    }

    /// What a store found under a directory that it has already checked, component by component.
    init(joining directory: String, _ name: String) {
        self.text = directory + name
    }

    package var description: String { text }

    /// All but the last component, without a trailing `/`; empty for a key of one component.
    package var directory: Substring {
        guard let slash = text.utf8.lastIndex(of: UInt8(ascii: "/")) else { return "" }
        return text[..<slash]
    }

    /// The last component.
    package var name: Substring {
        guard let slash = text.utf8.lastIndex(of: UInt8(ascii: "/")) else { return text[...] }
        return text[text.utf8.index(after: slash)...]
    }

    // Swift orders ASCII text by its bytes, and a key is ASCII.
    package static func < (a: ObjectKey, b: ObjectKey) -> Bool { a.text < b.text }

    /// The greatest length of a key in bytes.
    package static let maximumBytes = 1024
    /// The greatest length of one component in bytes: a file name on Linux.
    package static let maximumComponentBytes = 255

    /// Whether `prefix` is empty or a legal key followed by `/`: the prefixes that can be listed.
    package static func isDirectoryPrefix(_ prefix: String) -> Bool {
        prefix.isEmpty || (prefix.utf8.last == UInt8(ascii: "/") && isLegal(prefix.dropLast()))
    }

    /// Whether `name` may stand between two slashes of a key.
    static func isLegalComponent(_ name: some StringProtocol) -> Bool {
        isLegal(name) && !name.utf8.contains(UInt8(ascii: "/"))
    }

    private static func isLegal(_ text: some StringProtocol) -> Bool {
        var length = 0
        var componentLength = 0
        var dots = 0
        for byte in text.utf8 {
            length += 1
            switch byte {
            case UInt8(ascii: "/"):
                guard isComponent(length: componentLength, dots: dots) else { return false }
                componentLength = 0
                dots = 0
            case UInt8(ascii: "."):
                dots += 1
                componentLength += 1
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
                componentLength += 1
            default:
                return false
            }
        }
        return length <= maximumBytes && isComponent(length: componentLength, dots: dots)
    }

    private static func isComponent(length: Int, dots: Int) -> Bool {
        let isDotOrDotDot = length == dots && length <= 2
        return length > 0 && length <= maximumComponentBytes && !isDotOrDotDot
    }
}
