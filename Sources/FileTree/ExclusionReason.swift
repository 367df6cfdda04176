/// Where an exclusion rule was written.
package enum ExclusionSource: Sendable, Hashable {
    /// `--exclude`; the line is the option's place among its like, counted from 1.
    case option
    /// A file of rules given by `--exclude-from`, named as it was given.
    case file([UInt8])
    /// A `.batchsyncignore`, by its absolute path.
    case ignoreFile([UInt8])
}

/// What decided that an entry is left out, or kept against another rule: enough to find the spot.
package enum ExclusionReason: Sendable, Hashable, CustomStringConvertible {
    /// A pattern. `text` is the rule as it is written, with its `!` where it has one.
    case rule(text: [UInt8], source: ExclusionSource, line: Int)
    /// The directory that the entry lies in holds a marker of this name (`--exclude-if-present`).
    case marker(name: [UInt8])
    /// The directory that the entry lies in holds a valid CACHEDIR.TAG (`--exclude-caches`).
    case cacheDirectory
    /// The file is larger than `--exclude-larger-than` allows. Both in bytes.
    case tooLarge(size: UInt64, limit: UInt64)
    /// The entry carries the inode flag "no dump".
    case noDump
    /// The entry lies on another file system than its root (`--one-file-system`).
    case otherFileSystem
    /// The entry lies on a file system that holds no files (`/proc`, `/sys`).
    case kernelFileSystem

    /// A phrase that completes "excluded by …".
    package var description: String {
        switch self {
        case .rule(let text, .option, _):
            "--exclude '\(printable(text))'"
        case .rule(let text, .file(let path), let line),
            .rule(let text, .ignoreFile(let path), let line):
            "'\(printable(text))' (\(printable(path)), line \(line))"
        case .marker(let name):
            "the marker \(printable(name)) in its directory"
        case .cacheDirectory:
            "the CACHEDIR.TAG in its directory"
        case .tooLarge(let size, let limit):
            "its size: \(size) bytes, and --exclude-larger-than allows \(limit)"
        case .noDump:
            "its inode flag \"no dump\""
        case .otherFileSystem:
            "--one-file-system: it lies on another one than its root"
        case .kernelFileSystem:
            "its file system, which holds what the kernel shows and no files"
        }
    }
}

/// What the patterns say of one entry.
///
/// Making one on the hot path allocates nothing; the reason is put together when it is asked for.
package struct ExclusionDecision: Sendable, CustomStringConvertible {
    package let isExcluded: Bool
    private let list: ExclusionRuleList?
    private let index: Int

    /// No rule matches, so the entry is kept.
    static let kept = ExclusionDecision()

    private init() {
        isExcluded = false
        list = nil
        index = 0
    }

    init(list: ExclusionRuleList, index: Int) {
        isExcluded = !list.isNegated(index)
        self.list = list
        self.index = index
    }

    /// The rule that decided: the excluding one, or the one with `!` that keeps the entry. Nil
    /// where no rule matches.
    package var reason: ExclusionReason? { list?.reason(index) }

    /// "excluded by …", "kept by …" or "kept: no rule matches".
    package var description: String {
        guard let reason else { return "kept: no rule matches" }
        return (isExcluded ? "excluded by " : "kept by ") + reason.description
    }
}

/// The bytes as text for a message: what is no UTF-8, and what would steer a terminal, as `\xNN`.
private func printable(_ bytes: [UInt8]) -> String {
    var text = ""
    var start = bytes.startIndex
    while start < bytes.endIndex {
        var input = bytes[start...].makeIterator()
        // A decoder per character, since one reads ahead and the offset would be lost.
        var decoder = UTF8()
        if case .scalarValue(let scalar) = decoder.decode(&input), scalar.value >= 0x20,
            !(0x7f...0x9f).contains(scalar.value)
        {
            text.unicodeScalars.append(scalar)
            start += UTF8.width(scalar)
        } else {
            let digits = String(bytes[start], radix: 16)
            text += "\\x" + (digits.count == 1 ? "0" : "") + digits
            start += 1
        }
    }
    return text
}
