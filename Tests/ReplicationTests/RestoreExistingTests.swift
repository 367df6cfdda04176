import BundleFormat
import CSystem
import FileTree
import Glibc
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("Restoring where something is already")
struct RestoreExistingTests {
    private let old = Timestamp(seconds: 1_500_000_000)
    private let new = Timestamp(seconds: 1_700_000_000)
    private let own = Timestamp(seconds: 1_600_000_000, nanoseconds: 123_456_789)

    /// A tree of four files, restored once; then one is older, one newer, one gone.
    private func changed() throws -> RestoreScratch {
        let scratch = try RestoreScratch()
        scratch.add(.directory, "/d")
        for name in ["gone", "newer", "older", "same"] {
            scratch.file("/d/\(name)", [Array(name.utf8)])
        }
        try scratch.restore()
        unlink(scratch.target + "/d/gone")
        for (name, time) in [("newer", new), ("older", old)] {
            writeFile(Array("changed".utf8), to: scratch.target + "/d/" + name)
            scratch.setTime("d/" + name, time)
        }
        return scratch
    }

    private func contents(_ scratch: RestoreScratch) -> [String] {
        ["gone", "newer", "older", "same"].map {
            scratch.content("d/" + $0).map { String(decoding: $0, as: UTF8.self) } ?? "-"
        }
    }

    @Test("Without a word about existing files a target that is not empty is refused")
    func refused() throws {
        let scratch = try changed()
        let error = restoreFailure { try scratch.restore() }
        #expect(error?.kind == .usage)
        #expect(error?.remedy.contains("--if-exists") == true)
        #expect(contents(scratch) == ["-", "changed", "changed", "same"])
        // An empty one is fine.
        let empty = scratch.directory.path("empty")
        mkdir(empty, 0o700)
        try scratch.restore(nil, to: empty)
    }

    @Test("replace makes everything what the snapshot says")
    func replace() throws {
        let scratch = try changed()
        let report = try scratch.restore { $0.ifExists = .replace }
        #expect(contents(scratch) == ["gone", "newer", "older", "same"])
        #expect(scratch.mtime("d/newer") == own)
        #expect(report.files == 3)
        #expect(report.kept == 1)
        #expect(report.problemCount == 0)
    }

    @Test("keep restores only what is missing")
    func keep() throws {
        let scratch = try changed()
        let report = try scratch.restore { $0.ifExists = .keep }
        #expect(contents(scratch) == ["gone", "changed", "changed", "same"])
        #expect(report.files == 1)
        #expect(report.kept == 3)
    }

    @Test("newer replaces only what the snapshot has newer")
    func newer() throws {
        let scratch = try changed()
        try scratch.restore { $0.ifExists = .newer }
        #expect(contents(scratch) == ["gone", "changed", "older", "same"])
    }

