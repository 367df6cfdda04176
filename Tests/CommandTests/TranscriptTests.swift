import Glibc
import TestSupport
import Testing

/// A transcript is a session as a person would see it: lines that begin with `$ ` are typed, what
/// follows is what the command answers. What differs from run to run stands as `<id>`, `<size>` and
/// the like.
@Suite("Transcripts")
struct TranscriptTests {
    static let folder =
        String(#filePath.dropLast("/TranscriptTests.swift".count)) + "/Fixtures/transcripts"

    static var names: [String] {
        treeContents(folder).filter { $0.hasSuffix(".txt") }
    }

    @Test("A session goes as it is written down", arguments: TranscriptTests.names)
    func session(_ name: String) throws {
        let path = "\(Self.folder)/\(name)"
        let written = String(decoding: try #require(readFile(path)), as: UTF8.self)
        let fixture = CommandFixture()
        var actual = ""
        for line in written.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("## ") {
                actual += line + "\n"
                continue
            }
            guard line.hasPrefix("$ ") else { continue }
            let outcome = fixture.shell(String(line.dropFirst(2)))
            actual += line + "\n" + normalised(outcome.output, fixture)
            if outcome.status != 0 { actual += "[exit \(outcome.status)]\n" }
        }
        if getenv("UPDATE_GOLDENS").map({ String(cString: $0) }) == "1" {
            writeFile(Array(actual.utf8), to: path, mode: 0o644)
            return
        }
        #expect(actual == written, "\(name); UPDATE_GOLDENS=1 writes it anew")
    }

    private func normalised(_ output: String, _ fixture: CommandFixture) -> String {
        var host = [CChar](repeating: 0, count: 256)
        gethostname(&host, 255)
        let hostName = host.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        var text = output.replacing(fixture.directory.path, with: "W")
        text = text.replacing("host \(hostName)", with: "host <host>").replacing(
            " \(hostName) ", with: " <host> "
        ).replacing(" \(hostName): ", with: " <host>: ")
        text = text.replacing(/[0-9a-f]{64}/, with: "<sha256>")
        text = text.replacing(/([0-9a-f]{4}-){7}[0-9a-f]{4}/, with: "<fingerprint>")
        text = text.replacing(/age1[0-9a-z]{58}/, with: "<recipient>")
        text = text.replacing(/AGE-SECRET-KEY-1[0-9A-Z]+/, with: "<identity>")
        text = text.replacing(/\d{8}T\d{6}Z/, with: "<utc>")
        text = text.replacing(/\b[0-9a-f]{10}\b/, with: "<id>")
        text = text.replacing(/\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?/, with: "<time>")
        text = text.replacing(/\b\d+(\.\d)? [kMG]?B\b/, with: "<size>")
        text = text.replacing(/took \d+\.\d s/, with: "took <duration>")
        // Columns are as wide as what stands in them.
        return text.replacing(/(?<before>\S) {2,}/) { "\($0.output.before)  " }
    }
}
