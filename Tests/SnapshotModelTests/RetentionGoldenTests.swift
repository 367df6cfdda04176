import Glibc
import SnapshotModel
import Testing

/// Tables that a person can read and judge; `UPDATE_GOLDENS=1` writes what is decided now.
@Suite("Retention, in tables")
struct RetentionGoldenTests {
    static let folder =
        String(#filePath.dropLast("/RetentionGoldenTests.swift".count)) + "/Fixtures/retention"

    static var names: [String] {
        guard let directory = opendir(folder) else { return [] }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name.hasSuffix(".txt") { names.append(name) }
        }
        return names.sorted()
    }

    private func contents(_ path: String) throws -> String {
        let file = try #require(fopen(path, "r"), "\(path) cannot be read")
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = fread(&bytes, 1, bytes.count, file)
        return String(decoding: bytes[..<count], as: UTF8.self)
    }

    @Test("A policy decides as the table says", arguments: RetentionGoldenTests.names)
    func table(_ name: String) throws {
        let path = "\(Self.folder)/\(name)"
        let written = try contents(path)
        let decided = try RetentionTable(parsing: written).decided()
        if getenv("UPDATE_GOLDENS").map({ String(cString: $0) }) == "1" {
            let file = try #require(fopen(path, "w"), "\(path) cannot be written")
            fputs(decided, file)
            fclose(file)
            return
        }
        #expect(decided == written, "\(name); UPDATE_GOLDENS=1 writes it anew")
    }

    @Test("There are tables")
    func tables() { #expect(Self.names.count >= 10) }
}
