import BundleFormat
import SnapshotModel
package import SnapshotRepository

/// Proves that a repository holds what it should: every snapshot → manifest → index → bundles, and
/// on demand the stored bytes themselves.
///
/// With the host key alone it checks every record, every key object and the presence of every
/// needed bundle, and reads stored bytes against their names. With an owner's identity it also
/// opens bundles, hashes every chunk, and reads manifests, so that findings name files. Whatever is
/// wrong is a finding; only what keeps it from looking at all is an error.
package final class Verify {
    /// Until the owner's identity is there, the repository as its host sees it.
    private var repository: Repository
    private let owner: OwnerOpening?
    private let options: VerifyOptions
    private let monitor: any Monitor
    private let cancellation: Cancellation
    private var report = VerifyReport()

    /// - Parameters:
    ///   - repository: Opened with whatever keys are at hand.
    ///   - owner: The same repository, to be had with the owner's identity in a moment. What needs
    ///     the host key alone is done meanwhile.
    package init(
        repository: Repository, owner: OwnerOpening? = nil, options: VerifyOptions,
        monitor: any Monitor, cancellation: Cancellation
    ) {
        self.repository = repository.readingStore
        self.owner = owner
        self.options = options
        self.monitor = monitor
        self.cancellation = cancellation
    }

    package func run() throws(ReplicationError) -> VerifyReport {
        report = VerifyReport()
        var structure = try VerifyStructure(
            repository, monitor: monitor, cancellation: cancellation)
        if structure.findings.contains(where: \.isDamage) {
            // What looks like damage may be prune at work between two listings: it is believed when
            // a second look sees it too.
            let again = try VerifyStructure(
                repository, monitor: monitor, cancellation: cancellation)
            if again.names != structure.names || again.findings.count != structure.findings.count {
                structure = again
            }
        }
        var verified = try lifted { try VerifiedRecord.load(repository) }
        let digested = try waitForOwner(structure, verified)
        monitor.phase("keys")
        try checkKeys()
        checkRecovery()
        checkLastCommit(structure)
        report.findings += structure.findings
        report.snapshots = structure.catalog.snapshots.count
        report.records = structure.records
        report.indexRecords = structure.index.records.count
        report.chunks = structure.audit.chunks
        report.bundles = structure.listed.count
        report.bundleBytes = structure.listed.values.reduce(0, +)
        (report.orphans, report.orphanBytes) = structure.orphans

        try compareDigests(structure)
        var bad = VerifyBadPlaces()
        let data = VerifyData(
            repository: repository, structure: structure, monitor: monitor,
            cancellation: cancellation)
        let accesses = BundleAccessCache(repository)
        if let share = options.readData {
            try readData(share, data, structure, &verified, digested: digested)
        }
        noteCoverage(structure, verified)
        if repository.access.canReadContent {
            for finding in report.findings {
                guard let id = bundle(of: finding, structure) else { continue }
                if finding.kind == .bundleMissing || finding.kind == .index
                    || finding.kind == .unreadable
                {
                    bad.bundles.insert(id)
                } else if finding.kind == .bundleDamaged || finding.kind == .bundleSize {
                    data.probe(id, accesses: accesses, bad: &bad)
                }
            }
            try readManifests(structure, bad, accesses)
        }
        var harmed: Set<SnapshotID> = []
        for finding in report.findings where finding.isDamage {
            harmed.formUnion(finding.snapshots)
        }
        report.soundSnapshots = structure.catalog.snapshots.count { !harmed.contains($0.id) }
        return report
    }

    /// Goes over to the repository as its owner sees it, as soon as that is there.
    /// - Returns: Bundles that have been read meanwhile, and found to be what their names say.
    private func waitForOwner(
        _ structure: VerifyStructure, _ verified: VerifiedRecord
    ) throws(ReplicationError) -> Set<BundleID> {
        guard let owner else { return [] }
        var digested: Set<BundleID> = []
        if let share = options.readData {
            let ahead = VerifyData(
                repository: repository, structure: structure, monitor: monitor,
                cancellation: cancellation)
            let chosen = VerifyData.choose(
                structure.readable, share: share, read: verified, depth: .content)
            digested = ahead.digestAhead(chosen) { owner.isOver }
        }
        repository = try lifted { try owner.repository() }.readingStore
        return digested
    }

    // MARK: The root of trust

    private func checkKeys() throws(ReplicationError) {
        let config = "config.json"
        do {
            func digest(_ bytes: [UInt8]) -> RecordID {
                bytes.withUnsafeBytes { ContentHash.sha256($0) }
            }
            let expected = self.repository.configDigest
            let bytes = try self.repository.readObject(config, maximumBytes: 1 << 20) {
                digest($0) == expected
            }
            if digest(bytes) != expected {
                report.findings.append(
                    VerifyFinding(
                        .config, config, "has changed while it was in use",
                        remedy:
                            "nothing ever changes it: compare it with another copy of the repository"
                    ))
            }
        } catch {
            report.findings.append(VerifyStructure.finding(error, config))
        }
        guard repository.config.isEncrypted else { return }
        let path = repository.directories.hostKeyPath(repository.id)
        let pinned = try lifted { () throws -> HostConfiguration? in
            guard let bytes = try LocalFile.read(path, maximumBytes: 1 << 20) else { return nil }
            return try HostConfiguration(parsing: bytes, path: path)
        }
        let access = repository.access
        let repository = repository
        let found = try lifted { try RepositoryKeys(of: repository).audit(access, pinned: pinned) }
        for finding in found {
            report.findings.append(
                VerifyFinding(
                    .keys, finding.object, finding.message, remedy: finding.remedy,
                    isDamage: finding.isDamage))
        }
    }

    private func checkRecovery() {
        for object in Recovery.Object.allCases {
            do {
                switch try Recovery.find(object, in: repository) {
                case .released: break
                case .missing:
                    report.findings.append(
                        VerifyFinding(
                            .recovery, object.name,
                            "is missing: the repository would be harder to open without batchsync",
                            remedy:
                                "copy it from a repository that 'batchsync init' has just made: it is the same in all of them"
                        ))
                case .foreign(let digest):
                    report.findings.append(
                        VerifyFinding(
                            .recovery, object.name,
                            "is not what this release or an earlier one writes (SHA-256 \(digest), ours \(object.digest))",
                            remedy:
                                "do not \(object == .program ? "run" : "follow") it; take the one of a repository that 'batchsync init' has just made: it is the same in all of them"
                        ))
                }
            } catch {
                report.findings.append(VerifyStructure.finding(error, object.name))
            }
        }
    }

    /// A host remembers its last commit: a record that is neither listed nor forgotten has been
    /// taken away.
    private func checkLastCommit(_ structure: VerifyStructure) {
        guard let last = LastCommit.load(for: repository) else { return }
        let listed = Set(structure.names.filter { $0.type == .snapshot }.map(\.id))
        let forgotten = structure.catalog.forgotten
        let missing =
            (try? last.missing(
                isListed: { listed.contains($0) }, forgotten: { forgotten })) ?? []
        for snapshot in missing {
            report.findings.append(
                VerifyFinding(
                    .vanished, "snapshots/\(snapshot.name)",
                    LastCommit.vanishedMessage, remedy: LastCommit.vanishedRemedy(repository)))
        }
    }

    // MARK: What the store says of stored bytes

    private func compareDigests(_ structure: VerifyStructure) throws(ReplicationError) {
        guard !repository.isLocalStore || options.hashesRemotely else { return }
        guard !options.hashesRemotely || repository.storeComputesDigests else {
            throw ReplicationError(
                .usage, "", "this store cannot compute checksums where the objects lie",
                remedy: "leave --remote-hash out, or read the data back with --read-data")
        }
        let (counts, damaged) = try VerifyDigests(
            repository: repository, structure: structure, monitor: monitor,
            cancellation: cancellation
        ).run(remotely: options.hashesRemotely)
        report.comparedByMD5 = counts.byMD5
        report.comparedBySHA256 = counts.bySHA256
        report.computedRemotely = counts.computedRemotely
        report.uncompared = counts.uncompared
        for (id, message) in damaged.sorted(by: { $0.key < $1.key }) {
            report.findings.append(
                VerifyFinding(
                    .bundleDamaged, repository.bundleKey(id), message,
                    remedy: VerifyStructure.replace,
                    snapshots: structure.snapshots(needing: id)))
        }
    }

    // MARK: Stored bytes

    private func readData(
        _ share: VerifyOptions.Share, _ data: VerifyData, _ structure: VerifyStructure,
        _ verified: inout VerifiedRecord, digested: Set<BundleID>
    ) throws(ReplicationError) {
        monitor.phase("data")
        let depth: VerifiedRecord.Depth = repository.access.canReadContent ? .content : .digest
        let chosen = VerifyData.choose(
            structure.readable, share: share, read: verified, depth: depth)
        var sealedToOthers = 0
        for (id, size, outcome) in data.read(chosen, digested: digested) {
            report.bundlesRead += 1
            report.bytesRead += size
            let key = repository.bundleKey(id)
            let affected = structure.snapshots(needing: id)
            switch outcome {
            case .sound:
                verified.note(id, VerifiedRecord.Mark(depth: depth, time: options.now))
            case .sealedToOthers:
                verified.note(id, VerifiedRecord.Mark(depth: .digest, time: options.now))
                sealedToOthers += 1
            case .damaged(let message):
                report.findings.append(
                    VerifyFinding(
                        .bundleDamaged, key, message, remedy: VerifyStructure.replace,
                        snapshots: affected))
            case .misindexed:
                report.findings.append(
                    VerifyFinding(
                        .index, key, "holds something else than the index says",
                        remedy: VerifyStructure.repair,
                        snapshots: affected))
            case .unreadable(let error):
                report.findings.append(
                    VerifyFinding(
                        .unreadable, key, error.message, remedy: error.remedy, snapshots: affected))
            }
        }
        report.contentRead = depth == .content && sealedToOthers < max(report.bundlesRead, 1)
        if sealedToOthers > 0 {
            monitor.note(
                "\(sealedToOthers == 1 ? "1 bundle is" : "\(sealedToOthers) bundles are") sealed to other owners than the one given: compared with their SHA-256 only; what was stored before an owner was added is opened with the passphrase or identity of an owner of that time"
            )
        }
        if report.bundlesRead > 0 {
            do {
                try verified.store(
                    in: repository, time: options.now, host: options.host,
                    keeping: Set(structure.listed.keys))
            } catch {
                monitor.note(
                    "what was read could not be noted in the repository: \(error.description)")
            }
        }
        try cancellation.check()
    }

    private func noteCoverage(_ structure: VerifyStructure, _ verified: VerifiedRecord) {
        for (id, size) in structure.readable {
            guard let mark = verified.marks[id] else {
                report.neverRead += 1
                report.neverReadBytes += size
                continue
            }
            report.readBytesByDay[Int(mark.time.seconds / 86_400), default: 0] += size
            report.oldestRead = min(report.oldestRead ?? mark.time, mark.time)
        }
    }

    // MARK: Files

    private func bundle(of finding: VerifyFinding, _ structure: VerifyStructure) -> BundleID? {
        guard finding.isDamage, finding.object.hasPrefix("bundles/"),
            let name = finding.object.split(separator: "/").last
        else { return nil }
        return BundleID(name.prefix(64))
    }

    private static func remedy(_ kind: VerifyFinding.Kind) -> String {
        switch kind {
        case .index: VerifyStructure.repair
        case .bundleDamaged: VerifyStructure.replace
        default:
            "nothing in this repository mends it: back up again, so that there is a whole snapshot"
        }
    }

    private func readManifests(
        _ structure: VerifyStructure, _ bad: VerifyBadPlaces, _ accesses: BundleAccessCache
    ) throws(ReplicationError) {
        monitor.phase("manifests")
        let outcome = try VerifyManifests(
            repository, structure: structure, bad: bad, accesses: accesses, monitor: monitor,
            cancellation: cancellation
        ).run()
        report.manifestsRead = true
        report.segments = outcome.harm.segments
        report.entries = outcome.harm.entries
        let snapshots = structure.catalog.snapshots
        // Now it is known which snapshots a damaged bundle harms, not only which need it.
        for position in report.findings.indices {
            guard let id = bundle(of: report.findings[position], structure) else { continue }
            let harmed = outcome.snapshots[.bundle(id)] ?? []
            let needing = Set(report.findings[position].snapshots)
            report.findings[position].snapshots = snapshots.indices.filter {
                harmed.contains($0)
                    || outcome.unread.contains($0) && needing.contains(snapshots[$0].id)
            }.map { snapshots[$0].id }
        }
        for (cause, damage) in outcome.harm.damages.sorted(by: {
            $0.value.message < $1.value.message
        }) {
            if cause == .sealedToOthers {
                let names = (outcome.snapshots[cause] ?? []).sorted().map {
                    snapshots[$0].id.short
                }
                monitor.note(
                    "not read, since it is sealed to other owners than the one given: what was stored before an owner was added, of \(names.joined(separator: ", "))"
                )
                continue
            }
            let (kind, object): (VerifyFinding.Kind, String) =
                switch cause {
                case .bundle(let id): (.bundleDamaged, repository.bundleKey(id))
                case .notIndexed, .needLine: (.index, "index/")
                case .manifest, .sealedToOthers: (.manifest, "manifests")
                }
            var position = report.findings.firstIndex { finding in
                if case .bundle(let id) = cause { return bundle(of: finding, structure) == id }
                return false
            }
            if position == nil {
                report.findings.append(
                    VerifyFinding(kind, object, damage.message, remedy: Self.remedy(kind)))
                position = report.findings.count - 1
            }
            guard let position else { continue }
            let harmed = outcome.snapshots[cause] ?? []
            let known = Set(report.findings[position].snapshots)
            report.findings[position].snapshots = snapshots.indices.filter {
                harmed.contains($0) || known.contains(snapshots[$0].id)
            }.map { snapshots[$0].id }
            report.findings[position].fileCount = damage.files.count
            report.findings[position].files = damage.files.first.map { path, segments in
                let concerned = segments.reduce(into: Set<Int>()) {
                    $0.formUnion(outcome.snapshotsOfSegment[$1] ?? [])
                }
                return VerifyFinding.HarmedFile(
                    path: path, snapshots: concerned.sorted().map { snapshots[$0].id })
            }
        }
    }
}
