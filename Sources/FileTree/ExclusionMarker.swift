/// A file whose presence says that the directory around it need not be saved.
///
/// The directory itself and the marker are kept, everything else in it is left out: a restore then
/// makes the directory again, and the marker says why it is empty.
package struct ExclusionMarker: Sendable, Hashable {
    /// The marker's name in its directory: one component.
    package let name: [UInt8]
    /// What the marker must begin with; empty where its presence is enough. A marker with a header
    /// counts only as a regular file, so that nothing is read through a link.
    package let header: [UInt8]

    /// The Cache Directory Tagging Specification, <https://bford.info/cachedir/>: the file begins
    /// with these 43 bytes, whatever follows.
    package static let cacheDirectory = ExclusionMarker(
        name: Array("CACHEDIR.TAG".utf8),
        header: Array("Signature: 8a477f597d28d172789f06886806bc55".utf8))

    private init(name: [UInt8], header: [UInt8]) {
        self.name = name
        self.header = header
    }

    /// Reads the value of `--exclude-if-present`: `NAME` or `NAME:HEADER`. The first colon
    /// separates. Nil where `NAME` cannot be the name of a file.
    package init?(option: [UInt8]) {
        let colon = option.firstIndex(of: UInt8(ascii: ":")) ?? option.endIndex
        name = Array(option[..<colon])
        header = Array(option[colon...].dropFirst())
        let dot = UInt8(ascii: ".")
        if name.isEmpty || name == [dot] || name == [dot, dot]
            || name.contains(UInt8(ascii: "/")) || name.contains(0)
        {
            return nil
        }
    }

    /// Whether a file of the marker's name is the marker.
    ///
    /// - Parameter beginning: At least the file's first `header.count` bytes, or the whole file.
    package func isConfirmed(by beginning: [UInt8]) -> Bool {
        beginning.starts(with: header)
    }

    /// The reason that entries beside the marker are left out for.
    package var reason: ExclusionReason {
        self == .cacheDirectory ? .cacheDirectory : .marker(name: name)
    }
}
