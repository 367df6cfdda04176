import BundleFormat
import FileTree
import SnapshotModel
package import SnapshotRepository
import Synchronization

/// Sources → a new snapshot. Reads as the flow of the data: walk, diff, read and pack, manifest,
/// commit.
package final class Backup {
    private(set) var repository: Repository
    private(set) var options: BackupOptions
    /// Further stores of the repository that answer.
    private(set) var replicas: [ReplicaTarget]
    /// Stores that were lost on the way.
    private var lost: [StoreOutcome] = []
    let monitor: any Monitor
    let cancellation: Cancellation

    /// - Parameter replicas: Further stores of the same repository. A store that fails stops none of
    ///   the others.
    package init(
        _ repository: Repository, replicas: [ReplicaTarget] = [], options: BackupOptions,
        monitor: any Monitor, cancellation: Cancellation
    ) {
        self.repository = repository
        self.replicas = replicas
        self.options = options
        self.monitor = monitor
        self.cancellation = cancellation
    }

    /// Runs once. Where prune condemned something meanwhile that the snapshot would need, it goes
    /// again with a fresh look at the repository: what was stored is used, what is condemned is
    /// packed anew.
    package func run() throws(ReplicationError) -> BackupReport {
        var brought = try catchUp()
        var attempt = 1
        while true {
            var run: BackupRun?
            do throws(ReplicationError) {
                let made = try BackupRun(self)
                run = made
                var report = try made.perform()
                for position in report.stores.indices {
                    guard let early = brought[report.stores[position].location] else { continue }
                    report.stores[position].broughtSnapshots += early.broughtSnapshots
                    report.stores[position].copiedBundles += early.copiedBundles
                    report.stores[position].copiedBytes += early.copiedBytes
                }
                report.stores += lost
                return report
            } catch {
                if run?.mustRepeat == true, attempt < 3 {
                    attempt += 1
                    monitor.note(
                        "the repository changed under the run: going over the sources once more")
                } else if case .repository(.storage) = error.kind, !replicas.isEmpty,
                    !cancellation.isCancelled
                {
                    // What the others have got already is in their journals.
                    monitor.note("\(repository.location): \(error.description)")
                    monitor.note("going on with \(replicas[0].repository.location)")
                    lost.append(StoreOutcome(location: repository.location, failure: error))
                    brought[repository.location] = nil
                    let next = replicas.removeFirst()
                    repository = next.repository
                    options.uploads = next.uploads
                } else {
                    throw error
                }
            }
        }
    }

    /// Brings all stores to the same snapshots before the run decides by what they have.
    private func catchUp() throws(ReplicationError) -> [String: StoreOutcome] {
        guard !replicas.isEmpty, !options.dryRun else { return [:] }
        monitor.phase("comparing the stores")
        var members: [ReplicaCatchUp.Member] = []
        for repository in [repository] + replicas.map(\.repository) {
            do throws(ReplicationError) {
                members.append(try ReplicaCatchUp.Member(repository))
            } catch {
                guard case .repository(.storage) = error.kind else { throw error }
                try lose(repository, error)
            }
        }
        try ReplicaCatchUp(monitor: monitor, cancellation: cancellation).run(&members)
        return Dictionary(
            members.map { ($0.repository.location, $0.outcome) },
            uniquingKeysWith: { first, _ in first })
    }

    /// Goes on without a store.
    private func lose(
        _ store: Repository, _ error: ReplicationError
    ) throws(ReplicationError) {
        monitor.note("\(store.location): \(error.description)")
        lost.append(StoreOutcome(location: store.location, failure: error))
        if store === repository {
            guard !replicas.isEmpty else { throw error }
            let next = replicas.removeFirst()
            repository = next.repository
            options.uploads = next.uploads
        } else {
            replicas.removeAll { $0.repository === store }
        }
    }

    /// Looks at a further store for one pass; nil where it does not answer.
    func look(at replica: ReplicaTarget) throws(ReplicationError) -> StoreLook? {
        do throws(ReplicationError) {
            return try lifted { try StoreLook(replica.repository) }
        } catch {
            guard case .repository = error.kind else { throw error }
            try lose(replica.repository, error)
            return nil
        }
    }
}

