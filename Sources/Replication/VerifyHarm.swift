import SnapshotModel
import SnapshotRepository

/// What is wrong with the snapshots' content, by its cause.
struct VerifyHarm: Sendable {
    enum Cause: Hashable, Sendable {
        /// What lies in this bundle cannot be read.
        case bundle(BundleID)
        /// The index does not know where something lies.
        case notIndexed
        /// The index tells too little of what a piece of a manifest needs.
        case needLine
        /// A piece of a manifest says what cannot be.
        case manifest
        /// It is sealed to other owners than those at hand, which is no damage.
        case sealedToOthers
    }

    struct Damage: Sendable {
        var message: String
        var files = VerifyHarmedFiles()
        /// Segments concerned, by number.
        var segments: Set<Int> = []
        /// Snapshots concerned directly, by their place in the catalog.
        var snapshots: Set<Int> = []
    }

    private(set) var damages: [Cause: Damage] = [:]
    /// Segments that could not be read to their end: what else is wrong in them is unknown.
    private(set) var unreadSegments: Set<Int> = []
    var segments = 0
    var entries = 0

    mutating func note(_ cause: Cause, _ message: String, segment: Int, path: [UInt8]? = nil) {
        var damage = damages[cause] ?? Damage(message: message)
        damage.segments.insert(segment)
        if let path {
            damage.files.add(path, segment: segment)
        } else {
            unreadSegments.insert(segment)
        }
        damages[cause] = damage
    }

    mutating func note(_ cause: Cause, _ message: String, snapshot: Int) {
        damages[cause, default: Damage(message: message)].snapshots.insert(snapshot)
    }

    mutating func add(_ other: VerifyHarm) {
        segments += other.segments
        entries += other.entries
        unreadSegments.formUnion(other.unreadSegments)
        for (cause, damage) in other.damages {
            guard var known = damages[cause] else {
                damages[cause] = damage
                continue
            }
            known.files.add(damage.files)
            known.segments.formUnion(damage.segments)
            known.snapshots.formUnion(damage.snapshots)
            damages[cause] = known
        }
    }
}

/// The files that one damage harms, each once, however many of its versions are.
///
/// Memory: 8 bytes a file, and the paths of the first ones in path order: those are kept whole by
/// whoever meets them, so that lists of several threads can be joined.
struct VerifyHarmedFiles: Sendable {
    private var kept: [[UInt8]: Set<Int>] = [:]
    private var hashes: Set<Int> = []

    /// How many files there are.
    var count: Int { hashes.count }

    mutating func add(_ path: [UInt8], segment: Int) {
        hashes.insert(path.hashValue)
        kept[path, default: []].insert(segment)
        trim()
    }

    mutating func add(_ other: VerifyHarmedFiles) {
        hashes.formUnion(other.hashes)
        kept.merge(other.kept) { $0.union($1) }
        trim()
    }

    private mutating func trim() {
        guard kept.count >= 2 * VerifyFinding.pathsKept else { return }
        kept = Dictionary(uniqueKeysWithValues: first)
    }

    /// The first ones in path order, with the segments that name them.
    var first: [([UInt8], Set<Int>)] {
        kept.sorted { EntryPath.precedes($0.key, $1.key) }.prefix(VerifyFinding.pathsKept)
            .map { ($0.key, $0.value) }
    }
}
