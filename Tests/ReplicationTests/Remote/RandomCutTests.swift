import ObjectStorage
import Replication
import SnapshotRepository
import Synchronization
import TestSupport
import Testing

/// The line breaks at random moments, in either direction and in every way in which lines do.
@Suite("Transfers that are cut at random", .serialized)
struct RandomCutTests {
    @Test(
        "No cut damages a snapshot, and what arrived is not stored again",
        .timeLimit(.minutes(60)), arguments: StoreKind.campaigns,
        Campaign.seeds(share: 1, soakDividedBy: 40))
    func cuts(kind: StoreKind, seed: UInt64) throws {
        var campaign = try CutCampaign(kind, seed: seed)
        let wanted = 8
        // Some faults are meant for a byte or a request that never comes.
        for round in 0..<5 * wanted where campaign.fired < wanted { try campaign.night(round) }
        #expect(campaign.fired >= wanted, "seed \(seed): only \(campaign.fired) faults happened")
        try campaign.checkEverything()
    }
}

/// What neither the line nor the service notices.
@Suite("A byte that was altered on its way up")
struct AlteredByteTests {
    @Test("Where the service keeps it, the client removes it and stores the object again")
    func kept() throws {
        let place = try StorePlace(.moto, behindProxy: true)
        let proxy = try #require(place.proxy)
        let key = try #require(ObjectKey("bundles/00/altered"))
        let bytes = SeededGenerator.numbers(1, 100_000)

        proxy.set("method=PUT,nth=1,flip-up=70000")
        let bare = try place.bareStore()
        let error = #expect(throws: StorageError.self) { try bare.put(bytes, at: key) }
        #expect(proxy.fired == [1])
        #expect(error?.isTransient == true)
        #expect(try bare.head(key) == nil)

        proxy.set("method=PUT,nth=1,flip-up=70000")
        try place.store(time: SkippedTime()).put(bytes, at: key)
        #expect(proxy.fired == [1])
        #expect(try bare.get(key) == bytes)
    }
}

/// One host and its repository behind a line that breaks.
private struct CutCampaign {
    private let place: StorePlace
    private let world: World
    private let proxy: FaultProxy
    private let seed: UInt64
    private var generator: SeededGenerator
    private var images: [TreeImage] = []
    /// Faults that have happened so far.
    private(set) var fired = 0

    init(_ kind: StoreKind, seed: UInt64) throws {
        self.seed = seed
        generator = SeededGenerator(seed: seed)
        place = try StorePlace(kind, ownServer: true, behindProxy: true)
        proxy = try #require(place.proxy)
        world = try World(store: try place.store(), at: place.location, sourceInMemory: true)
        plantTree(world.source, seed: seed, files: 30, largeBytes: 1 << 20)
        images.append(TreeImage(of: world.source.path))
        try world.backup { change(&$0) }
    }

    /// A backup and a restore over a line that breaks, and what has to hold then.
    mutating func night(_ round: Int) throws {
        world.source.put(
            generator.bytes(Int.random(in: 4_000_000...20_000_000, using: &generator)),
            "dir-\(round % 5)/new", time: 1_710_000_000 + Int64(round))
        let now = TreeImage(of: world.source.path)
        // Who gives up at once leaves the more behind.
        let isPatient = Int.random(in: 0..<3, using: &generator) == 0
        let upward = Cut(isUpward: true, kind: place.kind, &generator)
        let what = "seed \(seed), night \(round), \(upward.rule), patient: \(isPatient)"

        proxy.set(upward.rule)
        var failure: (any Error)?
        do {
            try world.backup(through: try store(against: upward, isPatient: isPatient)) {
                change(&$0)
            }
        } catch {
            failure = error
        }
        let happened = proxy.fired.reduce(0, +)
        fired += min(happened, 1)
        proxy.set()
        if let failure {
            // On a busy machine a server may be silent for as long by itself.
            #expect(happened > 0 || upward.isStall, "\(what): \(failure)")
            #expect(!isPatient, "\(what): \(failure)")
            try checkSnapshots(now, what)
            try world.backup { change(&$0) }
        }
        images.append(now)
        let snapshots = try world.snapshots()
        if failure != nil, snapshots.count == images.count + 1 {
            // The answer to the commit was all that was lost.
            images.append(now)
        }
        #expect(snapshots.count == images.count, "\(what)")
        let waste = try world.waste()
        #expect(waste.twice == 0 && waste.unindexed == 0, "\(what): \(waste)")

        try restoreNewest(now, what)
    }