/// One pass over the sources.
final class BackupRun {
    private let backup: Backup
    private let repository: Repository
    private let options: BackupOptions
    private let monitor: any Monitor
    private var hasLostTrust = false
    /// Whether the sources have to be gone over once more.
    var mustRepeat: Bool { hasLostTrust || watch.hasLost }
    private let watch: BundleWatch

    // The look at the repository that the run decides by.
    private let condemned: CondemnedView
    private var replicaLooks: [(target: ReplicaTarget, look: StoreLook)] = []
    private var replicaRuns: [ReplicaRun] = []
    private let index: ChunkIndex
    private let runIndex: RunIndex
    private let lookedAt: Int64
    private var journalPaths: [String] = []
    /// Bundles that an interrupted run had stored.
    private var adopted: [SealedBundle] = []

    private let began: Timestamp
    private let beganMonotonic: Int64
    private let problems: ProblemList
    private let counts = RunCounts()
    private let cache: ManifestCache
    private let roots: [[UInt8]]
    private var notes: [String] = []
    private let listing: RecordListing
    private let vanished: [LastCommit.Vanished]

    init(_ backup: Backup) throws(ReplicationError) {
        self.backup = backup
        repository = backup.repository
        options = backup.options
        monitor = backup.monitor
        problems = ProblemList(monitor)
        began = Timestamp(nanosecondsSince1970: HostClock.now)
        beganMonotonic = HostClock.monotonic
        var roots = options.roots.map(\.path)
        if let stream = options.stream { roots = [[0x2F] + stream.name] }
        roots.sort { EntryPath.precedes($0, $1) }
        self.roots = roots
        cache = ManifestCache(repository: repository, host: options.host, roots: roots)

        monitor.phase("reading the index")
        lookedAt = HostClock.monotonic
        watch = BundleWatch(backup.repository, lookedAt: lookedAt)
        let repository = repository
        var damaged: [RepositoryError] = []
        let listing = try lifted { try repository.listAllRecords() }
        self.listing = listing
        vanished = try Self.vanishedCommits(repository, listing)
        var condemned = try lifted {
            try CondemnedView.load(repository, in: listing, damaged: &damaged)
        }
        if let first = damaged.first { throw ReplicationError(first) }
        let left = options.dryRun ? (bundles: [], paths: []) : RunJournal.leftBehind(repository)
        journalPaths = left.paths
        // A bundle that somebody deleted is missed before it is relied on.
        var listed = try lifted { try repository.listBundles() }
        var adoptable = listed
        // What is not on every store that answers, or condemned on one of them, counts as not there.
        for replica in backup.replicas where !options.dryRun {
            guard let look = try backup.look(at: replica) else { continue }
            replicaLooks.append((replica, look))
            condemned.formUnion(look.condemned)
            adoptable = adoptable.filter { look.holds($0.key, size: $0.value) }
            let told = Set(look.index.bundles.map(\.id))
            listed = listed.filter { told.contains($0.key) && look.holds($0.key, size: $0.value) }
        }
        self.condemned = condemned
        let seen = condemned
        let present = listed
        let index = try lifted {
            try ChunkIndex.load(
                repository, in: listing, condemned: seen, listed: present)
        }
        self.index = index
        for error in index.damaged {
            notes.append(
                "index: \(error.description)" + (error.remedy.isEmpty ? "" : "; \(error.remedy)"))
        }
        runIndex = RunIndex(index)
        for bundle in left.bundles
        where adoptable[bundle.id] == bundle.size && !condemned.bundles.contains(bundle.id)
            && !index.isUsable(bundle: bundle.id)
        {
            runIndex.adopt(bundle)
            adopted.append(bundle)
        }
        for snapshot in vanished {
            notes.append(
                "snapshots/\(snapshot.name) was committed by this host and has vanished without being forgotten: the repository has been rolled back, or it was deleted; 'batchsync verify' says more"
            )
        }
    }

