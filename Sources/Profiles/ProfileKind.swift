import SnapshotModel

/// One kind of value: how it is read from a profile, and how it is written as one.
///
/// What is wrong with a value is said as the end of a sentence that the key's name begins.
struct ProfileKind<Value: Sendable>: Sendable {
    /// Finishes "takes …".
    let expectation: String
    /// A value of the kind, as a profile writes it.
    let example: String
    let read: @Sendable (ProfileNode, inout ProfileScope) throws(ProfileProblem) -> Value
    /// Nil for a value that stands for no value.
    let write: @Sendable (Value) -> ProfileNode?

    init(
        _ expectation: String, example: String,
        read:
            @escaping @Sendable (ProfileNode, inout ProfileScope) throws(ProfileProblem) -> Value?,
        write: @escaping @Sendable (Value) -> ProfileNode?
    ) {
        self.expectation = expectation
        self.example = example
        self.write = write
        self.read = { (node, scope) throws(ProfileProblem) in
            guard let value = try read(node, &scope) else {
                throw ProfileProblem(
                    "takes \(expectation), and this is \(node.kind)", line: node.line)
            }
            return value
        }
    }

    /// A kind that is written as text.
    ///
    /// - Parameter parse: Nil for a text that is not of the kind.
    static func written(
        _ expectation: String, example: String, isShell: Bool = false,
        parse: @escaping @Sendable (String) -> Value?, text: @escaping @Sendable (Value) -> String
    ) -> ProfileKind {
        ProfileKind(expectation, example: TOMLText.quoted(example)) {
            (node, scope) throws(ProfileProblem) in
            guard case .text(let raw) = node.value else { return nil }
            let whole = isShell ? raw : try scope.expand(raw)
            guard let value = parse(whole) else {
                throw ProfileProblem(
                    "takes \(expectation), and \(TOMLText.quoted(whole)) is none", line: node.line)
            }
            return value
        } write: {
            .text(text($0))
        }
    }
}

// MARK: - Plain kinds

extension ProfileKind where Value == Bool {
    static var flag: ProfileKind {
        ProfileKind("true or false", example: "true") {
            (node, _) throws(ProfileProblem) in
            if case .flag(let flag) = node.value { flag } else { nil }
        } write: {
            ProfileNode(.flag($0))
        }
    }
}

extension ProfileKind where Value == Int {
    static func whole(_ range: ClosedRange<Int>) -> ProfileKind {
        let expectation = "a whole number from \(range.lowerBound) to \(range.upperBound)"
        return ProfileKind(expectation, example: String(range.lowerBound)) {
            (node, _) throws(ProfileProblem) in
            guard case .whole(let number) = node.value else { return nil }
            guard range.contains(number) else {
                throw ProfileProblem(
                    "takes \(expectation), and \(number) is none", line: node.line)
            }
            return number
        } write: {
            ProfileNode(.whole($0))
        }
    }

    /// A length of time, kept in seconds.
    static func duration(from least: Int = 0, to most: Int? = nil) -> ProfileKind {
        var expectation = "a time with its unit (s, m, h, d, w)"
        if least > 0 { expectation += ", from \(DurationText.text(seconds: least))" }
        if let most { expectation += " to \(DurationText.text(seconds: most))" }
        return written(expectation, example: DurationText.text(seconds: max(least, 7_200))) {
            guard let seconds = DurationText.seconds(parsing: $0), seconds >= least,
                seconds <= most ?? .max
            else { return nil }
            return seconds
        } text: {
            DurationText.text(seconds: $0)
        }
    }
}

extension ProfileKind where Value == String {
    private static func isLine(_ text: String) -> Bool {
        !text.isEmpty && !text.unicodeScalars.contains { $0.value < 0x20 || $0.value == 0x7F }
    }

    /// A line of text.
    static var line: ProfileKind {
        written("a line of text", example: "text") {
            isLine($0) ? $0 : nil
        } text: {
            $0
        }
    }

    /// A line for the shell, where `$` is the shell's.
    static var shell: ProfileKind {
        written(
            "a command for the shell", example: "systemctl stop shop", isShell: true
        ) {
            $0.utf8.contains { $0 > 0x20 } ? $0 : nil
        } text: {
            $0
        }
    }

    /// Text without spaces, such as a name or a region.
    static var word: ProfileKind {
        written("one word", example: "word") {
            isLine($0) && !$0.utf8.contains(0x20) ? $0 : nil
        } text: {
            $0
        }
    }

    static var tag: ProfileKind {
        written("tags, words without a comma", example: "nightly") {
            isLine($0) && !$0.utf8.contains { $0 == 0x20 || $0 == 0x2C } && $0.utf8.count <= 256
                ? $0 : nil
        } text: {
            $0
        }
    }