    /// A restore over a line that breaks: it goes on by itself, and fetches again what arrived
    /// altered.
    private mutating func restoreNewest(_ now: TreeImage, _ before: String) throws {
        let cut = Cut(isUpward: false, kind: place.kind, &generator)
        let what = "\(before), then \(cut.rule)"
        let newest = try #require(try world.snapshots().last)
        let target = TemporaryDirectory.inMemory()
        proxy.set(cut.rule)
        defer {
            fired += min(proxy.fired.reduce(0, +), 1)
            proxy.set()
        }
        do {
            let report = try restore(
                newest, through: try store(against: cut, isPatient: true),
                to: target.path("out"))
            let differences = now.differences(TreeImage(of: target.path("out")))
            #expect(
                report.damagedCount == 0 && report.problemCount == 0, "\(what): \(report.damaged)")
            #expect(differences == [], "\(what)")
        } catch {
            Issue.record("\(what): \(error)")
        }
    }

    func checkEverything() throws {
        let snapshots = try world.snapshots()
        for (snapshot, image) in zip(snapshots, images) {
            #expect(image.differences(try world.image(of: snapshot)) == [], "seed \(seed)")
        }
        let report = try world.verify(data: true)
        #expect(report.isSound, "seed \(seed): \(report.findings.map(\.description))")
        if place.kind == .strictS3, let server = place.server {
            let puts = StrictS3(server).log().filter {
                $0.operation == "PutObject" && $0.status == 200
            }
            #expect(puts.count > images.count)
            #expect(
                Set(puts.map(\.key)).count == puts.count, "seed \(seed): an object was stored twice"
            )
        }
    }

    /// The snapshots that were there are whole; so is the one that a lost answer may have left.
    private func checkSnapshots(_ now: TreeImage, _ what: String) throws {
        let snapshots = try world.snapshots()
        #expect(
            snapshots.count == images.count || snapshots.count == images.count + 1, "\(what)")
        let last = try #require(snapshots.last)
        let expected = snapshots.count > images.count ? now : images[images.count - 1]
        #expect(expected.differences(try world.image(of: last)) == [], "\(what)")
    }

    private func change(_ options: inout BackupOptions) {
        options.uploads = place.uploads
        options.bundleBytes = 1 << 20
    }

    /// A fresh store, with connections of its own.
    private func store(against cut: Cut, isPatient: Bool) throws -> any ObjectStore {
        try place.store(
            stallSeconds: cut.isStall ? 2 : 60, patienceSeconds: isPatient ? 900 : 0,
            time: SkippedTime())
    }

    private func restore(
        _ snapshot: Snapshot, through store: any ObjectStore, to target: String
    ) throws -> RestoreReport {
        let reader = try world.addHost("reader")
        let repository = try world.open(through: store, on: reader, asOwner: true)
        return try Restore(
            repository: repository, index: try ChunkIndex.load(repository), snapshot: snapshot,
            options: RestoreOptions(), monitor: SilentMonitor(), cancellation: Cancellation()
        ).run(path: Array(world.source.path.utf8), target: target)
    }
}

/// One way in which a line breaks, at a moment drawn by lot.
private struct Cut {
    /// As the proxy is told.
    let rule: String
    /// Whether nobody is told: the silence has to be noticed.
    var isStall: Bool { rule.contains("stall") }

    init(isUpward: Bool, kind: StoreKind, _ generator: inout SeededGenerator) {
        let way = isUpward ? "up" : "down"
        let ending = ["reset", "drop", "stall", "flip"].randomElement(using: &generator) ?? "reset"
        guard kind.isS3 else {
            // The first bytes are the handshake's: a host key that arrives altered is no host key.
            let number = Int.random(in: 1...2, using: &generator)
            let byte = Int.random(in: 10_000...9_000_000, using: &generator)
            rule =
                switch Int.random(in: 0..<6, using: &generator) {
                case 0: "refuse=1,first=\(number)"
                default: "nth=\(number),\(ending)-\(way)=\(byte)"
                }
            return
        }
        let method = isUpward ? "method=PUT" : "method=GET,path=/bundles/"
        let number = Int.random(in: 1...5, using: &generator)
        // Records are small: half of the faults would never meet one.
        let byte =
            Bool.random(using: &generator)
            ? Int.random(in: 0...300, using: &generator)
            : Int.random(in: 0...4_000_000, using: &generator)
        rule =
            switch Int.random(in: 0..<8, using: &generator) {
            case 0: "\(method),nth=\(number),lost=1"
            case 1: "first=\(number),status=503:SlowDown,retry-after=\(number * 10)"
            case 2: "\(method),first=\(number),status=500:InternalError"
            case 3: "refuse=1,first=\(number)"
            default: "\(method),nth=\(number),\(ending)-\(way)=\(byte)"
            }
    }
}
