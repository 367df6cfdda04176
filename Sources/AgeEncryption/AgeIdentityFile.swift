/// The text file in which identities are kept: one per line; empty lines and lines that begin with
/// `#` say nothing. Lines end with LF or CRLF.
package enum AgeIdentityFile {
    /// The identities in their order, at least one. An error names the line, never its text.
    package static func parse(_ bytes: [UInt8]) throws(AgeError) -> [X25519Identity] {
        var identities: [X25519Identity] = []
        var number = 0
        for slice in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
            number += 1
            let line = slice.last == UInt8(ascii: "\r") ? slice.dropLast() : slice
            guard let first = line.first, first != UInt8(ascii: "#") else { continue }
            let text = String(decoding: line, as: UTF8.self)
            do {
                identities.append(try X25519Identity(parsing: text))
            } catch {
                throw AgeError(
                    error.kind, .read, "line \(number) of the identity file", error.cause)
            }
        }
        guard !identities.isEmpty else {
            throw AgeError(
                .malformedIdentity, .read, "the identity file", "it contains no identity")
        }
        return identities
    }
}
