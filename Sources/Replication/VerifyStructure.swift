import BundleFormat
import SnapshotModel
import SnapshotRepository

/// What the index records, as they lie in the store, say of each bundle: enough to tell whether a
/// bundle that was read is the one they mean, in memory that grows with the bundles only.
struct VerifyIndexAudit: IndexCodec.Receiver, Sendable {
    struct Summary: Equatable, Sendable {
        var kind: BundleKind
        var size: Int
        var plain: Int
        var frames = 0
        var chunks = 0
        /// Sum over all frames and chunks of what is said of them: equal sums, equal lists, in
        /// whatever order.
        var sum: UInt64 = 0

        mutating func addFrame(offset: Int, length: Int, raw: Int, _ fingerprint: Fingerprint) {
            frames += 1
            sum &+= VerifyIndexAudit.mix(
                fingerprint.high ^ fingerprint.low &* 3, UInt64(offset), UInt64(length), UInt64(raw)
            )
        }

        mutating func add(_ id: ChunkID, frame: Int, offset: UInt32, length: UInt32) {
            chunks += 1
            sum &+= VerifyIndexAudit.mix(
                id.word0 ^ id.word1 &* 3 ^ id.word2 &* 5 ^ id.word3 &* 7, UInt64(frame),
                UInt64(offset), UInt64(length))
        }

        init(_ bundle: IndexedBundle) {
            kind = bundle.kind
            size = bundle.size
            plain = bundle.plain
        }

        /// The same of a bundle that has been read.
        init(_ bundle: SealedBundle) {
            kind = bundle.kind
            size = bundle.size
            plain = bundle.plain
            for frame in bundle.frames {
                addFrame(
                    offset: frame.offset, length: frame.length, raw: frame.raw, frame.fingerprint)
                for chunk in frame.chunks {
                    add(chunk.id, frame: frame.offset, offset: chunk.offset, length: chunk.length)
                }
            }
        }
    }

    private(set) var bundles: [BundleID: Summary] = [:]
    /// Bundles of which two lines say different things.
    private(set) var contradicted: Set<BundleID> = []
    private(set) var chunks = 0
    private var current: (id: BundleID, summary: Summary)?
    private var frameOffset = 0

    static func mix(_ a: UInt64, _ b: UInt64, _ c: UInt64, _ d: UInt64) -> UInt64 {
        var hash =
            a ^ b &* 0x9E37_79B9_7F4A_7C15 ^ c &* 0xC2B2_AE3D_27D4_EB4F ^ d &* 0x1656_67B1_9E37_79F9
        hash = (hash ^ hash >> 32) &* 0xD6E8_FEB8_6659_FD93
        hash = (hash ^ hash >> 32) &* 0xD6E8_FEB8_6659_FD93
        return hash ^ hash >> 32
    }

    mutating func bundle(_ bundle: IndexedBundle) {
        close()
        current = (bundle.id, Summary(bundle))
    }

    mutating func frame(_ frame: IndexedFrame) {
        current?.summary.addFrame(
            offset: frame.offset, length: frame.length, raw: frame.raw, frame.fingerprint)
        frameOffset = frame.offset
    }

    mutating func chunk(_ id: ChunkID, offset: UInt32, length: UInt32) {
        current?.summary.add(id, frame: frameOffset, offset: offset, length: length)
    }

    mutating func segment(_ id: ChunkID, bundles: [BundleID]) {}

    /// To be called at the end of each record.
    mutating func close() {
        guard let (id, summary) = current else { return }
        current = nil
        chunks += summary.chunks
        if let known = bundles[id] {
            if known != summary { contradicted.insert(id) }
        } else {
            bundles[id] = summary
        }
    }
}

