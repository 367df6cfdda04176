import SnapshotModel

/// Small records of a store behind a line, as they were fetched, in this host's cache.
///
/// A record's name is the digest of its bytes and nothing ever changes it, so what lies here is as
/// good as what lies there: it goes through the same checks when it is opened. Failing to write one
/// is no error.
struct RecordCache: Sendable {
    private let folder: String

    init(_ repository: Repository) { folder = repository.storeCachePath + "/records" }

    /// Kinds that are read again and again. The index has its tables, and runs come and go.
    static func holds(_ type: RecordType) -> Bool { type != .index && type != .run }

    private func path(_ name: RecordName) -> String {
        "\(folder)/\(name.type.prefix)\(name.text)"
    }

    /// Whether there is something under its name, whatever it is worth.
    func mayHold(_ name: RecordName) -> Bool { LocalFile.exists(path(name)) }

    func read(_ name: RecordName) -> [UInt8]? {
        guard
            let bytes = try? LocalFile.read(path(name), maximumBytes: name.type.storedMaximumBytes)
        else { return nil }
        let digest: RecordID = Authentication.digest(bytes)
        return digest == name.id ? bytes : nil
    }

    func write(_ bytes: [UInt8], as name: RecordName) {
        try? LocalFile.write(bytes, to: path(name))
    }

    /// Removes what is no longer listed.
    func keep(_ listing: RecordListing) {
        for type in RecordType.allCases where Self.holds(type) {
            let listed = Set(listing.names(type).map(\.text))
            let place = "\(folder)/\(type.prefix)"
            for file in LocalFile.names(in: place) where !listed.contains(file) {
                LocalFile.remove(place + file)
            }
        }
    }
}
