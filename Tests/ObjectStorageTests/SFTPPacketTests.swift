import TestSupport
import Testing

@testable import ObjectStorage

@Suite("SFTP packets")
struct SFTPPacketTests {
    /// Answers of every kind as OpenSSH sends them, without length and number.
    static let answers: [(kind: UInt8, fields: [UInt8])] = [
        (
            SFTPKind.status,
            [0, 0, 0, 4, 0, 0, 0, 7] + Array("Failure".utf8) + [0, 0, 0, 0]
        ),
        (SFTPKind.handle, [0, 0, 0, 4, 0, 0, 0, 1]),
        (
            SFTPKind.attributes,
            [0, 0, 0, 15, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 3, 232, 0, 0, 3, 232, 0, 0, 129, 128]
                + [104, 0, 0, 0, 104, 0, 0, 1]
        ),
        (
            SFTPKind.name,
            [0, 0, 0, 2] + name("a", "-rw-------", size: 5, mode: 0o100600)
                + name("b", "drwx------", size: 0, mode: 0o040700)
        ),
        (SFTPKind.extendedReply, [UInt8](repeating: 1, count: 88)),
    ]

    static func name(_ name: String, _ long: String, size: UInt8, mode: UInt32) -> [UInt8] {
        func string(_ text: String) -> [UInt8] { [0, 0, 0, UInt8(text.utf8.count)] + text.utf8 }
        return string(name) + string(long) + [0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, size]
            + withUnsafeBytes(of: mode.bigEndian) { [UInt8]($0) }
    }

    @Test("Answers are understood")
    func understood() throws {
        let replies = try Self.answers.map { try SFTPReply(kind: $0.kind, $0.fields) }
        #expect(replies[0] == .status(SFTPStatus(code: 4, text: "Failure")))
        #expect(replies[1] == .handle([0, 0, 0, 1]))
        #expect(
            replies[2]
                == .attributes(
                    SFTPAttributes(size: 65_536, mode: 0o100600, modified: 0x6800_0001)))
        #expect(
            replies[3]
                == .names([
                    SFTPName(
                        name: Array("a".utf8), attributes: SFTPAttributes(size: 5, mode: 0o100600)),
                    SFTPName(
                        name: Array("b".utf8),
                        attributes: SFTPAttributes(size: 0, mode: 0o040700)),
                ]))
        #expect(replies[4] == .extended([UInt8](repeating: 1, count: 88)))
    }

    @Test("An answer that was cut off anywhere is refused, or means less", arguments: 0..<4)
    func truncated(index: Int) {
        let (kind, fields) = Self.answers[index]
        for length in 0..<fields.count {
            let reply = try? SFTPReply(kind: kind, Array(fields[..<length]))
            // Old servers leave out the texts of a status.
            let isWhole = kind == SFTPKind.status && (length == 4 || length >= 15)
            #expect((reply != nil) == isWhole, "\(length) of \(fields.count) bytes")
        }
    }

    @Test("Altered answers never lead outside their packet", arguments: 0..<40)
    func mutated(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<2_000 {
            var (kind, fields) = Self.answers.randomElement(using: &generator)!
            for _ in 0..<Int.random(in: 1...4, using: &generator) where !fields.isEmpty {
                let at = Int.random(in: 0..<fields.count, using: &generator)
                switch Int.random(in: 0..<4, using: &generator) {
                case 0: fields[at] = UInt8.random(in: 0...255, using: &generator)
                case 1: fields.removeSubrange(at...)
                case 2: fields[at] = 0xFF
                default: fields.insert(UInt8.random(in: 0...255, using: &generator), at: at)
                }
            }
            if Bool.random(using: &generator) {
                kind = UInt8.random(in: 99...202, using: &generator)
            }
            // A read outside traps; what is understood is no larger than what was sent.
            guard let reply = try? SFTPReply(kind: kind, fields) else { continue }
            switch reply {
            case .names(let names):
                #expect(names.reduce(0) { $0 + $1.name.count } <= fields.count)
            case .handle(let handle): #expect(handle.count <= min(256, fields.count))
            default: break
            }
        }
    }

    @Test("Random bytes are no limits and no file system")
    func random() {
        var generator = SeededGenerator(seed: 1)
        for length in 0..<200 {
            let bytes = generator.bytes(length)
            if let limits = try? SFTPLimits(bytes) {
                #expect(length >= 24)
                #expect((1_024...SFTPLimits.greatestDataBytes).contains(limits.readBytes))
                #expect((1_024...SFTPLimits.greatestDataBytes).contains(limits.writeBytes))
            }
            #expect((try? SFTPFileSystem(bytes)) == nil || length >= 88)
        }
    }

    @Test("A handle longer than the protocol allows is refused")
    func longHandle() {
        for (length, isLegal) in [(0, true), (256, true), (257, false)] {
            let fields =
                withUnsafeBytes(of: UInt32(length).bigEndian) { [UInt8]($0) }
                + [UInt8](repeating: 1, count: length)
            #expect(((try? SFTPReply(kind: SFTPKind.handle, fields)) != nil) == isLegal)
        }
    }

    @Test("A request carries its length, its number and its fields")
    func request() {
        let packet = SFTPRequest.write([1, 2], offset: 0x1_0000_0002, count: 3)
            .sealed(id: 0x0102_0304, bodyBytes: 3)
        #expect(
            packet == [0, 0, 0, 26, 6, 1, 2, 3, 4, 0, 0, 0, 2, 1, 2]
                + [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3])
    }

    @Test("What servers say is shown without control characters")
    func printableTexts() {
        #expect(printable(Array("a\u{1B}[2Jb\nc".utf8)) == "a [2Jb c")
        #expect(printable([UInt8](repeating: 65, count: 1_000)).utf8.count == 500)
    }
}