/// One look at everything that a repository's records say, and at what its store lists: snapshots,
/// then index, then bundles, so that a backup that goes on meanwhile looks like nothing at all.
struct VerifyStructure: Sendable {
    let catalog: SnapshotCatalog
    let index: ChunkIndex
    let audit: VerifyIndexAudit
    /// Stored bytes of each bundle that is there.
    let listed: [BundleID: Int]
    /// The MD5 of each bundle's bytes where the listing shows it.
    let md5s: [BundleID: [UInt8]]
    /// Bundles that some snapshot needs, by number.
    let needed: [BundleID]
    /// For each snapshot of the catalog, the numbers of the bundles that it needs.
    private let needs: [VerifyBundleSet]
    private let numbers: [BundleID: Int]
    private(set) var findings: [VerifyFinding] = []
    private(set) var records = 0
    /// What was listed: two looks that agree here have seen the same repository.
    let names: Set<RecordName>

    static let repair = "run 'batchsync repair index' with the owner's identity"
    /// Of a bundle whose bytes are wrong.
    static let replace =
        "copy it back from another copy of the repository; without one, delete the object and back up again: what is still on disk is stored anew"

    init(_ repository: Repository, monitor: any Monitor, cancellation: Cancellation)
        throws(ReplicationError)
    {
        var findings: [VerifyFinding] = []
        monitor.phase("snapshots")
        var names: Set<RecordName> = []
        let listing = try lifted { try repository.listAllRecords() }
        for type in RecordType.allCases where type != .run && type != .verified {
            names.formUnion(listing.names(type))
        }
        var catalog = try lifted { try SnapshotCatalog.load(repository, in: listing) }
        for error in catalog.damaged { findings.append(Self.finding(error)) }
        var read = names.count { $0.type != .index }
        for type in [RecordType.run, .verified] {
            for name in listing.names(type) {
                try cancellation.check()
                do {
                    _ = try repository.readJSON(name)
                    read += 1
                } catch {
                    // Runs replace their records while they go on.
                    let isThere = try lifted { try repository.listRecords(type) }.contains {
                        $0.name == name
                    }
                    if isThere { findings.append(Self.finding(error, repository.recordKey(name))) }
                }
            }
        }
        monitor.phase("index")
        var audit = VerifyIndexAudit()
        let indexRecords = try lifted { try repository.listRecords(.index) }
        var fetched = 0
        for (position, (name, _, _)) in indexRecords.enumerated() {
            try cancellation.check()
            if position == fetched { fetched += repository.fetchAhead(indexRecords[position...]) }
            do {
                let payload = try repository.readRecord(name)
                read += 1
                let bad = payload.withUnsafeBytes { IndexCodec.read($0, into: &audit) }
                if let bad {
                    findings.append(
                        VerifyFinding(
                            .record, repository.recordKey(name),
                            "line \(bad) is not a line of an index",
                            remedy: Self.repair))
                }
            } catch {
                var finding = Self.finding(error, repository.recordKey(name))
                if finding.kind == .record {
                    finding = VerifyFinding(
                        .record, finding.object, finding.message, remedy: Self.repair)
                }
                findings.append(finding)
            }
            audit.close()
        }
        monitor.phase("bundles")
        var listed: [BundleID: Int] = [:]
        var md5s: [BundleID: [UInt8]] = [:]
        try lifted {
            try repository.listBundles { id, size, md5 in
                listed[id] = size
                md5s[id] = md5
            }
        }
        let index = try lifted {
            try ChunkIndex.load(repository, condemned: catalog.condemned, listed: listed)
        }
        catalog.markIncomplete(index)
        var needs: [VerifyBundleSet] = []
        var numbers: [BundleID: Int] = [:]
        var needed: [BundleID] = []
        for snapshot in catalog.snapshots {
            try cancellation.check()
            let need = index.need(of: snapshot)
            var set = VerifyBundleSet()
            for id in need.bundles {
                let number = numbers[id] ?? needed.count
                if number == needed.count {
                    numbers[id] = number
                    needed.append(id)
                }
                set.insert(number)
            }
            needs.append(set)
            if !need.missing.isEmpty {
                findings.append(
                    VerifyFinding(
                        .index, snapshot.name.map { repository.recordKey($0) } ?? "index/",
                        "the index does not tell where \(need.missing.count) of its \(snapshot.topIDs.count) top pieces lie, or what is below them",
                        remedy:
                            "\(Self.repair); what is missing after that went with a damaged bundle: back up again, and forget the snapshot",
                        snapshots: [snapshot.id]))
            }
            if snapshot.isIncomplete {
                findings.append(
                    VerifyFinding(
                        .incomplete, snapshot.name.map { repository.recordKey($0) } ?? "snapshots/",
                        "was committed while prune removed bundles that it needs",
                        remedy: "the next backup of host '\(snapshot.host)' stores what is missing",
                        snapshots: [snapshot.id]))
            }
        }
        self.catalog = catalog
        self.index = index
        self.audit = audit
        self.listed = listed
        self.md5s = md5s
        self.needed = needed
        self.needs = needs
        self.numbers = numbers
        self.names = names
        records = read
        self.findings = findings
        self.findings += compare(repository)
    }