    /// A host remembers what it committed last, and what had vanished before that.
    private static func vanishedCommits(
        _ repository: Repository, _ listing: RecordListing
    ) throws(ReplicationError) -> [LastCommit.Vanished] {
        guard let last = LastCommit.load(for: repository) else { return [] }
        let listed = Set(listing[.snapshot].map(\.name.id))
        return try lifted {
            try last.missing(isListed: { listed.contains($0) }) { () throws(RepositoryError) in
                try SnapshotCatalog.load(repository, in: listing).forgotten
            }
        }
    }

    /// What the finished pass hands from stage to stage.
    private struct Pass {
        var statistics = SnapshotStatistics()
        var fileSystems: [FileSystemName] = []
        var hadCache = false
        var depth = 1
        var top: [ChunkID] = []
        var draftBody: String?
        var previous: ManifestCache.Head?
    }

    func perform() throws(ReplicationError) -> BackupReport {
        let run = RunIdentity.make()
        let journal = try lifted { options.dryRun ? nil : try RunJournal(repository, run: run) }
        replicaRuns = try lifted {
            try replicaLooks.map {
                try ReplicaRun(
                    $0.target.repository, look: $0.look, uploads: $0.target.uploads, run: run)
            }
        }
        replicaLooks = []
        for replica in replicaRuns {
            for bundle in adopted { replica.adopt(bundle) }
        }
        let lease = Lease(
            repository: repository, index: runIndex, run: run, began: began, host: options.host,
            roots: roots,
            seconds: options.checkpointSeconds, watch: watch, replicas: replicaRuns)
        defer { lease.unfollow() }
        var contentSink: BundleSink?
        var manifestSink: BundleSink?
        defer {
            contentSink?.close()
            manifestSink?.close()
        }
        if let journal {
            contentSink = BundleSink(
                repository, index: runIndex, kind: .content, journal: journal,
                limits: options.uploads, replicas: replicaRuns, bundleBytes: options.bundleBytes,
                counts: monitor.counts, cancellation: backup.cancellation,
                onStored: { try lease.bundleStored($0) })
            manifestSink = BundleSink(
                repository, index: runIndex, kind: .manifest, journal: journal,
                limits: options.uploads, replicas: replicaRuns, counts: monitor.counts,
                cancellation: backup.cancellation,
                onStored: { try lease.bundleStored($0) })
        }
        let chunks = try ManifestChunks(index: runIndex, sink: manifestSink)
        let pass = try walk(contentSink: contentSink, chunks: chunks, lease: lease)
        try backup.cancellation.check()

        monitor.phase("writing the manifest")
        var snapshot = Snapshot(
            time: options.time ?? began, host: options.host, roots: roots, program: options.program)
        snapshot.tags = options.tags
        snapshot.description = options.description
        snapshot.options = options.recordedOptions
        snapshot.fileSystems = pass.fileSystems
        snapshot.manifestDepth = pass.depth
        snapshot.manifestIDs = pass.top
        let all = problems.all
        snapshot.problemCount = all.count
        snapshot.problemIDs = try store(all, in: chunks)
        snapshot.seen = condemned.names.sorted()
        var statistics = pass.statistics
        statistics.new = counts.new.load(ordering: .relaxed)
        statistics.changed = counts.changed.load(ordering: .relaxed)
        statistics.touched = counts.touched.load(ordering: .relaxed)
        statistics.metadata = counts.metadata.load(ordering: .relaxed)
        statistics.unchanged += counts.unchanged.load(ordering: .relaxed)
        statistics.readBytes = counts.readBytes.load(ordering: .relaxed)
        statistics.newChunks = counts.newChunks.load(ordering: .relaxed)
        statistics.newBytes = counts.newBytes.load(ordering: .relaxed)
        if let contentSink { try contentSink.flush() }
        try chunks.finish()
        for sink in [contentSink, manifestSink] {
            statistics.storedBytes += sink?.stored.bytes ?? 0
            statistics.bundles += sink?.stored.bundles ?? 0
        }
        statistics.durationMilliseconds = Int((HostClock.monotonic - beganMonotonic) / 1_000_000)
        snapshot.statistics = statistics

        var stores: [StoreOutcome] = []
        if !options.dryRun {
            monitor.phase("committing")
            try commit(&snapshot, pass: pass, lease: lease, journal: journal)
            stores = try commitOnReplicas(snapshot)
        }
        return BackupReport(
            snapshot: snapshot, statistics: statistics, problems: Array(all.prefix(1000)),
            problemCount: all.count,
            hadCache: pass.hadCache, resumedBundles: adopted.count, notes: notes,
            vanished: vanished.map(\.name), stores: stores)
    }

