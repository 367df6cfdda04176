import AgeEncryption
import Testing

@Suite("Identity files")
struct AgeIdentityFileTests {
    @Test("Comments, empty lines and either line ending are passed over")
    func wellFormed() throws {
        let other = X25519Identity()
        let example = try exampleIdentity()
        let texts = [
            exampleSecret,
            exampleSecret + "\n",
            "# created: 2025-01-01\n# public key: \(exampleRecipient)\n\(exampleSecret)\n",
            "\n\n#\r\n\(exampleSecret)\r\n\r\n",
        ]
        for text in texts {
            #expect(try AgeIdentityFile.parse(Array(text.utf8)) == [example])
        }
        let both = "\(exampleSecret)\n#\n\(other.encoded())"
        #expect(try AgeIdentityFile.parse(Array(both.utf8)) == [example, other])
    }

    @Test("A bad line is named by its number and never quoted")
    func badLine() {
        let text = "# one\n\(exampleSecret)\n \(exampleSecret)\n"
        #expect { _ = try AgeIdentityFile.parse(Array(text.utf8)) } throws: { error in
            guard let error = error as? AgeError else { return false }
            return error.kind == .malformedIdentity && error.subject.contains("line 3")
                && !error.description.contains("GFPY")
        }
    }

    @Test("A file without an identity is refused", arguments: ["", "\n", "# nothing\n", "\r\n#"])
    func empty(text: String) {
        #expect { _ = try AgeIdentityFile.parse(Array(text.utf8)) } throws: { error in
            (error as? AgeError)?.kind == .malformedIdentity
        }
    }

    @Test("Bytes that are not text are refused")
    func binary() {
        #expect { _ = try AgeIdentityFile.parse([0xff, 0xfe, 0x00, 0x0a]) } throws: { error in
            (error as? AgeError)?.kind == .malformedIdentity
        }
    }

    @Test("A post-quantum identity is said to be unsupported")
    func unsupported() {
        let text = exampleSecret + "\nAGE-SECRET-KEY-PQ-1ABC\n"
        #expect { _ = try AgeIdentityFile.parse(Array(text.utf8)) } throws: { error in
            (error as? AgeError)?.kind == .unsupported
        }
    }
}