    /// Compares what the index says, what snapshots need and what the store lists.
    private func compare(_ repository: Repository) -> [VerifyFinding] {
        var findings: [VerifyFinding] = []
        var sizes: [BundleID: Int] = [:]
        for bundle in index.bundles { sizes[bundle.id] = bundle.size }
        for id in Set(needed).union(sizes.keys).sorted() {
            let key = repository.bundleKey(id)
            let affected = snapshots(needing: id)
            guard let indexed = sizes[id] else {
                findings.append(
                    VerifyFinding(
                        .index, key, "is needed and not in the index", remedy: Self.repair,
                        snapshots: affected))
                continue
            }
            guard let size = listed[id] else {
                // Prune removes what it has condemned.
                if affected.isEmpty, catalog.condemned.bundles.contains(id) { continue }
                findings.append(
                    VerifyFinding(
                        .bundleMissing, key,
                        "is missing" + (affected.isEmpty ? "; no snapshot needs it" : ""),
                        remedy: affected.isEmpty
                            ? Self.repair
                            : "copy it back from another copy of the repository, or back up again: what is still on disk is stored anew",
                        snapshots: affected))
                continue
            }
            if size != indexed {
                findings.append(
                    VerifyFinding(
                        .bundleSize, key, "has \(size) bytes where the index says \(indexed)",
                        remedy: Self.replace, snapshots: affected))
            }
            if !affected.isEmpty, catalog.condemned.bundles.contains(id) {
                findings.append(
                    VerifyFinding(
                        .condemned, key,
                        "is condemned and needed: it is kept as long as a snapshot needs it",
                        isDamage: false, snapshots: affected))
            }
        }
        for id in audit.contradicted.sorted() {
            findings.append(
                VerifyFinding(
                    .index, repository.bundleKey(id),
                    "two lines of the index contradict each other about it",
                    remedy: Self.repair, snapshots: snapshots(needing: id)))
        }
        return findings
    }

    /// Snapshots that need a bundle, the oldest first.
    func snapshots(needing id: BundleID) -> [SnapshotID] {
        guard let number = numbers[id] else { return [] }
        return catalog.snapshots.indices.filter { needs[$0].contains(number) }.map {
            catalog.snapshots[$0].id
        }
    }

    /// Bundles that are there and that some snapshot needs or the index tells of, by id.
    var readable: [(id: BundleID, size: Int)] {
        listed.filter { numbers[$0.key] != nil || audit.bundles[$0.key] != nil }
            .map { (id: $0.key, size: $0.value) }.sorted { $0.id < $1.id }
    }

    /// Bundles that no snapshot needs.
    var orphans: (count: Int, bytes: Int) {
        listed.reduce(into: (0, 0)) { sum, bundle in
            if numbers[bundle.key] == nil {
                sum.0 += 1
                sum.1 += bundle.value
            }
        }
    }

    static func finding(_ error: RepositoryError, _ object: String = "") -> VerifyFinding {
        let object = error.subject.isEmpty ? (object.isEmpty ? "the store" : object) : error.subject
        return VerifyFinding(
            error.kind == .storage ? .unreadable : .record, object, error.message,
            remedy: error.kind == .storage
                ? error.remedy : "copy it back from another copy of the repository")
    }
}