    // MARK: Walk and diff

    private func walk(
        contentSink: BundleSink?, chunks: ManifestChunks, lease: Lease
    ) throws(ReplicationError) -> Pass {
        var pass = Pass()
        let head = cache.readHead()
        let leftDraft = options.dryRun ? nil : cache.leftDrafts().first
        let draftReader = leftDraft.flatMap { ManifestBodyReader(path: $0.path) }
        var readers: [ManifestBodyReader] = []
        if let draftReader { readers.append(draftReader) }
        let bodyPath = head.map { cache.bodyPath($0.body) }
        if let bodyPath, let reader = ManifestBodyReader(path: bodyPath) {
            readers.append(reader)
            pass.previous = head
            pass.hadCache = true
        } else if options.stream == nil {
            try noteLostCache()
        }
        if let entries = pass.previous?.entries {
            monitor.counts.entriesExpected.store(entries, ordering: .relaxed)
        }
        pass.fileSystems = pass.previous?.fileSystems ?? []
        // A stream has no next run that could read less for its draft, and perhaps no next run of its
        // name at all.
        let draft = ManifestDraft(
            path: cache.draftPath(began: began),
            previousBody: pass.previous == nil ? nil : bodyPath,
            isActive: !options.dryRun && options.stream == nil)
        let manifest = ManifestWriter(index: runIndex, chunks: chunks, draft: draft)
        lease.follow(manifest, draft: draft)
        let workers = ContentWorkers(
            .init(
                index: runIndex, sink: contentSink, chunks: chunks, manifest: manifest,
                chunker: Chunker(repository.config.chunker), options: options, monitor: monitor,
                problems: problems,
                counts: counts, cancellation: backup.cancellation))
        do throws(ReplicationError) {
            var differ = ChangeDetection(
                options: options, readers: readers, hasDraft: draftReader != nil,
                previous: pass.previous,
                bodyPath: bodyPath, index: runIndex, problems: problems, monitor: monitor,
                draftBegan: leftDraft?.began)
            if let stream = options.stream {
                try readStream(
                    stream, manifest: manifest, workers: workers, statistics: &pass.statistics)
            } else {
                monitor.phase("backing up")
                try differ.run(
                    roots: options.roots, workers: workers, lease: lease,
                    cancellation: backup.cancellation,
                    statistics: &pass.statistics)
                pass.fileSystems = differ.fileSystems
                note(differ.crossed)
            }
            try workers.finish()
        } catch {
            workers.stop()
            throw error
        }
        let built = try manifest.finish()
        pass.depth = built.depth
        pass.top = built.ids
        pass.draftBody = draft.finish()
        return pass
    }

