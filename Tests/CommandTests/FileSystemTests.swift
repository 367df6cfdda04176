import Glibc
import SnapshotModel
import TestSupport
import Testing

/// What only a file system of the test's own can show.
@Suite("File systems", .serialized)
struct FileSystemTests {
    /// Runs lines with mounts of their own, in a name space that ends with them.
    private func withMounts(
        _ fixture: CommandFixture, _ lines: String
    ) throws -> CommandFixture.Outcome {
        let words = geteuid() == 0 ? "unshare -m" : "unshare -rm"
        if fixture.shell("mkdir -p m && \(words) mount -t tmpfs tmpfs m").status != 0 {
            try Test.cancel(
                "skipped: this machine cannot mount a file system in a name space of its own")
        }
        fixture.directory.write(Array("set -e\n\(lines)\n".utf8), to: "lines.sh")
        return fixture.shell("\(words) sh lines.sh")
    }

    @Test(
        "A restore onto a full file system says what is there, and goes on from there when there is room"
    )
    func fullTarget() throws {
        let fixture = CommandFixture()
        fixture.succeed(
            """
            mkdir data
            for n in 1 2 3 4 5 6 7 8; do head -c 1000000 /dev/urandom > data/noise-$n; done
            batchsync init -r repository --no-encryption
            batchsync backup -r repository data
            """)
        let outcome = try withMounts(
            fixture,
            """
            mount -t tmpfs -o size=4m tmpfs m
            code=0
            batchsync restore latest:$PWD/data -r repository --target m/out > first 2>&1 || code=$?
            cat first
            ls m/out | grep -c noise > there
            mount -o remount,size=64m m
            batchsync restore latest:$PWD/data -r repository --target m/out --if-exists replace > second
            cat second
            cmp data/noise-8 m/out/noise-8
            diff -r data m/out
            exit $code
            """)
        #expect(outcome.status == 1, "\(outcome.output)")
        let first = String(decoding: fixture.directory.read("first") ?? [], as: UTF8.self)
        #expect(first.contains("No space left on device"), "\(first)")
        #expect(first.contains("what was restored stays"), "\(first)")
        #expect(first.contains("--if-exists replace"), "\(first)")
        let there = String(decoding: fixture.directory.read("there") ?? [], as: UTF8.self)
        let count = Int(there.prefix { $0.isNumber }) ?? 0
        #expect((1..<8).contains(count), "\(there)")
        #expect(first.contains("restored \(count) file"), "\(first)")
        let second = String(decoding: fixture.directory.read("second") ?? [], as: UTF8.self)
        #expect(second.contains("restored \(8 - count) file"), "\(second)")
        #expect(second.contains("\(count) kept as they were"), "\(second)")
    }

    @Test("What the kernel shows is left out and told of, what somebody keeps in memory is not")
    func kernelFileSystems() throws {
        let fixture = CommandFixture()
        fixture.succeed(
            "mkdir -p data/proc data/memory && batchsync init -r repository --no-encryption")
        let outcome = try withMounts(
            fixture,
            """
            mount --rbind /proc data/proc
            mount -t tmpfs tmpfs data/memory
            echo hello > data/memory/file
            batchsync backup -r repository data 2>&1
            batchsync ls -R latest -r repository > list
            batchsync explain --source data data/proc/version data/proc > explained
            """)
        #expect(outcome.status == 0, "\(outcome.output)")
        #expect(
            outcome.output.contains("what the kernel shows in \(fixture.directory.path)/data/proc"),
            "\(outcome.output)")
        let list = String(decoding: fixture.directory.read("list") ?? [], as: UTF8.self)
        #expect(list.contains("data/proc\n") && !list.contains("data/proc/"), "\(list)")
        #expect(list.contains("data/memory/file"), "\(list)")
        let explained = String(decoding: fixture.directory.read("explained") ?? [], as: UTF8.self)
        #expect(explained.contains("data/proc/version is excluded with"), "\(explained)")
        #expect(explained.contains("what the kernel shows"), "\(explained)")
        #expect(explained.contains("data/proc is included"), "\(explained)")
    }

    @Test("A source that lies in a file system of the kernel is walked")
    func kernelSource() {
        let fixture = CommandFixture()
        fixture.succeed("batchsync init -r repository --no-encryption")
        fixture.succeed("batchsync backup -r repository /proc/sys/kernel/ostype")
        #expect(fixture.succeed("batchsync ls latest -r repository").contains("ostype"))
    }

    @Test("A backup of / says which other file systems it holds, unless it stays on its own")
    func wholeSystem() throws {
        let fixture = CommandFixture()
        fixture.succeed("batchsync init -r repository --no-encryption")
        // Of the whole system only the way to the mounted directory is let in.
        var rules = ""
        var place = ""
        for component in "\(fixture.directory.path)/m".split(separator: "/") {
            rules += " -e '//\(place)*' -e '!//\(place)\(component)'"
            place += component + "/"
        }
        let outcome = try withMounts(
            fixture,
            """
            mount -t tmpfs tmpfs m
            echo hello > m/file
            batchsync backup -r repository / \(rules) > plain 2>&1
            batchsync backup -r repository / -x \(rules) > alone 2>&1
            """)
        let plain = String(decoding: fixture.directory.read("plain") ?? [], as: UTF8.self)
        let alone = String(decoding: fixture.directory.read("alone") ?? [], as: UTF8.self)
        #expect(outcome.status == 0, "\(plain)\(alone)")
        #expect(plain.contains("/ holds other file systems"), "\(plain)")
        #expect(plain.contains("\(fixture.directory.path)/m"), "\(plain)")
        #expect(plain.contains("-x (--one-file-system)"), "\(plain)")
        #expect(!alone.contains("/ holds other file systems"), "\(alone)")
    }

    @Test("Where blocks can be shared, what is taken over from an existing file is shared")
    func reflinks() throws {
        let fixture = CommandFixture()
        fixture.succeed(
            """
            mkdir data && head -c 30000000 /dev/urandom > data/image
            batchsync init -r repository --no-encryption
            batchsync backup -r repository data
            """)
        // A file system with shared blocks, in a file; the machine may lack the program, the right
        // or the kernel's module for it.
        let outcome = try withMounts(
            fixture,
            """
            truncate -s 400M disk
            for kind in "xfs -q -m reflink=1" "btrfs -q"; do
                command -v mkfs.${kind%% *} > /dev/null || continue
                mkfs.$kind disk > /dev/null 2>&1 || continue
                mount -o loop disk m 2> /dev/null && break
            done
            mountpoint -q m || exit 77
            batchsync restore latest:$PWD/data -r repository --target m/out > /dev/null
            sync
            before=$(df --output=used -B 1 m | tail -n 1)
            printf x | dd of=m/out/image bs=1 seek=15000000 conv=notrunc 2> /dev/null
            cp --reflink=always m/out/image m/old
            batchsync restore latest:$PWD/data -r repository --target m/out --if-exists replace
            sync
            after=$(df --output=used -B 1 m | tail -n 1)
            cmp m/out/image data/image
            cmp m/old m/out/image && exit 78
            echo grown $((after - before))
            umount m
            """)
        if outcome.status == 77 {
            try Test.cancel("skipped: this machine cannot make a file system with shared blocks")
        }
        #expect(outcome.status == 0, "\(outcome.output)")
        let grown = outcome.output.split(separator: "\n").last { $0.hasPrefix("grown ") }
            .flatMap { Int($0.dropFirst("grown ".count)) }
        // The old file and the new one, of 30 MB each, differ in one chunk.
        #expect(try #require(grown) < 8_000_000, "\(outcome.output)")
    }
}
