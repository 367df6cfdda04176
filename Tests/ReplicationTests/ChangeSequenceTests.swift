import CSystem
import Glibc
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

/// Lets a tree live: what a user, a package manager or a database may do to one between two backups, drawn from a seed.
struct TreeLife {
    private let directory: TemporaryDirectory
    private var generator: SeededGenerator
    private var clock: Int64 = 1_500_000_000
    private let isRoot = getuid() == 0

    init(_ directory: TemporaryDirectory, seed: UInt64) {
        self.directory = directory
        generator = SeededGenerator(seed: seed)
    }

    private mutating func number(_ range: Range<Int>) -> Int {
        Int.random(in: range, using: &generator)
    }

    private mutating func name() -> String {
        let stems = [
            "a", "b", "data", "é", "tab\tand space", "new\nline", "quote\"back\\slash", "x", "y",
            "-dash", ".hidden",
        ]
        return stems[number(0..<stems.count)] + String(number(0..<12))
    }

    private mutating func bytes() -> [UInt8] {
        switch number(0..<12) {
        case 0: return []
        case 1: return generator.bytes(number(200_000..<900_000))
        case 2: return generator.text(number(60_000..<140_000))
        case 3: return [UInt8](repeating: 0, count: number(1..<200_000))
        default:
            return number(0..<2) == 0
                ? generator.text(number(1..<9_000)) : generator.bytes(number(1..<9_000))
        }
    }

    /// All paths of the tree, relative; directories end with a slash. "" is the root.
    private var paths: [String] { directory.contents() }
    private mutating func anyDirectory() -> String {
        let all = [""] + paths.filter { $0.hasSuffix("/") }
        return all[number(0..<all.count)]
    }
    private mutating func anyFile() -> String? {
        let all = paths.filter { path in
            guard !path.hasSuffix("/") else { return false }
            var status = csys_stat()
            return csys_lstatat(AT_FDCWD, directory.path(path), &status) == 0
                && csys_kind(status.mode) == CSYS_FILE
        }
        return all.isEmpty ? nil : all[number(0..<all.count)]
    }

    private mutating func stamp(_ path: String) {
        clock += Int64(number(1..<1_000))
        setTime(path, clock, UInt32(number(0..<1_000_000_000)))
    }

    private func withFile(_ path: String, _ body: (Int32) -> Void) {
        let file = csys_open(path, O_RDWR | CSYS_O_CLOEXEC, 0)
        guard file >= 0 else { return }
        body(file)
        _ = csys_close(file)
    }

