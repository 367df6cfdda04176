import ArgumentParser
import Glibc
import SnapshotModel

/// The words of the command line without loss. Linux passes bytes; a Swift string repairs what is
/// not UTF-8, and the file of that name could never be named again.
///
/// A byte that belongs to no UTF-8 text travels through the parser as a scalar of its own, at the
/// end of the last private plane, and becomes a byte again where a path is asked for. Text that
/// holds one of those scalars itself is written byte by byte in the same way, so nothing is
/// ambiguous.
enum RawArguments {
    private static let base: UInt32 = 0x10_FF00

    /// All words, the program's name first.
    static var all: [String] {
        var words: [String] = []
        for index in 0..<Int(CommandLine.argc) {
            guard let word = CommandLine.unsafeArgv[index] else { break }
            words.append(text(Array(UnsafeRawBufferPointer(start: word, count: strlen(word)))))
        }
        return words
    }

    /// The value of a variable of the environment, byte for byte; nil where it is not set or empty.
    static func environment(_ name: String) -> [UInt8]? {
        guard let value = getenv(name), value.pointee != 0 else { return nil }
        return Array(UnsafeRawBufferPointer(start: value, count: strlen(value)))
    }

    /// The variables of the environment whose values are text.
    static var variables: [String: String] {
        var variables: [String: String] = [:]
        var next = environ
        while let entry = next.pointee {
            let bytes = Array(UnsafeRawBufferPointer(start: entry, count: strlen(entry)))
            if let text = String(validating: bytes, as: UTF8.self),
                let equals = text.firstIndex(of: "=")
            {
                variables[String(text[..<equals])] = String(text[text.index(after: equals)...])
            }
            next += 1
        }
        return variables
    }

    static func text(_ bytes: [UInt8]) -> String {
        if UTF8Text.isValid(bytes) {
            let text = String(decoding: bytes, as: UTF8.self)
            if !text.unicodeScalars.contains(where: { $0.value >= base + 0x80 }) { return text }
        }
        var text = String.UnicodeScalarView()
        var rest = bytes[...]
        while let first = rest.first {
            var input = rest.makeIterator()
            // A decoder for each character: one reads ahead after an error, and its place would be
            // lost.
            var decoder = UTF8()
            if case .scalarValue(let scalar) = decoder.decode(&input), scalar.value < base + 0x80 {
                text.append(scalar)
                rest = rest.dropFirst(UTF8.width(scalar))
            } else if let scalar = Unicode.Scalar(base + UInt32(first)) {
                text.append(scalar)
                rest = rest.dropFirst()
            }
        }
        return String(text)
    }

    static func bytes(_ text: String) -> [UInt8] {
        var bytes: [UInt8] = []
        for scalar in text.unicodeScalars {
            if scalar.value >= base + 0x80 {
                bytes.append(UInt8(truncatingIfNeeded: scalar.value))
            } else {
                bytes.append(contentsOf: Array(String(scalar).utf8))
            }
        }
        return bytes
    }

    /// Whether every byte of the word belongs to UTF-8 text.
    static func isText(_ word: String) -> Bool {
        !word.unicodeScalars.contains { $0.value >= base + 0x80 } || UTF8Text.isValid(bytes(word))
    }

    /// The words of the parser with the bytes that are no text shown as `\xNN`, line by line.
    static func display(_ message: String) -> String {
        message.split(separator: "\n", omittingEmptySubsequences: false)
            .map { isText(String($0)) ? String($0) : UTF8Text.display(bytes(String($0))) }
            .joined(separator: "\n")
    }
}

/// A path, or another word that is bytes.
struct PathArgument: ExpressibleByArgument, Sendable {
    let bytes: [UInt8]

    init(_ bytes: [UInt8]) { self.bytes = bytes }
    init(argument: String) { bytes = RawArguments.bytes(argument) }

    var display: String { UTF8Text.display(bytes) }
    var defaultValueDescription: String { display }
    static var defaultCompletionKind: CompletionKind { .file() }
}

/// Takes a word that has to be text, such as a tag: `@Option(transform: plainText)`.
@Sendable func plainText(_ word: String) throws -> String {
    guard RawArguments.isText(word) else {
        throw ValidationError("'\(RawArguments.display(word))' is not UTF-8")
    }
    return String(decoding: RawArguments.bytes(word), as: UTF8.self)
}
