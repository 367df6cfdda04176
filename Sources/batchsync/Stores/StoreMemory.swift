import ObjectStorage
import SnapshotModel
import SnapshotRepository

/// What this host has learned of a store and starts from next time: how many calls at once it bore,
/// and what a probe found. May be lost at any time; then it is learned again.
struct StoreMemory: Sendable {
    /// Calls at once at which the last run settled.
    var concurrency: Int?
    /// What a probe of an S3 service found, as `S3Traits` writes it.
    var s3Traits: String?
    /// Where a bucket turned out to be that no probe has been made of.
    var s3Region: String?

    private let path: String

    init(_ location: String, directories: HostDirectories) {
        // The address can hold a user's name and any other byte: it is no file name.
        path = "\(directories.state)/stores/\(directories.placeName(location)).json"
        guard let bytes = try? LocalFile.read(path, maximumBytes: 1 << 16),
            let value = JSONValue(parsing: bytes)
        else { return }
        concurrency = value["concurrency"]?.count
        s3Traits = value["s3"]?.string
        s3Region = value["s3_region"]?.string
    }

    /// Keeps it; a state directory that cannot be written costs the next run some time.
    func save() {
        var fields: [(key: String, value: JSONValue)] = []
        if let concurrency { fields.append(("concurrency", .count(concurrency))) }
        if let s3Traits { fields.append(("s3", .string(s3Traits))) }
        if let s3Region { fields.append(("s3_region", .string(s3Region))) }
        try? LocalFile.write(JSONValue.object(fields).bytes + [0x0A], to: path)
    }
}