    /// One thing happens. Gives what, for the message of a failure.
    mutating func step() -> String {
        switch number(0..<16) {
        case 0...3:
            let path = directory.path(anyDirectory() + name())
            var status = csys_stat()
            if csys_lstatat(AT_FDCWD, path, &status) == 0, csys_kind(status.mode) == CSYS_DIRECTORY
            {
                return "nothing"
            }
            _ = csys_unlinkat(AT_FDCWD, path, 0)
            writeFile(bytes(), to: path, mode: UInt32([0o600, 0o644, 0o755, 0o400][number(0..<4)]))
            stamp(path)
            return "write \(path)"
        case 4:
            let path = directory.path(anyDirectory() + name())
            _ = csys_mkdirat(AT_FDCWD, path, 0o755)
            return "mkdir \(path)"
        case 5:
            guard let file = anyFile() else { return "nothing" }
            let piece = generator.bytes(number(1..<70_000))
            withFile(directory.path(file)) { file in
                var status = csys_stat()
                _ = csys_fstat(file, &status)
                let at = status.size == 0 ? 0 : Int64(generator.next() % status.size)
                _ = piece.withUnsafeBytes { csys_pwrite(file, $0.baseAddress, $0.count, at) }
            }
            stamp(directory.path(file))
            return "overwrite in \(file)"
        case 6:
            guard let file = anyFile() else { return "nothing" }
            let size = Int64(number(0..<400_000))
            withFile(directory.path(file)) { _ = csys_ftruncate($0, size) }
            stamp(directory.path(file))
            return "truncate \(file) to \(size)"
        case 7:
            guard let file = anyFile() else { return "nothing" }
            let (at, length) = (Int64(number(0..<20)) * 4096, Int64(number(1..<20)) * 4096)
            withFile(directory.path(file)) { file in
                _ = csys_ftruncate(file, at + length + 5000)
                _ = csys_fallocate_punch_hole(file, at, length)
            }
            stamp(directory.path(file))
            return "punch a hole into \(file)"
        case 8, 9:
            let all = paths
            guard !all.isEmpty else { return "nothing" }
            var from = all[number(0..<all.count)]
            if from.hasSuffix("/") { from.removeLast() }
            let to = anyDirectory() + name()
            let result = csys_renameat(AT_FDCWD, directory.path(from), AT_FDCWD, directory.path(to))
            return "rename \(from) to \(to): \(result)"
        case 10:
            guard let file = anyFile() else { return "nothing" }
            _ = csys_unlinkat(AT_FDCWD, directory.path(file), 0)
            return "unlink \(file)"
        case 11:
            let victim = anyDirectory()
            guard !victim.isEmpty, number(0..<3) == 0 else { return "nothing" }
            removeTree(directory.path(String(victim.dropLast())))
            return "remove \(victim)"
        case 12:
            guard let file = anyFile() else { return "nothing" }
            _ = csys_fchmodat(
                AT_FDCWD, directory.path(file),
                UInt32([0o600, 0o640, 0o4755, 0o777][number(0..<4)]))
            if isRoot {
                _ = csys_lchownat(AT_FDCWD, directory.path(file), UInt32(number(0..<3) * 1000), 0)
            }
            return "chmod \(file)"
        case 13:
            guard let file = anyFile() else { return "nothing" }
            let to = anyDirectory() + name()
            let result = csys_linkat(AT_FDCWD, directory.path(file), AT_FDCWD, directory.path(to))
            return "link \(file) to \(to): \(result)"
        case 14:
            let path = directory.path(anyDirectory() + name())
            _ = csys_symlinkat(number(0..<2) == 0 ? "../nowhere" : "a1", AT_FDCWD, path)
            return "symlink \(path)"
        default:
            guard let file = anyFile() else { return "nothing" }
            stamp(directory.path(file))
            return "touch \(file)"
        }
    }
}

@Suite("A tree lives and is backed up")
struct ChangeSequenceTests {
    @Test(
        "Every generation restores equal to what the tree was, whatever happened in between",
        .timeLimit(.minutes(60)), arguments: Campaign.seeds(share: 8, soakDividedBy: 2))
    func life(seed: UInt64) throws {
        var choice = SeededGenerator(seed: seed &* 31 &+ 7)
        let world = try World(isEncrypted: seed % 4 != 0)
        var life = TreeLife(world.source, seed: seed)
        var generations: [(image: TreeImage, id: SnapshotID)] = []
        var log: [String] = []
        let count = 5 + Int(choice.next() % 4)
        for generation in 0..<count {
            for _ in 0..<(generation == 0 ? 40 : Int(choice.next() % 25)) {
                log.append(life.step())
            }
            // Half of the nights the files count as old by the next one, sometimes the cache is lost.
            if choice.next() % 2 == 0 { world.settle() }
            if choice.next() % 6 == 0 {
                world.host.loseCache()
                log.append("lose the cache")
            }
            let image = TreeImage(of: world.source.path, withHoles: true)
            let report = try world.backup()
            log.append("backup \(generation + 1)")
            #expect(report.problemCount == 0, "seed \(seed): \(report.problems)")
            #expect(try world.waste().twice == 0, "seed \(seed): stored twice; \(log.suffix(30))")
            generations.append((image, report.snapshot.id))
            // Any generation at any time.
            let picked = generations[Int(choice.next() % UInt64(generations.count))]
            let snapshot = try #require(try world.snapshots().first { $0.id == picked.id })
            let differences = picked.image.differences(
                try world.image(of: snapshot, withHoles: true))
            #expect(
                differences == [], "seed \(seed), after backup \(generation + 1): \(log.suffix(40))"
            )
        }
        let snapshots = try world.snapshots()
        #expect(snapshots.map(\.id) == generations.map(\.id))
        for (position, snapshot) in snapshots.enumerated() {
            let differences = generations[position].image.differences(
                try world.image(of: snapshot, withHoles: true))
            #expect(differences == [], "seed \(seed), generation \(position + 1)")
        }
        let report = try world.verify(data: true)
        #expect(report.isSound, "seed \(seed): \(report.findings.map(\.description))")
    }
}
