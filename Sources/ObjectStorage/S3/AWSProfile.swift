/// One profile of the files that all AWS tools share, `~/.aws/config` and `~/.aws/credentials`.
///
/// Source: "Configuration and credential file settings" in the AWS SDKs and tools reference guide.
/// In the first a profile stands as `[profile NAME]` or `[default]`, in the second as `[NAME]`; what
/// the second says goes before the first.
struct AWSProfile {
    let name: String
    /// Of both files.
    private let values: [String: String]
    /// The file that holds `aws_access_key_id`, for messages.
    let credentialsPath: String
    /// What the section of services that it names says of S3.
    private let s3Service: [String: String]
    /// Whether either file has it.
    let exists: Bool

    /// - Parameter name: Nil for the one that the environment names, or `default`.
    /// - Throws: Where one of the files is there and cannot be read.
    static func read(
        _ name: String?, _ environment: AWSEnvironment
    ) throws(S3CredentialsError) -> AWSProfile {
        let name =
            name ?? environment["AWS_PROFILE"]
            ?? environment["AWS_DEFAULT_PROFILE"] ?? "default"
        let configPath = environment.expanded(
            environment["AWS_CONFIG_FILE"] ?? "~/.aws/config")
        let credentialsPath = environment.expanded(
            environment["AWS_SHARED_CREDENTIALS_FILE"] ?? "~/.aws/credentials")
        let config = try AWSFile.read(configPath, environment)
        let credentials = try AWSFile.read(credentialsPath, environment)
        let inConfig =
            config.section("profile \(name)") ?? (name == "default" ? config.section(name) : nil)
        let inCredentials = credentials.section(name)
        let services = inConfig?["services"].flatMap { config.section("services \($0)") }
        return AWSProfile(
            name: name,
            values: (inConfig ?? [:]).merging(inCredentials ?? [:]) { $1 },
            credentialsPath: inCredentials?["aws_access_key_id"] == nil
                ? configPath : credentialsPath,
            s3Service: services ?? [:], exists: inConfig != nil || inCredentials != nil)
    }

    private init(
        name: String, values: [String: String], credentialsPath: String,
        s3Service: [String: String], exists: Bool
    ) {
        self.name = name
        self.values = values
        self.credentialsPath = credentialsPath
        self.s3Service = s3Service
        self.exists = exists
    }

    subscript(key: String) -> String? { values[key].flatMap { $0.isEmpty ? nil : $0 } }

    /// The endpoint for S3, of its section of services or of the profile itself.
    var endpoint: String? { s3Service["s3.endpoint_url"] ?? self["endpoint_url"] }

    /// `path`, `virtual` or `auto`.
    var addressingStyle: String? { self["s3.addressing_style"] }
}

/// A file of sections: `[NAME]`, and below it `key = value`, where a key without a value may have
/// keys of its own, indented, which are called `key.inner`.
struct AWSFile {
    private var sections: [String: [String: String]] = [:]

    static func read(
        _ path: String, _ environment: AWSEnvironment
    ) throws(S3CredentialsError) -> AWSFile {
        switch environment.readFile(path) {
        case .missing: return AWSFile("")
        case .bytes(let bytes): return AWSFile(String(decoding: bytes, as: UTF8.self))
        case .unreadable(let reason):
            throw S3CredentialsError(
                "cannot read \(path): \(reason)", hint: "make it readable for this user")
        }
    }

    init(_ text: String) {
        var section: String?
        var outer: String?
        for line in text.split(whereSeparator: \.isNewline) {
            let isIndented = line.first == " " || line.first == "\t"
            let words = AWSFile.withoutComment(line)
            if words.isEmpty { continue }
            if !isIndented, words.first == "[", let end = words.firstIndex(of: "]") {
                let name = words[words.index(after: words.startIndex)..<end]
                section = AWSFile.normalized(name)
                outer = nil
                // Named twice, a section is one.
                if let section { sections[section, default: [:]].merge([:]) { $1 } }
                continue
            }
            guard let section, let equals = words.firstIndex(of: "=") else { continue }
            let key = AWSFile.trimmed(words[..<equals]).lowercased()
            let value = AWSFile.trimmed(words[words.index(after: equals)...])
            if isIndented, let outer {
                sections[section]?["\(outer).\(key)"] = value
            } else {
                outer = value.isEmpty ? key : nil
                sections[section]?[key] = value
            }
        }
    }

    func section(_ name: String) -> [String: String]? { sections[name] }

    /// `profile "name"` as `profile name`.
    private static func normalized(_ name: Substring) -> String {
        name.split(whereSeparator: \.isWhitespace).joined(separator: " ")
            .filter { $0 != "\"" && $0 != "'" }
    }

    /// A comment begins the line, or stands behind a blank.
    private static func withoutComment(_ line: Substring) -> Substring {
        var previous: Character = " "
        var end = line.endIndex
        for index in line.indices {
            let character = line[index]
            if character == "#" || character == ";", previous == " " || previous == "\t" {
                end = index
                break
            }
            previous = character
        }
        return trimmed(line[..<end])[...]
    }

    private static func trimmed(_ text: Substring) -> String {
        var rest = text.drop(while: \.isWhitespace)
        while rest.last?.isWhitespace == true { rest.removeLast() }
        return String(rest)
    }
}