    @Test("fail names what differs and leaves it alone")
    func fail() throws {
        let scratch = try changed()
        let report = try scratch.restore { $0.ifExists = .fail }
        #expect(contents(scratch) == ["gone", "changed", "changed", "same"])
        #expect(
            report.problems.map { String(decoding: $0.path, as: UTF8.self) }.sorted() == [
                "/d/newer", "/d/older",
            ])
    }

    @Test("Metadata of a kept file is set, and nothing is fetched for it")
    func metadataOnly() throws {
        let scratch = try RestoreScratch()
        scratch.file("/a", [[1, 2, 3]]) { $0.mode = 0o600 }
        try scratch.restore()
        chmod(scratch.target + "/a", 0o666)
        let before = scratch.status("a")?.inode
        let report = try scratch.restore { $0.ifExists = .replace }
        #expect(scratch.status("a")?.mode == 0o100600)
        #expect(scratch.status("a")?.inode == before)
        #expect(report.kept == 1)
        #expect(report.writtenBytes == 0)
    }

    @Test("Of a changed file only the chunks that differ are fetched")
    func reuse() throws {
        let scratch = try RestoreScratch()
        var generator = SeededGenerator(seed: 11)
        let chunks = (0..<8).map { _ in generator.bytes(100_000) }
        scratch.file("/big", chunks, frameForEach: true)
        try scratch.restore()
        let inode = scratch.status("big")?.inode
        var damaged = Array(chunks.joined())
        damaged[350_000] ^= 1
        writeFile(damaged, to: scratch.target + "/big")
        let report = try scratch.restore {
            $0.ifExists = .replace
            $0.verify = true
        }
        #expect(scratch.content("big") == Array(chunks.joined()))
        #expect(report.writtenBytes == 100_000)
        #expect(report.reusedBytes == 700_000)
        #expect(report.verified == 1)
        // Built beside the old one.
        #expect(scratch.status("big")?.inode != inode)
        #expect(scratch.names == ["big"])
    }

    @Test("In place blocks are rewritten in the file that is there, holes made and the end cut off")
    func inPlace() throws {
        let scratch = try RestoreScratch()
        var generator = SeededGenerator(seed: 12)
        let chunks = (0..<4).map { _ in generator.bytes(65_536) }
        let hole = Hole(offset: 65_536, length: 1 << 20)
        scratch.file("/disk", chunks, holes: [hole], frameForEach: true)
        try scratch.restore()
        let right = try #require(scratch.content("disk"))
        var wrong = right
        for place in (65_536 + 5)..<(65_536 + 5000) { wrong[place] = 0xAA }
        wrong[right.count - 1] ^= 1
        writeFile(wrong + generator.bytes(10_000), to: scratch.target + "/disk")
        let inode = scratch.status("disk")?.inode
        let report = try scratch.restore {
            $0.ifExists = .replace
            $0.inPlace = true
        }
        #expect(scratch.content("disk") == right)
        #expect(scratch.status("disk")?.inode == inode)
        #expect(report.writtenBytes == 65_536)
    }

    @Test("A file that has only another time is not written again")
    func touched() throws {
        let scratch = try RestoreScratch()
        scratch.file("/a", [[1, 2, 3]])
        try scratch.restore()
        scratch.setTime("a", new)
        let inode = scratch.status("a")?.inode
        let report = try scratch.restore { $0.ifExists = .replace }
        #expect(scratch.mtime("a") == own)
        #expect(scratch.status("a")?.inode == inode)
        #expect(report.writtenBytes == 0)
        #expect(report.kept == 1)
    }

    @Test("A sparse file that has only another time is not written again either")
    func touchedSparse() throws {
        let scratch = try RestoreScratch()
        let hole = Hole(offset: 65_536, length: 1 << 20)
        scratch.file("/a", [[UInt8](repeating: 5, count: 65_536)], holes: [hole])
        try scratch.restore()
        scratch.setTime("a", new)
        let inode = scratch.status("a")?.inode
        let report = try scratch.restore { $0.ifExists = .replace }
        #expect(scratch.mtime("a") == own)
        #expect(scratch.status("a")?.inode == inode)
        #expect(report.writtenBytes == 0)
        #expect(report.kept == 1)
    }

    @Test("Data where a hole belongs is noticed, though all content is right")
    func dataInHole() throws {
        for inPlace in [false, true] {
            let scratch = try RestoreScratch()
            scratch.file("/a", [[1, 2, 3]], holes: [Hole(offset: 3, length: 10_000)])
            try scratch.restore()
            let right = try #require(scratch.content("a"))
            writeFile([1, 2, 3] + [UInt8](repeating: 7, count: 10_000), to: scratch.target + "/a")
            let report = try scratch.restore {
                $0.ifExists = .replace
                $0.inPlace = inPlace
            }
            #expect(scratch.content("a") == right)
            #expect(report.writtenBytes == 0)
            #expect(report.reusedBytes == 3)
        }
    }

    @Test("keep links a missing name to the one that is there")
    func keepLinks() throws {
        let scratch = try RestoreScratch()
        for path in ["/x", "/y"] {
            scratch.file(path, [[5]]) {
                $0.links = 2
                $0.inode = 7
            }
        }
        try scratch.restore()
        unlink(scratch.target + "/y")
        try scratch.restore { $0.ifExists = .keep }
        #expect(scratch.status("x")?.inode == scratch.status("y")?.inode)
    }

    @Test("A restore that was cut short goes on: what is whole is kept, leftovers are cleared away")
    func resume() throws {
        let scratch = try RestoreScratch()
        var generator = SeededGenerator(seed: 13)
        let chunks = (0..<6).map { _ in generator.bytes(50_000) }
        scratch.add(.directory, "/d")
        scratch.file("/d/big", chunks, frameForEach: true)
        scratch.file("/d/small", [[1]])
        try scratch.restore()
        // As a killed process leaves it: half a file with the time of the killing, and one under a
        // temporary name.
        writeFile(Array(chunks[..<3].joined()), to: scratch.target + "/d/big")
        writeFile([1, 2, 3], to: scratch.target + "/d/.batchsync-restore-abc-1")
        unlink(scratch.target + "/d/small")
        let report = try scratch.restore { $0.ifExists = .replace }
        #expect(scratch.names == ["d/", "d/big", "d/small"])
        #expect(scratch.content("d/big") == Array(chunks.joined()))
        #expect(report.reusedBytes == 150_000)
        #expect(report.writtenBytes == 150_001)
    }

    @Test("Links in the target where directories belong are replaced, never followed")
    func linkInTheWay() throws {
        let scratch = try RestoreScratch()
        scratch.add(.directory, "/d")
        scratch.file("/d/x", [[1]])
        scratch.add(.directory, "/e")
        scratch.file("/e/y", [[2]])
        let outside = scratch.directory.path("outside")
        mkdir(outside, 0o700)
        mkdir(scratch.target, 0o700)
        symlink(outside, scratch.target + "/d")
        symlink(outside, scratch.target + "/e")
        // Kept, the link stands in the way of what belongs below it.
        let kept = try scratch.restore { $0.ifExists = .keep }
        #expect(kept.problems.map(\.path) == [Array("/d".utf8), Array("/e".utf8)])
        #expect(treeContents(outside) == [])
        let report = try scratch.restore { $0.ifExists = .replace }
        #expect(report.problemCount == 0)
        #expect(treeContents(outside) == [])
        #expect(scratch.names == ["d/", "d/x", "e/", "e/y"])
    }

    @Test("A link that takes a directory's place while the restore runs is not followed")
    func linkMeanwhile() throws {
        let scratch = try RestoreScratch()
        let outside = scratch.directory.path("outside")
        mkdir(outside, 0o700)
        scratch.add(.directory, "/d")
        for number in 0..<20 { scratch.file("/d/f\(number)", [[UInt8(number)]]) }
        scratch.add(.directory, "/e")
        scratch.file("/e/last", [[1]])
        /// Puts a link in the directory's place as soon as it is made.
        final class Intruder: Monitor {
            let counts = ProgressCounts()
            let wantsPaths = true
            let target: String, outside: String
            init(_ target: String, _ outside: String) {
                self.target = target
                self.outside = outside
            }
            func phase(_ name: String) {}
            func path(_ path: [UInt8], _ event: PathEvent) {
                guard path == Array("/e".utf8) else { return }
                rename(target + "/d", target + "/moved")
                symlink(outside, target + "/d")
            }
            func problem(_ path: [UInt8], kind: String, message: String) {}
            func note(_ text: String) {}
        }
        let restore = try scratch.makeRestore(monitor: Intruder(scratch.target, outside))
        let report = try restore.run(path: nil, target: scratch.target)
        #expect(treeContents(outside) == [])
        #expect(scratch.content("e/last") == [1])
        #expect(report.files + report.problemCount >= 21)
    }

    @Test("Extra files go with delete only, and what patterns leave out stays")
    func delete() throws {
        let scratch = try RestoreScratch()
        scratch.add(.directory, "/d")
        scratch.file("/d/b", [[1]])
        scratch.add(.directory, "/d/sub")
        scratch.file("/d/sub/x", [[2]])
        scratch.file("/d/z", [[3]])
        try scratch.restore()
        for name in ["d/a", "d/c", "d/sub/y", "d/zz", "d/cache.tmp", "beside"] {
            writeFile([9], to: scratch.target + "/" + name)
        }
        mkdir(scratch.target + "/d/extra", 0o700)
        writeFile([9], to: scratch.target + "/d/extra/file")
        let all = scratch.names
        let dry = try scratch.restore {
            $0.ifExists = .replace
            $0.delete = true
            $0.dryRun = true
        }
        #expect(dry.removed == 6)
        #expect(scratch.names == all)
        let report = try scratch.restore {
            $0.ifExists = .replace
            $0.delete = true
            $0.exclude = [Array("*.tmp".utf8)]
        }
        #expect(report.removed == 5)
        #expect(
            report.removedPaths.map { String(decoding: $0, as: UTF8.self) }.sorted()
                == ["d/a", "d/c", "d/extra", "d/sub/y", "d/zz"])
        // What lies beside the directories of the snapshot is none of its business.
        #expect(
            scratch.names == ["beside", "d/", "d/b", "d/cache.tmp", "d/sub/", "d/sub/x", "d/z"])
        #expect(scratch.mtime("d") == own)
    }

    @Test("Directories above the sources keep what lies in them, the sources first of all")
    func deleteBelowSources() throws {
        let scratch = try RestoreScratch()
        for root in ["/srv/a/www", "/srv/b"] {
            scratch.add(.directory, root)
            scratch.file(root + "/file", [[1]])
        }
        try scratch.restore()
        let restored = scratch.names
        #expect(restored.contains("srv/a/www/file") && restored.contains("srv/b/file"))
        for name in ["beside", "srv/beside", "srv/a/beside", "srv/a/www/extra", "srv/b/extra"] {
            writeFile([9], to: scratch.target + "/" + name)
        }
        for isDry in [true, false] {
            let report = try scratch.restore {
                $0.ifExists = .replace
                $0.delete = true
                $0.dryRun = isDry
            }
            #expect(report.problemCount == 0)
            #expect(
                report.removedPaths.map { String(decoding: $0, as: UTF8.self) }.sorted()
                    == ["srv/a/www/extra", "srv/b/extra"])
        }
        #expect(
            scratch.names == (restored + ["beside", "srv/beside", "srv/a/beside"]).sorted())
    }

    @Test("A path that was named is made equal down to the target itself")
    func deleteBelowPath() throws {
        let scratch = try RestoreScratch()
        scratch.add(.directory, "/srv")
        scratch.add(.directory, "/srv/www")
        scratch.file("/srv/www/index", [[1]])
        try scratch.restore("/srv/www")
        writeFile([9], to: scratch.target + "/other")
        try scratch.restore("/srv/www") {
            $0.ifExists = .replace
            $0.delete = true
        }
        #expect(scratch.names == ["index"])
    }

    @Test(
        "delete is refused with include, without if-exists, and for a whole snapshot over the system"
    )
    func deleteRefused() throws {
        let scratch = try changed()
        let cases: [(String, (inout RestoreOptions) -> Void)] = [
            (
                scratch.target,
                {
                    $0.include = [Array("x".utf8)]
                    $0.ifExists = .replace
                }
            ),
            (scratch.target, { _ in }),
            (
                "/",
                {
                    $0.ifExists = .replace
                    $0.dryRun = true
                }
            ),
            (
                "/tmp/..",
                {
                    $0.ifExists = .replace
                    $0.dryRun = true
                }
            ),
        ]
        for (target, change) in cases {
            let error = restoreFailure {
                try scratch.restore(nil, to: target) {
                    $0.delete = true
                    change(&$0)
                }
            }
            #expect(error?.kind == .usage)
        }
    }

    @Test("Nothing is deleted once part of the manifest cannot be read")
    func deleteStopsAtDamage() throws {
        let scratch = try RestoreScratch()
        scratch.segmentEntries = 2
        scratch.add(.directory, "/d")
        for name in ["a", "b", "c", "e"] { scratch.file("/d/" + name, [Array(name.utf8)]) }
        try scratch.restore()
        writeFile([9], to: scratch.target + "/d/f")
        try scratch.damage(.manifest, frame: 1)
        let report = try scratch.restore {
            $0.ifExists = .replace
            $0.delete = true
        }
        #expect(report.removed == 0)
        #expect(report.damagedCount == 1)
        #expect(report.notes.count == 1)
        #expect(scratch.names == ["d/", "d/a", "d/b", "d/c", "d/e", "d/f"])
    }

    @Test("A directory with something in it makes way for a file only where extras are removed")
    func directoryInTheWay() throws {
        let scratch = try RestoreScratch()
        scratch.file("/a", [[1]])
        scratch.file("/b", [[2]])
        mkdir(scratch.target, 0o700)
        mkdir(scratch.target + "/a", 0o700)
        mkdir(scratch.target + "/b", 0o700)
        writeFile([9], to: scratch.target + "/b/mine")
        let report = try scratch.restore { $0.ifExists = .replace }
        #expect(scratch.content("a") == [1])
        #expect(report.problems.map(\.path) == [Array("/b".utf8)])
        #expect(scratch.names == ["a", "b/", "b/mine"])
        try scratch.restore {
            $0.ifExists = .replace
            $0.delete = true
        }
        #expect(scratch.content("b") == [2])
    }

    @Test("Names that have become separate files are linked again")
    func relink() throws {
        let scratch = try RestoreScratch()
        for path in ["/x", "/y"] {
            scratch.file(path, [[5]]) {
                $0.links = 2
                $0.inode = 7
            }
        }
        try scratch.restore()
        unlink(scratch.target + "/y")
        writeFile([5], to: scratch.target + "/y")
        scratch.setTime("y", own)
        try scratch.restore { $0.ifExists = .replace }
        #expect(scratch.status("x")?.inode == scratch.status("y")?.inode)
    }
}
