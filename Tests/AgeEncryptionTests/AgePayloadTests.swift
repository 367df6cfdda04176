import AgeEncryption
import Testing

@Suite("Payloads")
struct AgePayloadTests {
    static let chunk = PayloadCipher.chunkBytes
    static let sizes = [
        0, 1, 15, 16, 17, 65_519, 65_520, 65_535, 65_536, 65_537, 65_552, 131_071, 131_072, 131_073,
        196_608, 200_000,
    ]

    let identity: AgeIdentity
    let recipient: AgeRecipient

    init() throws {
        let example = try exampleIdentity()
        identity = .x25519(example)
        recipient = .x25519(example.recipient)
    }

    private func plaintext(_ count: Int) -> [UInt8] {
        var generator = SeededGenerator(seed: UInt64(count))
        return generator.bytes(count)
    }

    /// A file around the given chunks, of which only `last` is marked as the last one.
    private func file(_ chunks: [[UInt8]], last: Int?) throws -> [UInt8] {
        let stanza = try HandWrittenFile.x25519(to: exampleIdentity().recipient)
        var file = HandWrittenFile(stanza.arguments, stanza.body)
        file.plaintext = []
        return try file.bytes().dropLast(16) + file.payload(chunks, last: last)
    }

    private func refuses(
        _ object: [UInt8], _ name: String, kind: AgeError.Kind = .payload, released: [UInt8]? = nil
    ) {
        #expect("\(name)") { _ = try openAll(object, [identity]) } throws: { error in
            (error as? AgeError)?.kind == kind
        }
        let streamed = openStream(object, [identity], piece: 50_000)
        #expect(streamed.failure?.kind == kind, "\(name)")
        if let released {
            #expect(streamed.released == released, "\(name)")
        }
    }

    @Test("What is sealed opens at every size around a chunk's end", arguments: sizes)
    func roundTrip(size: Int) throws {
        let plain = plaintext(size)
        let sealed = try AgeEncryptor.seal(plain, to: [recipient])
        #expect(try openAll(sealed, [identity]) == plain)
        let headerBytes = try openHeader(sealed, [identity]).headerBytes
        #expect(
            AgePayload.sealedLength(plaintextLength: size, headerBytes: headerBytes)
                == sealed.count)
        #expect(
            try AgePayload.plaintextLength(sealedLength: sealed.count, headerBytes: headerBytes)
                == size)
        let chunks = max(1, (size + Self.chunk - 1) / Self.chunk)
        #expect(sealed.count == headerBytes + size + 16 * chunks)
    }

    @Test("The sizes of the pieces make no difference", arguments: sizes)
    func pieces(size: Int) throws {
        let plain = plaintext(size)
        let pieces = [
            [65_536], [1, 65_535], [65_537, 3], [131_072, 1], [70_000, 60_000], [997],
        ]
        for pieces in pieces {
            let sealed = try sealStream(plain, to: [recipient], pieces: pieces)
            #expect(try openAll(sealed, [identity]) == plain)
            for piece in [997, 65_536, 65_552, 65_553, 1 << 20] {
                let opened = openStream(sealed, [identity], piece: piece)
                #expect(opened.failure == nil)
                #expect(opened.released == plain)
            }
        }
    }

    @Test("A file may be handed over byte by byte, and without calling start")
    func singleBytes() throws {
        let plain = plaintext(300)
        let sealed = try sealStream(plain, to: [recipient], pieces: [1])
        let opened = openStream(sealed, [identity], piece: 1)
        #expect(opened.failure == nil)
        #expect(opened.released == plain)

        var output: [UInt8] = []
        let encryptor = try AgeEncryptor(recipients: [recipient])
        try encryptor.finish { output.append(contentsOf: $0) }
        #expect(try openAll(output, [identity]).isEmpty)
    }

    @Test(
        "Random ranges equal slices, and need no more than the chunks that they touch",
        arguments: sizes)
    func ranges(size: Int) throws {
        let plain = plaintext(size)
        let sealed = try AgeEncryptor.seal(plain, to: [recipient])
        let payload = try openHeader(
            Array(sealed.prefix(AgePayload.maximumHeaderBytes)), [identity])
        var generator = SeededGenerator(seed: 7 &+ UInt64(size))
        var ranges = [0..<size, 0..<0, size..<size, 0..<min(1, size), max(0, size - 1)..<size]
        for edge in stride(from: 0, through: size, by: Self.chunk) {
            ranges.append(max(0, edge - 1)..<min(edge + 1, size))
            ranges.append(edge..<min(edge + Self.chunk, size))
        }
        for _ in 0..<30 {
            let (one, two) = (
                Int.random(in: 0...size, using: &generator),
                Int.random(in: 0...size, using: &generator)
            )
            ranges.append(min(one, two)..<max(one, two))
        }
        for range in ranges {
            #expect(try openRange(range, of: sealed, payload) == Array(plain[range]))
            let fetched = try AgePayload.sealedRange(
                for: range, sealedLength: sealed.count, headerBytes: payload.headerBytes)
            if range.isEmpty {
                #expect(fetched.count == (size == 0 ? 16 : 0))
                continue
            }
            #expect(
                fetched.lowerBound
                    == payload.headerBytes + range.lowerBound / Self.chunk * 65_552)
            #expect(
                fetched.upperBound
                    == min(
                        payload.headerBytes + ((range.upperBound - 1) / Self.chunk + 1) * 65_552,
                        sealed.count))
        }
    }

    @Test("Damage outside of a range does not touch it, damage inside is refused")
    func damagedRanges() throws {
        let plain = plaintext(3 * Self.chunk)
        var sealed = try AgeEncryptor.seal(plain, to: [recipient])
        let payload = try openHeader(sealed, [identity])
        sealed[payload.headerBytes + 65_552 + 100] ^= 1
        #expect(try openRange(0..<Self.chunk, of: sealed, payload) == Array(plain[..<Self.chunk]))
        let third = 2 * Self.chunk..<3 * Self.chunk
        #expect(try openRange(third, of: sealed, payload) == Array(plain[third]))
        for range in [
            Self.chunk..<Self.chunk + 1, Self.chunk - 1..<Self.chunk + 1, 0..<plain.count,
        ] {
            #expect { _ = try openRange(range, of: sealed, payload) } throws: { error in
                guard let error = error as? AgeError else { return false }
                return error.kind == .payload && error.subject.contains("chunk 1")
            }
        }
    }

    @Test("Ranges and buffers that do not fit are refused")
    func misfits() throws {
        let sealed = try AgeEncryptor.seal(plaintext(100), to: [recipient])
        let payload = try openHeader(sealed, [identity])
        for range in [0..<101, 100..<101, -1..<5, 200..<300, 0..<Int.max, Int.min..<0] {
            #expect("\(range)") {
                _ = try AgePayload.sealedRange(
                    for: range, sealedLength: sealed.count, headerBytes: payload.headerBytes)
            } throws: { error in
                (error as? AgeError)?.kind == .invalidRange
            }
        }
        for (input, output) in [(115, 100), (117, 100), (0, 100), (116, 99), (116, 101)] {
            let input = [UInt8](repeating: 0, count: input)
            var output = [UInt8](repeating: 0, count: output)
            #expect {
                try input.withUnsafeBytes { input in
                    try output.withUnsafeMutableBytes { output in
                        try payload.open(
                            input, plain: 0..<100, sealedLength: sealed.count, into: output)
                    }
                }
            } throws: { error in
                (error as? AgeError)?.kind == .invalidRange
            }
        }
    }

    @Test("Lengths that no payload has are refused, whatever they are")
    func impossibleLengths() {
        for length in [0, 99, 100, 115, 100 + 65_552 + 1, 100 + 65_552 + 15, 100 + 65_552 + 16] {
            #expect("\(length)") {
                _ = try AgePayload.plaintextLength(sealedLength: length, headerBytes: 100)
            } throws: { error in
                (error as? AgeError)?.kind == .payload
            }
        }
        for length in [116, 100 + 65_552, 100 + 65_552 + 17, Int.max - 65_552, Int.max] {
            #expect(throws: Never.self, "\(length)") {
                _ = try? AgePayload.sealedRange(
                    for: 0..<1, sealedLength: length, headerBytes: 100)
                let plain = try? AgePayload.plaintextLength(
                    sealedLength: length, headerBytes: 100)
                if let plain, plain > 0 {
                    let fetched = try AgePayload.sealedRange(
                        for: plain - 1..<plain, sealedLength: length, headerBytes: 100)
                    #expect(fetched.upperBound == length)
                }
            }
        }
    }

    @Test("A small file cut at every byte is refused")
    func truncations() throws {
        let sealed = try AgeEncryptor.seal(plaintext(40), to: [recipient])
        let headerBytes = try openHeader(sealed, [identity]).headerBytes
        for count in 0..<sealed.count {
            refuses(
                Array(sealed[..<count]), "cut at \(count)",
                kind: count < headerBytes ? .malformedHeader : .payload, released: [])
        }
    }

    @Test("A small file with one bit flipped, at every byte, is refused")
    func flippedBits() throws {
        let sealed = try AgeEncryptor.seal(plaintext(40), to: [recipient])
        for index in sealed.indices {
            var changed = sealed
            changed[index] ^= 1 << UInt8(index % 8)
            #expect(throws: AgeError.self, "byte \(index)") { try openAll(changed, [identity]) }
            let streamed = openStream(changed, [identity], piece: 64)
            #expect(streamed.failure != nil)
            #expect(streamed.released.isEmpty)
        }
    }

    @Test("A large file cut anywhere around its chunks is refused, and only true bytes come out")
    func largeTruncations() throws {
        let plain = plaintext(2 * Self.chunk + 100)
        let sealed = try AgeEncryptor.seal(plain, to: [recipient])
        let start = try openHeader(sealed, [identity]).headerBytes
        for chunk in 0...2 {
            for offset in [0, 1, 15, 16, 17, 100] where chunk < 2 || offset < 116 {
                let count = start + chunk * 65_552 + offset
                let cut = Array(sealed[..<count])
                refuses(cut, "cut at chunk \(chunk) + \(offset)")
                let released = openStream(cut, [identity], piece: 10_000).released
                #expect(released.count == chunk * Self.chunk)
                #expect(released == Array(plain.prefix(released.count)))
            }
        }
    }

    @Test("Bytes behind the last chunk are refused, however many")
    func trailing() throws {
        for size in [0, 40, Self.chunk - 1, Self.chunk, Self.chunk + 1] {
            let sealed = try AgeEncryptor.seal(plaintext(size), to: [recipient])
            for extra in [1, 15, 16, 17, 40, 70_000] {
                refuses(
                    sealed + [UInt8](repeating: 0, count: extra), "\(extra) bytes behind \(size)")
            }
            refuses(sealed + sealed, "the same file again")
        }
    }

    @Test("Chunks swapped, dropped, repeated or wrongly marked are refused")
    func chunkOrder() throws {
        let chunks = [UInt8(1), 2, 3].map { [UInt8](repeating: $0, count: Self.chunk) }
        let right = try file(chunks, last: 2)
        #expect(try openAll(right, [identity]) == chunks.flatMap { $0 })
        let start = right.count - 3 * 65_552
        let header = Array(right[..<start])
        let sealed = (0..<3).map {
            Array(right[(start + $0 * 65_552)..<(start + ($0 + 1) * 65_552)])
        }

        refuses(header + sealed[1] + sealed[0] + sealed[2], "swapped", released: [])
        refuses(header + sealed[0] + sealed[2], "the second dropped", released: chunks[0])
        refuses(header + sealed[0] + sealed[0] + sealed[2], "the first twice", released: chunks[0])
        refuses(header + sealed[1] + sealed[2], "the first dropped", released: [])
        refuses(
            header + sealed[0] + sealed[1], "the last dropped", released: chunks[0] + chunks[1])
        refuses(
            right + sealed[2], "the last twice", released: chunks[0] + chunks[1] + chunks[2])
        refuses(
            try file(chunks, last: nil), "none marked", released: chunks[0] + chunks[1] + chunks[2])
        refuses(try file(chunks, last: 1), "the second marked", released: chunks[0] + chunks[1])
        refuses(try file([[1], [2]], last: 1), "a short chunk in front", released: [])
        refuses(
            try file([chunks[0], []], last: 1), "an empty last chunk", released: chunks[0])
        refuses(try file([[]], last: nil), "one empty chunk, not marked", released: [])
        #expect(try openAll(try file([[]], last: 0), [identity]).isEmpty)
    }

    @Test("After an error a stream stays failed")
    func staysFailed() throws {
        var sealed = try AgeEncryptor.seal(plaintext(200_000), to: [recipient])
        let start = try openHeader(sealed, [identity]).headerBytes
        sealed[start] ^= 1
        var decryptor = AgeDecryptor(identities: [identity])
        var released = 0
        for _ in 0..<2 {
            #expect {
                try sealed.withUnsafeBytes { bytes in
                    try decryptor.update(bytes) { released += $0.count }
                }
            } throws: { error in
                (error as? AgeError)?.kind == .payload
            }
        }
        do throws(AgeError) {
            try decryptor.finish { released += $0.count }
            Issue.record("a failed stream finished")
        } catch {
            #expect(error.kind == .payload)
        }
        #expect(released == 0)
    }

    @Test("A payload opened under another file's header is refused")
    func transplanted() throws {
        let one = try AgeEncryptor.seal(plaintext(50), to: [recipient])
        let two = try AgeEncryptor.seal(plaintext(50), to: [recipient])
        let start = try openHeader(one, [identity]).headerBytes
        refuses(Array(one[..<start]) + Array(two[start...]), "another payload", released: [])
        refuses(
            Array(one[..<(start - 16)]) + Array(two[(start - 16)...]), "another nonce too",
            released: [])
    }
}
