import BundleFormat
package import SnapshotModel
package import SnapshotRepository

/// What `RepairIndex` has done.
package struct RepairIndexReport: Sendable {
    /// A bundle or record that could not be read whole.
    package struct Damage: Sendable {
        package let object: String
        package let message: String
        /// Frames of it that could be read all the same, and went into the index.
        package let frames: Int
    }

    package var bundles = 0
    package var bundleBytes = 0
    package var chunks = 0
    package var segments = 0
    package var recordsWritten = 0
    package var recordsRemoved = 0
    package var damaged: [Damage] = []
    /// Listed snapshots whose manifest or content is not all there, the oldest first.
    package var harmedSnapshots: [SnapshotID] = []
    /// Files that are not whole: the first few, and how many versions of files.
    package var harmedPaths: [[UInt8]] = []
    package var harmedPathCount = 0

    package var isSound: Bool { damaged.isEmpty && harmedSnapshots.isEmpty }
}

/// Makes the index anew from the bundles alone: reads all of them, hashes every chunk, then reads
/// every manifest. Needs an owner's identity.
///
/// Nothing that is stored is relied on but what proves itself. Old index records go last, once the
/// new ones are durable, so whoever reads meanwhile finds one index or the other, or both, which
/// say the same. A damaged bundle is named; of its frames those are indexed that are sound, and
/// what relied on the others gets no line, so that the next backup stores it anew where the file is
/// still there.
package final class RepairIndex {
    private let repository: Repository
    private let monitor: any Monitor
    private let cancellation: Cancellation
    private var report = RepairIndexReport()

    package init(repository: Repository, monitor: any Monitor, cancellation: Cancellation) {
        self.repository = repository
        self.monitor = monitor
        self.cancellation = cancellation
    }

    package func run() throws(ReplicationError) -> RepairIndexReport {
        guard repository.access.canReadContent else {
            throw ReplicationError(
                RepositoryError(
                    .wrongKey, repository.location,
                    "the owner's identity is needed to read bundles",
                    remedy: "give the passphrase, or --identity FILE"))
        }
        report = RepairIndexReport()
        let repository = repository
        // Old records are listed before bundles: whatever they describe is then in the listing too,
        // unless it has been deleted.
        let old = try lifted { try repository.listRecords(.index).map(\.name) }
        let snapshots = try readSnapshots()
        var damaged: [RepositoryError] = []
        let condemned = try lifted { try CondemnedView.load(repository, damaged: &damaged) }
        let listed = try lifted { try repository.listBundles() }

        monitor.phase("bundles")
        let writer = RepairIndexWriter(repository)
        let chunks = RepairIndexChunks(condemned: condemned.bundles)
        let scan = RepairIndexBundles(
            repository, listed: listed, writer: writer, chunks: chunks, monitor: monitor,
            cancellation: cancellation)
        let torn = try scan.run()
        report.damaged = try scan.salvage(torn, from: old)
        try writer.flush()
        chunks.sort()
        report.bundles = listed.count
        report.bundleBytes = listed.values.reduce(0, +)
        report.chunks = chunks.count

        monitor.phase("manifests")
        let segments = try RepairIndexSegments(
            repository, chunks: chunks, writer: writer, monitor: monitor, cancellation: cancellation
        )
        for (snapshot, isListed) in snapshots {
            try cancellation.check()
            let isWhole = try segments.add(snapshot)
            if !isWhole, isListed { report.harmedSnapshots.append(snapshot.id) }
        }
        try segments.carryOver(old, listed: listed)
        try writer.flush()
        report.segments = segments.lineCount
        report.harmedPaths = segments.harmedPaths
        report.harmedPathCount = segments.harmedPathCount

        monitor.phase("index")
        let written = writer.records
        for name in old {
            try lifted { try repository.deleteRecord(name) }
            report.recordsRemoved += 1
        }
        report.recordsWritten = written.count
        return report
    }

    /// All snapshots, the forgotten ones included: forgetting can be taken back.
    private func readSnapshots() throws(ReplicationError) -> [(snapshot: Snapshot, isListed: Bool)]
    {
        let repository = repository
        let catalog = try lifted { try SnapshotCatalog.load(repository) }
        for error in catalog.damaged {
            report.damaged.append(
                RepairIndexReport.Damage(
                    object: error.subject.isEmpty ? "a record" : error.subject,
                    message: error.message, frames: 0))
        }
        var all = catalog.snapshots.map { (snapshot: $0, isListed: true) }
        for (name, _, _) in try lifted({ try repository.listRecords(.snapshot) }) {
            let id = SnapshotID(name.id.word0, name.id.word1, name.id.word2, name.id.word3)
            guard catalog.forgotten.contains(id), let value = try? repository.readJSON(name),
                let snapshot = try? Snapshot(
                    name: name, json: value, key: repository.recordKey(name))
            else { continue }
            all.append((snapshot, false))
        }
        return all
    }
}