    static var path: ProfileKind {
        ProfileKind("a path", example: "\"/srv/data\"") {
            (node, scope) throws(ProfileProblem) in
            guard case .text(let text) = node.value else { return nil }
            return try scope.path(text)
        } write: {
            .text($0)
        }
    }

    /// A path or an address.
    static var location: ProfileKind {
        ProfileKind(
            "a directory, sftp://… or s3://…", example: "\"/mnt/backup/repository\""
        ) { (node, scope) throws(ProfileProblem) in
            guard case .text(let text) = node.value else { return nil }
            let isAddress = text.contains("://")
            let location = isAddress ? try scope.expand(text) : try scope.path(text)
            if isAddress, let user = userInformation(of: location), user.contains(":") {
                // The location itself must not be said again: it is the secret.
                throw ProfileProblem(
                    "holds a password, which everybody who sees the profile would see",
                    line: node.line,
                    remedy: "leave it out; password-file names a file that holds it")
            }
            return location
        } write: {
            .text($0)
        }
    }

    /// What stands before the `@` of an address.
    private static func userInformation(of address: String) -> Substring? {
        guard let scheme = address.firstRange(of: "://") else { return nil }
        let authority = address[scheme.upperBound...].prefix { $0 != "/" }
        return authority.lastIndex(of: "@").map { authority[..<$0] }
    }

    /// An address with one of some schemes.
    static func address(_ schemes: String...) -> ProfileKind {
        let names = schemes.map { "\($0)://…" }.joined(separator: " or ")
        return written("an address, \(names)", example: "\(schemes[0])://host.example.org") {
            text in
            let isAddress = schemes.contains { text.hasPrefix($0 + "://") && text != $0 + "://" }
            return isAddress && isLine(text) && !text.utf8.contains(0x20) ? text : nil
        } text: {
            $0
        }
    }
}

// MARK: - Measures

extension ProfileKind where Value == ByteCount {
    static func size(from least: ByteCount = ByteCount(0), to most: ByteCount = ByteCount(.max))
        -> ProfileKind
    {
        var expectation = "a size with its unit"
        if least.bytes > 0 { expectation += ", from \(binary(least))" }
        if most.bytes < .max { expectation += " to \(binary(most))" }
        return written(expectation, example: "64MiB") { text in
            // A number alone would be bytes, which nobody means.
            guard let last = text.utf8.last, !(0x30...0x39).contains(last),
                let count = ByteCount(parsing: text), count >= least, count <= most
            else { return nil }
            return count
        } text: {
            binary($0)
        }
    }

    /// The shortest text that is read as exactly this number.
    private static func binary(_ count: ByteCount) -> String {
        let units: [(String, UInt64)] = [
            ("TiB", 1 << 40), ("TB", 1_000_000_000_000), ("GiB", 1 << 30), ("GB", 1_000_000_000),
            ("MiB", 1 << 20), ("MB", 1_000_000), ("KiB", 1 << 10), ("kB", 1_000),
        ]
        for (name, size) in units where count.bytes >= size && count.bytes % size == 0 {
            return "\(count.bytes / size)\(name)"
        }
        return "\(count.bytes)B"
    }
}

extension ProfileKind where Value == ByteShare {
    static var share: ProfileKind {
        written(
            "a share such as 5% or 1/30, or a size such as 2GiB", example: "5%",
            parse: { ByteShare(parsing: $0) }, text: \.description)
    }
}

extension ProfileKind where Value == RetentionDuration {
    static var retentionDuration: ProfileKind {
        written(
            "a time in years, months, weeks, days and hours (y m w d h)", example: "1y6m",
            parse: { RetentionDuration(parsing: $0) }, text: \.description)
    }
}

extension ProfileKind where Value == RetentionCount? {
    /// 0 stands for no rule, so that an inherited one can be switched off.
    static var retentionCount: ProfileKind {
        ProfileKind(
            "a whole number, or \"unlimited\"", example: "7"
        ) { (node, scope) throws(ProfileProblem) in
            switch node.value {
            case .whole(0): return .some(nil)
            case .whole(let number):
                if let count = RetentionCount(number) { return count }
            case .text(let text):
                if text == "unlimited" { return .some(.unlimited) }
            default: return nil
            }
            throw ProfileProblem(
                "takes a number from 0 on, or \"unlimited\", and \(node.toml) is neither",
                line: node.line)
        } write: { count in
            count.map {
                $0.isLimited ? ProfileNode(.whole(Int($0.description) ?? 0)) : .text("unlimited")
            }
        }
    }
}