    /// What other file systems the sources hold, where that may surprise.
    private func note(_ crossed: (kernels: [[UInt8]], entered: [[UInt8]])) {
        func list(_ paths: [[UInt8]]) -> String {
            let shown = paths.prefix(5).map { UTF8Text.display($0) }.joined(separator: ", ")
            return paths.count > 5 ? "\(shown) and \(paths.count - 5) more" : shown
        }
        if !crossed.kernels.isEmpty {
            notes.append(
                "what the kernel shows in \(list(crossed.kernels)) is no files and is left out; the directories are kept"
            )
        }
        let hasWholeSystem = options.roots.contains { $0.path == [0x2F] }
        if hasWholeSystem, !crossed.entered.isEmpty, !options.walk.rules.staysOnFileSystem {
            notes.append(
                "/ holds other file systems, which are backed up with it: \(list(crossed.entered)); -x (--one-file-system) leaves them out"
            )
        }
    }

    /// A host that has backed the same up before, and has no list of it any more, says why it takes
    /// so long.
    private func noteLostCache() throws(ReplicationError) {
        let catalog = try lifted { try SnapshotCatalog.load(repository, in: listing) }
        let wanted = Set(roots)
        guard
            catalog.snapshots.contains(where: {
                $0.host == options.host && Set($0.roots) == wanted
            })
        else { return }
        notes.append(
            "the cache of this host has no list of its last snapshot of these sources: every file is read once more, and nothing is stored twice"
        )
    }

    private func readStream(
        _ stream: StreamSource, manifest: ManifestWriter, workers: ContentWorkers,
        statistics: inout SnapshotStatistics
    ) throws(ReplicationError) {
        monitor.phase("reading the stream")
        let worker = try ContentWorker(workers)
        var entry = Entry(path: [0x2F] + stream.name, kind: .file)
        entry.mode = 0o600
        entry.uid = HostClock.userID
        entry.gid = HostClock.groupID
        entry.mtime = began
        entry.ctime = began
        switch stream {
        case .descriptor(let descriptor, _): try worker.readStream(descriptor, into: &entry)
        case .command(let words, _):
            let command = try CommandStream(words)
            do throws(ReplicationError) {
                try worker.readStream(command.descriptor, into: &entry)
            } catch {
                command.abandon()
                throw error
            }
            try command.finish()
        }
        let lines = ByteBuffer(capacity: 4096)
        EntryCodec.write(entry, to: lines)
        counts.new.add(1, ordering: .relaxed)
        statistics.files = 1
        statistics.bytes = Int(entry.size)
        try manifest.add(.init(number: 0, lines: lines, isVerbatim: false, lineCount: 1))
    }

    private func store(_ problems: [SnapshotProblem], in chunks: ManifestChunks)
        throws(ReplicationError) -> [ChunkID]
    {
        var ids: [ChunkID] = []
        let piece = ByteBuffer(capacity: Limits.problemPieceBytes + 4096)
        for (position, problem) in problems.enumerated() {
            problem.write(to: piece)
            guard piece.count >= Limits.problemPieceBytes || position == problems.count - 1 else {
                continue
            }
            let id: ChunkID = ContentHash.sha256(piece.bytes)
            runIndex.describe(id, chunks: [], nodes: [])
            try chunks.store(id, piece.bytes, as: .node)
            ids.append(id)
            piece.removeAll()
        }
        return ids
    }

    // MARK: Commit

