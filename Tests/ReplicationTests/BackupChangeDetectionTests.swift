import CSystem
import FileTree
import Glibc
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("What counts as unchanged")
struct BackupChangeDetectionTests {
    /// A world whose tree was backed up, and whose files count as old.
    private func settledWorld(files: Int = 30, largeBytes: Int = 2 << 20) throws -> World {
        let world = try World()
        plantTree(world.source, files: files, largeBytes: largeBytes)
        try world.backup()
        world.settle()
        return world
    }

    private func expectWhole(
        _ world: World, _ report: BackupReport, location: SourceLocation = #_sourceLocation
    ) throws {
        let differences = TreeImage(of: world.source.path).differences(
            try world.image(of: report.snapshot))
        #expect(differences == [], sourceLocation: location)
    }

    @Test("A night without changes reads nothing and stores nothing")
    func unchanged() throws {
        let world = try settledWorld()
        let bundles = try world.open().listBundles()
        let report = try world.backup()
        let statistics = report.statistics
        #expect(
            statistics.readBytes == 0 && statistics.newBytes == 0 && statistics.storedBytes == 0)
        #expect(
            statistics.unchanged == statistics.files + statistics.directories + statistics.others)
        #expect(statistics.files >= 30)
        #expect(try world.open().listBundles() == bundles)
        try expectWhole(world, report)
    }

    @Test("A file that was only touched is read once, recognised, and packs nothing")
    func touched() throws {
        let world = try settledWorld()
        setTime(world.source.path("large"), 1_700_000_777)
        let monitor = EventMonitor()
        let report = try world.backup(monitor: monitor)
        #expect(report.statistics.readBytes == 2 << 20)
        #expect(report.statistics.newChunks == 0)
        #expect(report.statistics.touched == 1 && report.statistics.changed == 0)
        #expect(monitor[world.source.path("large")] == .touched)
        try expectWhole(world, report)
        world.settle()
        #expect(try world.backup().statistics.readBytes == 0)
    }

    @Test("A change of mode, owner or attribute packs nothing and is kept")
    func metadata() throws {
        let world = try settledWorld()
        let path = world.source.path("dir-1/sub-1/file-1")
        _ = csys_fchmodat(AT_FDCWD, path, 0o4711)
        _ = csys_fchmodat(AT_FDCWD, world.source.path("dir-2"), 0o751)
        if getuid() == 0 { _ = csys_lchownat(AT_FDCWD, world.source.path("link"), 12, 34) }
        let value: [UInt8] = [1, 2, 3]
        _ = value.withUnsafeBytes {
            csys_setxattr_at(AT_FDCWD, path, "user.colour", $0.baseAddress, 3)
        }
        let monitor = EventMonitor()
        let report = try world.backup(monitor: monitor)
        #expect(report.statistics.newChunks == 0)
        #expect(monitor[path] == .metadata && monitor[world.source.path("dir-2")] == .metadata)
        try expectWhole(world, report)
    }

    @Test(
        "A file modified within two seconds of the last reading is racy and read again; a moment older it is not"
    )
    func racy() throws {
        let world = try settledWorld()
        let (file, modified) = (world.source.path("large"), Int64(1_650_000_000))
        setTime(file, modified)
        try world.backup()
        // Two seconds before the reading began is racy, a nanosecond before that is not.
        for (began, isRacy) in [
            (Timestamp(seconds: modified + 2, nanoseconds: 0), true),
            (Timestamp(seconds: modified + 2, nanoseconds: 1), false),
            (Timestamp(seconds: modified - 10, nanoseconds: 0), true),
            (Timestamp(seconds: modified + 100, nanoseconds: 0), false),
        ] {
            world.setReadingBegan(began)
            let report = try world.backup { options in
                options.ignoresCtime = true
                options.walk.rules.add(option: Array("/dir-*".utf8))
                options.walk.rules.add(option: Array("/empty*".utf8))
            }
            #expect(
                report.statistics.readBytes == (isRacy ? 2 << 20 : 0), "reading began \(began.text)"
            )
            #expect(report.statistics.newChunks == 0)
        }
    }

    @Test(
        "Files as young as the last reading are read again by their change time, and store nothing")
    func racyByChangeTime() throws {
        let world = try World()
        plantTree(world.source, files: 10)
        try world.backup()
        let report = try world.backup()
        #expect(report.statistics.readBytes == TreeImage(of: world.source.path).bytes)
        #expect(report.statistics.newChunks == 0 && report.statistics.changed == 0)
    }

    /// The file becomes another one of the same size; what stands in `keep` looks as before.
    private func replaceInPlace(_ world: World, keepingInode: Bool, keepingTime: Bool) {
        let path = world.source.path("large")
        var generator = SeededGenerator(seed: 99)
        let bytes = generator.bytes(2 << 20)
        if !keepingInode { _ = csys_unlinkat(AT_FDCWD, path, 0) }
        writeFile(bytes, to: path)
        setTime(path, keepingTime ? 1_700_000_000 : 1_700_000_001)
    }

    @Test(
        "Each ignore option leaves out one mark, and only that",
        arguments: [
            // keeps inode, keeps mtime; ignores inode, mtime, ctime; is it read?
            ([true, true], [false, false, false], true),
            ([true, true], [false, false, true], false),
            ([true, true], [true, true, false], true),
            ([true, false], [false, false, true], true),
            ([true, false], [false, true, true], false),
            ([true, false], [false, true, false], true),
            ([false, true], [false, false, true], true),
            ([false, true], [true, false, true], false),
            ([false, true], [true, false, false], true),
        ])
    func ignoreOptions(keeps: [Bool], ignores: [Bool], isRead: Bool) throws {
        let world = try settledWorld(files: 0)
        // Held so that the new file cannot get the old one's number.
        let held = csys_open(world.source.path("large"), O_RDONLY, 0)
        defer { _ = csys_close(held) }
        replaceInPlace(world, keepingInode: keeps[0], keepingTime: keeps[1])
        let report = try world.backup {
            $0.ignoresInode = ignores[0]
            $0.ignoresMtime = ignores[1]
            $0.ignoresCtime = ignores[2]
        }
        #expect((report.statistics.readBytes > 0) == isRead)
        #expect((report.statistics.changed == 1) == isRead)
    }

    @Test(
        "Rehash trusts nothing: it reads all, stores nothing again, and finds a change that left no mark"
    )
    func rehash() throws {
        let world = try settledWorld()
        let all = TreeImage(of: world.source.path)
        let first = try world.backup { $0.rehash = true }
        #expect(first.statistics.readBytes == all.bytes && first.statistics.newChunks == 0)
        world.settle()
        replaceInPlace(world, keepingInode: true, keepingTime: true)
        #expect(try world.backup { $0.ignoresCtime = true }.statistics.changed == 0)
        world.settle()
        let found = try world.backup {
            $0.rehash = true
            $0.ignoresCtime = true
        }
        #expect(found.statistics.changed == 1)
        try expectWhole(world, found)
    }

    @Test(
        "Below a renamed directory nothing is read, nor below one that was moved into another and renamed in it"
    )
    func renamedDirectories() throws {
        let world = try settledWorld()
        let source = world.source
        _ = csys_renameat(AT_FDCWD, source.path("dir-1"), AT_FDCWD, source.path("zz"))
        var report = try world.backup()
        #expect(report.statistics.readBytes == 0 && report.statistics.newChunks == 0)
        try expectWhole(world, report)

        world.settle()
        // Into another directory, and a directory in it renamed as well; and one that takes the other's former name.
        _ = csys_renameat(AT_FDCWD, source.path("zz"), AT_FDCWD, source.path("dir-2/inner"))
        _ = csys_renameat(
            AT_FDCWD, source.path("dir-2/inner/sub-1"), AT_FDCWD, source.path("dir-2/inner/other"))
        _ = csys_renameat(AT_FDCWD, source.path("dir-3"), AT_FDCWD, source.path("dir-1"))
        report = try world.backup()
        #expect(report.statistics.readBytes == 0 && report.statistics.newChunks == 0)
        try expectWhole(world, report)

        world.settle()
        // What was changed below it is read, and only that.
        _ = csys_renameat(AT_FDCWD, source.path("dir-2"), AT_FDCWD, source.path("a-first"))
        source.put(Array("news".utf8), "a-first/inner/news")
        report = try world.backup()
        #expect(report.statistics.readBytes == 4)
        try expectWhole(world, report)
    }

    @Test("A file that was itself renamed is read once and stores nothing")
    func renamedFile() throws {
        let world = try settledWorld()
        _ = csys_renameat(
            AT_FDCWD, world.source.path("large"), AT_FDCWD, world.source.path("dir-1/larger"))
        let report = try world.backup()
        #expect(report.statistics.readBytes == 2 << 20 && report.statistics.newChunks == 0)
        #expect(report.statistics.removed == 1 && report.statistics.new == 1)
        try expectWhole(world, report)
    }

    @Test("A host that lost its cache says so, reads everything once more and stores nothing")
    func lostCache() throws {
        let world = try settledWorld()
        let bundles = try world.open().listBundles()
        world.host.loseCache()
        let report = try world.backup()
        #expect(!report.hadCache)
        #expect(report.notes.contains { $0.contains("read once more") }, "\(report.notes)")
        #expect(report.statistics.readBytes == TreeImage(of: world.source.path).bytes)
        #expect(report.statistics.newChunks == 0)
        #expect(try world.open().listBundles() == bundles)
        try expectWhole(world, report)
    }

    @Test("Several roots lie in one snapshot, with hard links between them")
    func severalRoots() throws {
        let world = try World()
        plantTree(world.source, files: 12)
        let other = TemporaryDirectory()
        plantTree(other, seed: 2, files: 12)
        _ = csys_linkat(AT_FDCWD, world.source.path("large"), AT_FDCWD, other.path("also-large"))
        let roots = [world.source.path, other.path]
        let first = try world.backup(roots: roots)
        #expect(first.snapshot.roots.count == 2)
        for (root, directory) in [(world.source.path, world.source), (other.path, other)] {
            let differences = TreeImage(of: directory.path).differences(
                try world.image(of: first.snapshot, root: root))
            #expect(differences == [])
        }
        world.settle()
        #expect(try world.backup(roots: roots.reversed()).statistics.readBytes == 0)
    }

    @Test(
        "A hard-linked file is read once, whichever threads meet its names", arguments: [1, 4])
    func linkedFiles(readers: Int) throws {
        let world = try World()
        let source = world.source
        var generator = SeededGenerator(seed: 11)
        // Small ones lie in one part, large ones are a part each, and every thread meets a name.
        var bytes = 0
        for (number, size) in [100, 0, 5000, 6 << 20, 5 << 20].enumerated() {
            source.write(generator.bytes(size), to: "a\(number)")
            bytes += size
            for other in ["a\(number)-again", "b/\(number)", "c\(number)"] {
                makeDirectory(source.path("b"))
                _ = csys_linkat(AT_FDCWD, source.path("a\(number)"), AT_FDCWD, source.path(other))
            }
        }
        let outside = TemporaryDirectory()
        source.write(Array("has a name elsewhere".utf8), to: "z")
        _ = csys_linkat(AT_FDCWD, source.path("z"), AT_FDCWD, outside.path("z"))
        let image = TreeImage(of: source.path)
        let report = try world.backup { $0.readers = readers }
        #expect(report.statistics.readBytes == bytes + 20)
        #expect(report.statistics.files == 21)
        #expect(image.differences(try world.image(of: report.snapshot)) == [])
        // A further name makes all of them new to the change detection.
        world.settle()
        _ = csys_linkat(AT_FDCWD, source.path("a3"), AT_FDCWD, source.path("d3"))
        let second = try world.backup { $0.readers = readers }
        #expect(second.statistics.readBytes == 6 << 20)
        #expect(second.statistics.newChunks == 0)
        #expect(
            TreeImage(of: source.path).differences(try world.image(of: second.snapshot)) == [])
    }

    @Test("Names of any bytes, holes, links and special files come back")
    func shapes() throws {
        let world = try World()
        let source = world.source
        for name: [UInt8] in [
            [0xFF, 0xFE], [0x61, 0x80], Array("new\nline".utf8), Array("q\"\\".utf8), [0x01, 0x7F],
            Array(repeating: 0x6E, count: 255),
        ] {
            let path = Array(source.path.utf8) + [0x2F] + name + [0]
            path.withUnsafeBytes { path in
                let file = csys_open(
                    path.baseAddress!.assumingMemoryBound(to: CChar.self),
                    O_CREAT | O_WRONLY | CSYS_O_CLOEXEC, 0o600)
                #expect(file >= 0)
                _ = name.withUnsafeBytes { csys_pwrite(file, $0.baseAddress, $0.count, 0) }
                _ = csys_close(file)
            }
        }
        let sparse = csys_open(source.path("sparse"), O_CREAT | O_RDWR | CSYS_O_CLOEXEC, 0o600)
        var generator = SeededGenerator(seed: 3)
        for offset: Int64 in [1 << 20, 5 << 20] {
            _ = generator.bytes(8192).withUnsafeBytes {
                csys_pwrite(sparse, $0.baseAddress, $0.count, offset)
            }
        }
        _ = csys_ftruncate(sparse, 9 << 20)
        _ = csys_close(sparse)
        _ = csys_mknodat(AT_FDCWD, source.path("fifo"), 0o010644, 0, 0)
        let image = TreeImage(of: source.path, withHoles: true)
        #expect(image["sparse"]?.holes.count == 3)
        let report = try world.backup()
        #expect(report.problemCount == 0)
        #expect(image.differences(try world.image(of: report.snapshot, withHoles: true)) == [])
        #expect(report.statistics.readBytes < 1 << 20)
        world.settle()
        #expect(try world.backup().statistics.readBytes == 0)
    }
}
