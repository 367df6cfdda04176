import AgeEncryption
import Testing

@Suite("ASCII armor")
struct AgeArmorTests {
    static let begin = "-----BEGIN AGE ENCRYPTED FILE-----"
    static let end = "-----END AGE ENCRYPTED FILE-----"

    @Test("What is armored comes back, at every length around a line")
    func roundTrip() throws {
        var generator = SeededGenerator(seed: 1)
        for count in 0...200 {
            let bytes = generator.bytes(count)
            let text = AgeArmor.encode(bytes)
            #expect(try AgeArmor.decode(text) == bytes)
            let lines = String(decoding: text, as: UTF8.self).split(separator: "\n")
            #expect(lines.first.map(String.init) == Self.begin)
            #expect(lines.last.map(String.init) == Self.end)
            #expect(lines.dropFirst().dropLast().allSatisfy { $0.count <= 64 })
        }
    }

    @Test("White space around the armor, CRLF, and a missing last line end are let pass")
    func tolerated() throws {
        let texts = [
            " \t\r\n\n\(Self.begin)\nAAAA\n\(Self.end)\n \r\n\t",
            "\(Self.begin)\r\nAAAA\r\n\(Self.end)\r\n",
            "\(Self.begin)\nAAAA\n\(Self.end)",
        ]
        for text in texts {
            #expect(try AgeArmor.decode(Array(text.utf8)) == [0, 0, 0])
        }
    }

    @Test(
        "Every other deviation is refused",
        arguments: [
            "", "\n", begin, "\(begin)\n", "\(begin)\nAAAA\n", "\(begin)\nAAAA", "AAAA\n\(end)\n",
            "x\(begin)\nAAAA\n\(end)\n", "\(begin)\nAAAA\n\(end)\nx", "\(begin) \nAAAA\n\(end)\n",
            "\(begin)\nAAAA\n\(end)x", "\(begin)\nAAAA\n\(end) \nAAAA",
            "\(begin)\n\nAAAA\n\(end)\n",
            "\(begin)\nAAAA\n\n\(end)\n", "\(begin)\n AAAA\n\(end)\n", "\(begin)\nAAAA \n\(end)\n",
            "\(begin)\nAAA\n\(end)\n", "\(begin)\nAAB=\n\(end)\n", "\(begin)\nAB==\n\(end)\n",
            "\(begin)\nA===\n\(end)\n", "\(begin)\n====\n\(end)\n", "\(begin)\nAA=A\n\(end)\n",
            "\(begin)\nAA==\nAAAA\n\(end)\n", "\(begin)\nAAAA\nAAAA\n\(end)\n",
            "\(begin)\nAA-_\n\(end)\n", "\(begin)\nHead: er\n\nAAAA\n\(end)\n",
            "\(begin)\n" + String(repeating: "A", count: 68) + "\n\(end)\n",
            "\(begin.lowercased())\nAAAA\n\(end.lowercased())\n",
            "-----BEGIN AGE FILE-----\nAAAA\n-----END AGE FILE-----\n",
            "\(begin)\nAAAA\n-----END AGE-----\n", "\(begin)\rAAAA\r\(end)\r",
            "\(begin)\nAAAA\r\r\n\(end)\n", "\(begin)\nAAAA\n=abcd\n\(end)\n",
        ])
    func refused(text: String) {
        #expect { _ = try AgeArmor.decode(Array(text.utf8)) } throws: { error in
            (error as? AgeError)?.kind == .armor
        }
    }

    @Test("An armored file is told apart from a damaged one")
    func armoredWhereBinaryIsExpected() {
        let armored = AgeArmor.encode([UInt8](repeating: 7, count: 300))
        #expect { _ = try openAll(armored, []) } throws: { error in
            guard let error = error as? AgeError else { return false }
            return error.kind == .malformedHeader && error.cause.contains("armored")
        }
    }
}
