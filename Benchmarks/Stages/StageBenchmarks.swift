import AgeEncryption
import BundleFormat
import FileTree
import Replication
import SnapshotModel

/// How fast each stage of the data's way is by itself, on one thread: one line a stage, so that two
/// builds can be compared.
///
///     swift run -c release stage-benchmarks [DIRECTORY]
///
/// DIRECTORY (default /usr) is walked and its larger files are the data.
@main
struct StageBenchmarks {
    static let sampleBytes = 128 << 20

    static func main() throws {
        let words = CommandLine.arguments.dropFirst()
        let directory = words.first ?? "/usr"
        print("stage                                     figure")
        let (walked, sample) = try walk(directory)
        report("walk and status, 2 threads", walked.seconds, Double(walked.entries), "entries/s")
        let bytes = sample.bytes
        guard bytes.count > 1 << 20 else {
            print("too little data below \(directory) for the other stages")
            return
        }
        measure("chunk (FastCDC)", bytes.count) {
            let chunker = Chunker(.standard)
            var at = 0
            while at < bytes.count {
                at += chunker.cut(bytes.baseAddress! + at, count: bytes.count - at)
            }
        }
        measure("hash (SHA-256, 256 KiB)", bytes.count) {
            forEachPiece(bytes, 256 << 10) { _ = ContentHash.sha256($0) as ChunkID }
        }
        measure("fingerprint (XXH3-128, 1 MiB)", bytes.count) {
            forEachPiece(bytes, 1 << 20) { _ = ContentHash.fingerprint($0) }
        }
        for level in [1, 3, 6] {
            let compressor = try BlockCompressor(level: level)
            let output = ByteBuffer(capacity: 5 << 20)
            var stored = 0
            let seconds = try time {
                try forEachPieceThrowing(bytes, 4 << 20) { piece in
                    try compressor.compress(piece, into: output)
                    stored += output.count
                }
            }
            let ratio = Double(bytes.count) / Double(max(stored, 1))
            report(
                "zstd level \(level), 4 MiB frames (\(rounded(ratio)):1)", seconds,
                Double(bytes.count), "B/s")
        }
        let recipient = X25519Identity().recipient
        let seconds = try time {
            var encryptor = try AgeEncryptor(recipients: [.x25519(recipient)])
            encryptor.start { _ in }
            try forEachPieceThrowing(bytes, 4 << 20) { try encryptor.update($0) { _ in } }
            try encryptor.finish { _ in }
        }
        report("seal (age)", seconds, Double(bytes.count), "B/s")
        manifest()
    }

    // MARK: Stages with a shape of their own

    /// Walks a directory and keeps the content of its files as sample data.
    static func walk(_ directory: String) throws -> ((seconds: Double, entries: Int), ByteBuffer) {
        let root = try SourceRoot(Array(directory.utf8))
        let sample = ByteBuffer(capacity: sampleBytes)
        var entries = 0
        // Once for the caches and the sample, once for the time.
        let first = try TreeWalker(roots: [root], options: WalkOptions())
        while let event = first.next() {
            guard event == .entry, first.kind == .file, sample.count < sampleBytes,
                let reader = try? FileReader(opening: first.name, in: first.parent)
            else { continue }
            let wanted = min(sampleBytes - sample.count, Int(clamping: first.status.size))
            sample.reserve(wanted)
            let room = UnsafeMutableRawBufferPointer(
                start: sample.base + sample.count, count: wanted)
            sample.count += (try? reader.read(into: room, at: 0)) ?? 0
        }
        let seconds = try time {
            let walker = try TreeWalker(roots: [root], options: WalkOptions())
            while walker.next() != nil { entries += 1 }
        }
        return ((seconds, entries), sample)
    }

    static func manifest() {
        var entry = Entry(
            path: Array("/srv/project/source/module/a-file-of-usual-length.swift".utf8), kind: .file
        )
        entry.mode = 0o644
        entry.user = Array("anna".utf8)
        entry.group = Array("users".utf8)
        entry.size = 12_345
        entry.mtime = Timestamp(seconds: 1_700_000_000, nanoseconds: 123_456_789)
        entry.ctime = entry.mtime
        entry.btime = entry.mtime
        entry.inode = 123_456_789
        entry.fingerprint = Fingerprint(high: 0x0123_4567_89ab_cdef, low: 0xfedc_ba98_7654_3210)
        entry.chunks = [ChunkID(0x0123_4567_89ab_cdef, 1, 2, 3)]
        let count = 500_000
        let lines = ByteBuffer(capacity: 256 << 20)
        let writing = time { for _ in 0..<count { EntryCodec.write(entry, to: lines) } }
        report("manifest: write a line", writing, Double(count), "entries/s")
        var read = 0
        let whole = time {
            JSONLines.forEach(lines.bytes) { line in
                if EntryCodec.read(line) != nil { read += 1 }
                return true
            }
        }
        report("manifest: read a line whole", whole, Double(read), "entries/s")
        var summary = EntrySummary()
        var compared = 0
        let brief = time {
            JSONLines.forEach(lines.bytes) { line in
                if summary.read(line) { compared += 1 }
                return true
            }
        }
        report("manifest: read what change detection asks", brief, Double(compared), "entries/s")
    }

    // MARK: Measuring

    static func forEachPiece(
        _ bytes: UnsafeRawBufferPointer, _ size: Int, _ body: (UnsafeRawBufferPointer) -> Void
    ) {
        var at = 0
        while at < bytes.count {
            let end = min(at + size, bytes.count)
            body(UnsafeRawBufferPointer(rebasing: bytes[at..<end]))
            at = end
        }
    }

    static func forEachPieceThrowing(
        _ bytes: UnsafeRawBufferPointer, _ size: Int,
        _ body: (UnsafeRawBufferPointer) throws -> Void
    ) rethrows {
        var at = 0
        while at < bytes.count {
            let end = min(at + size, bytes.count)
            try body(UnsafeRawBufferPointer(rebasing: bytes[at..<end]))
            at = end
        }
    }

    static func time(_ body: () throws -> Void) rethrows -> Double {
        let start = HostClock.monotonic
        try body()
        return Double(HostClock.monotonic - start) / 1e9
    }

    /// The best of three, since what disturbs a run only makes it slower.
    static func measure(_ name: String, _ bytes: Int, _ body: () -> Void) {
        let seconds = (0..<3).map { _ in time(body) }.min() ?? 1
        report(name, seconds, Double(bytes), "B/s")
    }

    static func rounded(_ value: Double) -> String {
        let tenths = Int((value * 100).rounded())
        return "\(tenths / 100).\(tenths % 100 / 10)\(tenths % 10)"
    }

    static func report(_ name: String, _ seconds: Double, _ amount: Double, _ unit: String) {
        let rate = amount / max(seconds, 1e-9)
        let figure =
            rate >= 1e9 ? "\(rounded(rate / 1e9)) G\(unit)" : "\(rounded(rate / 1e6)) M\(unit)"
        print(name + String(repeating: " ", count: max(1, 42 - name.count)) + figure)
    }
}