/// Index lines on their way into records. Any thread.
final class RepairIndexWriter: Sendable {
    /// Raw bytes at which a record closes: a reader holds one in memory.
    private static let recordBytes = 32 << 20

    private struct State {
        let lines = ByteBuffer(capacity: 1 << 20)
        var records: Set<RecordName> = []
    }

    private let repository: Repository
    private let state = Monitored(State())

    init(_ repository: Repository) { self.repository = repository }

    var records: Set<RecordName> { state.read { $0.records } }

    /// Adds the lines that `body` writes.
    func add(_ body: (ByteBuffer) -> Void) throws(ReplicationError) {
        try perform { state in
            body(state.lines)
            if state.lines.count >= Self.recordBytes { try self.store(&state) }
        }
    }

    /// Everything added so far is durable when this returns.
    func flush() throws(ReplicationError) {
        try perform { state in if state.lines.count > 0 { try self.store(&state) } }
    }

    private func store(_ state: inout State) throws(RepositoryError) {
        state.records.insert(
            try repository.putRecord(.index, time: nil, payload: state.lines.bytes))
        state.lines.removeAll()
    }

    private func perform(_ body: (inout State) throws -> Void) throws(ReplicationError) {
        let outcome = state.change { state in Result { try body(&state) } }
        try lifted { try outcome.get() }
    }
}

/// In which bundle each chunk lies: sixteen bytes a chunk, so that ten million take 160 MB.
///
/// Keeps 96 bits of each id. They decide only which bundle a line names, never which bytes are
/// read.
final class RepairIndexChunks: @unchecked Sendable {
    // Sendable: filled under `places`, read by one thread after `sort`.
    private struct Place {
        var high: UInt64
        var low: UInt32
        var bundle: UInt32
    }

    private struct Places {
        var list: [Place] = []
        var bundles: [BundleID] = []
    }

    private let places = Monitored(Places())
    private var sorted: [Place] = []
    private var bundles: [BundleID] = []
    private let condemned: Set<BundleID>

    init(condemned: Set<BundleID>) { self.condemned = condemned }

    func add(_ bundle: SealedBundle) {
        places.change { places in
            let number = UInt32(places.bundles.count)
            places.bundles.append(bundle.id)
            for frame in bundle.frames {
                for chunk in frame.chunks {
                    places.list.append(
                        Place(
                            high: chunk.id.word0,
                            low: UInt32(truncatingIfNeeded: chunk.id.word1 >> 32), bundle: number))
                }
            }
        }
    }

    /// Nothing is added any more.
    func sort() {
        (sorted, bundles) = places.change { places in
            let list = places.list
            places.list = []
            return (list, places.bundles)
        }
        sorted.sort { ($0.high, $0.low, $0.bundle) < ($1.high, $1.low, $1.bundle) }
    }

    var count: Int { sorted.count }

    /// The number of a bundle that holds the chunk, one that is not condemned before any other.
    func bundle(_ id: ChunkID) -> UInt32? {
        let low = UInt32(truncatingIfNeeded: id.word1 >> 32)
        var start = 0
        var end = sorted.count
        while start < end {
            let middle = (start + end) / 2
            let place = sorted[middle]
            if place.high < id.word0 || place.high == id.word0 && place.low < low {
                start = middle + 1
            } else {
                end = middle
            }
        }
        var found: UInt32?
        while start < sorted.count, sorted[start].high == id.word0, sorted[start].low == low {
            let bundle = sorted[start].bundle
            if !condemned.contains(bundles[Int(bundle)]) { return bundle }
            if found == nil { found = bundle }
            start += 1
        }
        return found
    }

    func name(_ number: UInt32) -> BundleID { bundles[Int(number)] }
}
