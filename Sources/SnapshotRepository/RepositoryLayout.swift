import ObjectStorage
package import SnapshotModel

/// The kinds of record of format.md section 6, by the prefix they lie under.
package enum RecordType: String, Sendable, CaseIterable {
    case index, snapshot, run, condemned, forgotten, verified, mark

    /// The folder in the repository.
    package var prefix: String {
        switch self {
        case .index: "index/"
        case .snapshot: "snapshots/"
        case .run: "runs/"
        case .condemned: "condemned/"
        case .forgotten: "forgotten/"
        case .verified: "verified/"
        case .mark: "marks/"
        }
    }

    /// Bytes of plaintext above which a reader refuses (format.md section 13).
    var maximumBytes: Int { self == .index ? 1 << 30 : 64 << 20 }
    /// Stored bytes above which a reader refuses: sealing and compressing add a little; a stored
    /// record is never larger than its plain text may be, and some.
    var storedMaximumBytes: Int { maximumBytes + (1 << 20) }
    var isLines: Bool { self == .index }

    /// The fields that this release knows in the payload (format.md sections 10 and 11).
    var knownFields: Set<String> {
        switch self {
        case .index: []
        case .snapshot: Snapshot.knownFields
        case .run:
            ["time", "host", "run", "sequence", "started", "roots", "bundles", "uses", "segments"]
        case .condemned: ["time", "host", "state", "bundles", "index", "records", "snapshots"]
        case .forgotten: ["time", "host", "snapshots", "restored"]
        case .verified: ["time", "host", "bundles"]
        case .mark: ["time", "host", "snapshot", "add", "remove", "pin", "description"]
        }
    }
}

/// The name of a record: when it was made (index records carry no time) and the SHA-256 of its
/// bytes.
package struct RecordName: Hashable, Sendable, Comparable {
    package let type: RecordType
    /// `YYYYMMDDThhmmssZ`, empty for index records.
    package let utc: String
    package let id: RecordID

    package static func < (left: RecordName, right: RecordName) -> Bool {
        left.utc != right.utc ? left.utc < right.utc : left.id < right.id
    }

    /// What records of later format call it: without folder and ending.
    package var text: String { utc.isEmpty ? id.description : "\(utc)-\(id)" }

    package init(type: RecordType, utc: String, id: RecordID) {
        self.type = type
        self.utc = utc
        self.id = id
    }

    /// From `utc-id` or `id`, as records name each other.
    package init?(type: RecordType, text: String) {
        if type.isLines {
            guard let id = RecordID(text) else { return nil }
            self.init(type: type, utc: "", id: id)
            return
        }
        let parts = text.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2, let id = RecordID(parts[1]), Self.isUTC(parts[0]) else {
            return nil
        }
        self.init(type: type, utc: String(parts[0]), id: id)
    }

    /// The time that the name tells; nil for index records.
    package var time: Timestamp? {
        let digits = utc.utf8.filter { $0 != 0x54 && $0 != 0x5A }.map { Int($0) - 48 }
        guard digits.count == 14 else { return nil }
        func number(_ range: Range<Int>) -> Int { digits[range].reduce(0) { $0 * 10 + $1 } }
        return Timestamp(
            year: number(0..<4), month: number(4..<6), day: number(6..<8), hour: number(8..<10),
            minute: number(10..<12), second: number(12..<14))
    }

    static func isUTC(_ text: Substring) -> Bool {
        let bytes = Array(text.utf8)
        guard bytes.count == 16, bytes[8] == 0x54, bytes[15] == 0x5A else { return false }
        return bytes.enumerated().allSatisfy {
            $0.offset == 8 || $0.offset == 15 || ($0.element &- 48) < 10
        }
    }
}

/// The only file that spells an object's name (format.md section 2).
struct RepositoryLayout: Sendable {
    let isEncrypted: Bool

    static let config = ObjectKey(validated: "config.json")
    static let recoverPage = ObjectKey(validated: "RECOVER.md")
    static let recoverProgram = ObjectKey(validated: "recover.py")
    static let keys = "keys/"
    static let bundles = "bundles/"

    private var suffix: String { isEncrypted ? ".age" : "" }

    func bundle(_ id: BundleID) -> ObjectKey {
        let name = id.description
        return ObjectKey(validated: "bundles/\(name.prefix(2))/\(name).tar.zst\(suffix)")
    }

    func bundleID(_ key: ObjectKey) -> BundleID? {
        let parts = key.text.split(separator: "/")
        let ending = ".tar.zst\(suffix)"
        guard parts.count == 3, parts[2].hasSuffix(ending),
            let id = BundleID(parts[2].dropLast(ending.count)),
            parts[1] == id.description.prefix(2)
        else { return nil }
        return id
    }

    private func ending(_ type: RecordType) -> String {
        (type.isLines ? ".jsonl.zst" : ".json.zst") + suffix
    }

    func record(_ name: RecordName) -> ObjectKey {
        ObjectKey(validated: name.type.prefix + name.text + ending(name.type))
    }

    func recordName(_ key: ObjectKey, type: RecordType) -> RecordName? {
        guard key.text.hasPrefix(type.prefix), key.text.hasSuffix(ending(type)) else { return nil }
        return RecordName(
            type: type,
            text: String(key.text.dropFirst(type.prefix.count).dropLast(ending(type).count)))
    }

    static func ownerKey(label: String, id: RecordID) -> ObjectKey {
        ObjectKey(validated: "keys/owner-\(label)-\(id).age")
    }
    static func hostKey(id: RecordID) -> ObjectKey { ObjectKey(validated: "keys/host-\(id).age") }
    static func recipients(number: Int, id: RecordID) -> ObjectKey {
        ObjectKey(validated: "keys/recipients-\(number)-\(id).json")
    }
}

/// An object below `keys/`.
package struct KeyObject: Sendable, Equatable {
    package enum Role: Sendable, Equatable {
        case owner(label: String)
        case host
        case recipients(number: Int)
    }
    package let role: Role
    package let id: RecordID
    let key: ObjectKey

    init?(_ key: ObjectKey) {
        guard key.text.hasPrefix("keys/") else { return nil }
        var name = key.text.dropFirst(5)
        let isAge = name.hasSuffix(".age")
        guard isAge || name.hasSuffix(".json") else { return nil }
        name = name.dropLast(isAge ? 4 : 5)
        let parts = name.split(separator: "-", omittingEmptySubsequences: false)
        guard let last = parts.last, let id = RecordID(last) else { return nil }
        self.id = id
        self.key = key
        switch (parts.first, parts.count, isAge) {
        case ("owner", 3, true): role = .owner(label: String(parts[1]))
        case ("host", 2, true): role = .host
        case ("recipients", 3, false):
            guard let number = Int(parts[1]), number > 0 else { return nil }
            role = .recipients(number: number)
        default: return nil
        }
    }

    /// The object's name in the repository.
    package var name: String { key.text }
}