    private func commit(
        _ snapshot: inout Snapshot, pass: Pass, lease: Lease, journal: RunJournal?
    ) throws(ReplicationError) {
        let repository = repository
        try lifted { try lease.flushIndex() }
        guard let need = runIndex.need(of: snapshot.topIDs) else {
            throw ReplicationError(
                .other, "",
                "the index does not say where all of the new manifest lies; nothing was committed",
                remedy: "run 'batchsync repair index', then the backup again")
        }
        // What was seen counts for half the grace period; what it relies on cannot be deleted before
        // the whole of it is over.
        let seenAt = try check(need)
        let deadline = CommitRule.deadline(lookedAt: seenAt, repository.config)
        let payload = snapshot.json
        let time = snapshot.time
        let name = try lifted { try repository.commit(time: time, payload, by: deadline) }
        snapshot.name = name
        // The snapshot is there. What follows only helps the next run, so it cannot fail this one.
        do {
            try remember(snapshot, pass: pass)
            lease.end()
            journal?.remove()
            for path in journalPaths { LocalFile.remove(path) }
            for draft in cache.leftDrafts() { LocalFile.remove(draft.path) }
        } catch {
            notes.append(
                "the snapshot is committed, but this host could not note it: \(error.description)")
        }
    }

    /// Commits on the further stores, each for itself.
    private func commitOnReplicas(_ snapshot: Snapshot) throws(ReplicationError) -> [StoreOutcome] {
        var outcomes = [StoreOutcome(location: repository.location, failure: nil)]
        guard !replicaRuns.isEmpty else { return outcomes }
        let repository = repository
        let condemned = condemned
        let index = try lifted { try ChunkIndex.load(repository, condemned: condemned) }
        for replica in replicaRuns {
            outcomes.append(
                replica.commit(
                    snapshot, leader: repository, leaderIndex: index, monitor: monitor,
                    cancellation: backup.cancellation))
        }
        return outcomes
    }

    /// The commit rule: all that the snapshot needs is indexed, listed at its length and condemned
    /// by nobody, in a view younger than half the grace period. Its age is counted on a clock that
    /// runs through suspend.
    ///
    /// - Returns: When that view was taken, on that clock.
    private func check(_ need: Set<BundleID>) throws(ReplicationError) -> Int64 {
        let made = Set(runIndex.madeBundles)
        let repository = repository
        for id in need where !made.contains(id) && !index.isUsable(bundle: id) {
            hasLostTrust = true
            throw ReplicationError(
                .other, repository.bundleKey(id),
                "is needed and not to be relied on; nothing was committed")
        }
        if CommitRule.isYoung(lookedAt: lookedAt, repository.config) { return lookedAt }
        let lookedAgainAt = HostClock.monotonic
        var damaged: [RepositoryError] = []
        let (fresh, listed) = try lifted {
            (try CondemnedView.load(repository, damaged: &damaged), try repository.listBundles())
        }
        if let first = damaged.first { throw ReplicationError(first) }
        let sizes = runIndex.sizes(of: need)
        for id in need
        where fresh.bundles.contains(id) || listed[id] == nil || listed[id] != sizes[id] {
            hasLostTrust = true
            throw ReplicationError(
                .other, repository.bundleKey(id),
                "was condemned or removed while the run went on; nothing was committed")
        }
        return lookedAgainAt
    }

    /// Notes the commit in this host's own files.
    private func remember(_ snapshot: Snapshot, pass: Pass) throws(RepositoryError) {
        guard let name = snapshot.name else { return }
        try LastCommit(
            snapshot: snapshot.id, name: name.text, time: snapshot.time, host: snapshot.host,
            vanished: vanished
        ).store(for: repository)
        guard options.stream == nil else { return }
        let entries =
            snapshot.statistics.files + snapshot.statistics.directories + snapshot.statistics.others
        var head = ManifestCache.Head(
            snapshot: name.text, readingBegan: began, manifestDepth: snapshot.manifestDepth,
            manifestIDs: snapshot.manifestIDs, fileSystems: snapshot.fileSystems, entries: entries,
            body: "")
        if let draft = pass.draftBody {
            head.body = "\(cache.key)-\(snapshot.id.short).lines"
            LocalFile.rename(draft, to: cache.bodyPath(head.body))
        } else if let previous = pass.previous {
            head.body = previous.body
        } else {
            return
        }
        try cache.writeHead(head)
    }
}
