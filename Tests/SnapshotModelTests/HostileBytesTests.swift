import SnapshotModel
import Testing

@Suite("Hostile bytes in manifests")
struct HostileBytesTests {
    private typealias Generator = PythonAgreementTests.Generator

    private static func mutated(_ bytes: [UInt8], _ generator: inout Generator) -> [UInt8] {
        var bytes = bytes
        for _ in 0...Int.random(in: 0...3, using: &generator) where !bytes.isEmpty {
            let at = Int.random(in: 0..<bytes.count, using: &generator)
            switch Int.random(in: 0..<5, using: &generator) {
            case 0: bytes[at] = UInt8.random(in: 0...255, using: &generator)
            case 1:
                bytes[at] = Array("0123456789\"\\[]{}:,-.eEn \n".utf8).randomElement(
                    using: &generator)!
            case 2: bytes.insert(UInt8.random(in: 0...255, using: &generator), at: at)
            case 3: bytes.insert(contentsOf: bytes[at..<min(bytes.count, at + 30)], at: at)
            default: bytes.removeLast(bytes.count - at)
            }
        }
        return bytes
    }

    @Test(
        "Nodes of both kinds are read as written, and mutated ones are refused or keep their bounds",
        arguments: 0..<10)
    func nodes(seed: Int) {
        var generator = Generator(state: UInt64(seed))
        let children = (0..<20).map { _ in
            ManifestChild(
                id: ChunkID(generator.next(), generator.next(), generator.next(), generator.next()),
                first: [0x2F] + generator.bytes(Int.random(in: 0...40, using: &generator)))
        }
        let manifest = PythonAgreementTests.bytes { ManifestChild.write(children, to: $0) }
        #expect(manifest.withUnsafeBytes { ManifestChild.read($0) } == children)
        let ids = children.map(\.id)
        let list = PythonAgreementTests.bytes { ListNode.write(ids, to: $0) }
        #expect(list.withUnsafeBytes { ListNode.read($0) } == ids)
        for _ in 0..<400 {
            let node = Self.mutated(manifest, &generator)
            if let read = node.withUnsafeBytes({ ManifestChild.read($0) }) {
                #expect(read.count * 70 <= node.count)
            }
            let lines = Self.mutated(list, &generator)
            if let read = lines.withUnsafeBytes({ ListNode.read($0) }) {
                #expect(read.count * 67 <= lines.count)
            }
        }
        // A line without its end is no line.
        #expect(manifest.dropLast().withUnsafeBytes { ManifestChild.read($0) } == nil)
        #expect(list.dropLast().withUnsafeBytes { ListNode.read($0) } == nil)
    }

    @Test(
        "A mutated document is no document, or one that is written and read again alike",
        arguments: 0..<10)
    func documents(seed: Int) {
        var generator = Generator(state: UInt64(seed) &+ 50)
        let document = JSONValue.object([
            ("a", .integer(-5)),
            (
                "b \"\u{e9}\u{1F600}\n",
                .array([.null, .bool(true), .decimal("1.5e3"), .string("\u{0}\\")])
            ),
            ("c", .object([("critical", .array([.string("x")])), ("d", .object([]))])),
        ]).bytes
        for _ in 0..<1500 {
            let bytes = Self.mutated(document, &generator)
            if let value = JSONValue(parsing: bytes) {
                #expect(JSONValue(parsing: value.bytes) == value)
            }
        }
        for length in 0..<document.count {
            #expect(JSONValue(parsing: Array(document[..<length])) == nil)
        }
    }

    @Test("Nesting is bounded, whatever its length, and so is what is built of it")
    func nesting() {
        func nested(_ depth: Int) -> [UInt8] {
            Array(repeating: 0x5B, count: depth) + Array(repeating: 0x5D, count: depth)
        }
        #expect(JSONValue(parsing: nested(60)) != nil)
        #expect(JSONValue(parsing: nested(65)) == nil)
        #expect(JSONValue(parsing: nested(1_000_000)) == nil)
        #expect(JSONValue(parsing: Array(repeating: 0x5B, count: 1_000_000)) == nil)
        #expect(JSONValue(parsing: Array(String(repeating: "{\"a\":", count: 200_000).utf8)) == nil)
    }

    @Test(
        "A critical field of format 1 is no reason to refuse a line; an unknown one is, and so is nonsense"
    )
    func critical() {
        let line =
            "{\"path\":\"/a\",\"type\":\"dir\",\"mode\":\"755\",\"uid\":0,\"gid\":0,\"mtime\":\"0.000000000\",\"ctime\":\"0.000000000\",\"fs\":0,\"ino\":1"
        func isRead(_ rest: String) -> Bool {
            Array((line + rest + "}").utf8).withUnsafeBytes { EntryCodec.read($0) } != nil
        }
        #expect(isRead(""))
        #expect(isRead(",\"critical\":[\"path\",\"ino\"]"))
        #expect(isRead(",\"critical\":[]"))
        #expect(!isRead(",\"new\":1,\"critical\":[\"new\"]"))
        #expect(!isRead(",\"critical\":[\"path\",\"new\"]"))
        #expect(!isRead(",\"critical\":\"path\""))
        #expect(!isRead(",\"critical\":[1]"))
    }

    @Test("Lists of holes are read as written, and only ascending ones within the file")
    func holes() {
        func read(_ text: String, size: UInt64) -> [Hole]? {
            Array(text.utf8).withUnsafeBytes { EntryCodec.readHoleLines($0, size: size) }
        }
        #expect(
            read("[0,10]\n[20,5]\n", size: 25) == [
                Hole(offset: 0, length: 10), Hole(offset: 20, length: 5),
            ])
        for text in [
            "[0,10]\n[10,5]\n", "[0,10]\n[5,15]\n", "[0,0]\n", "[0,26]\n",
            "[9223372036854775807,9223372036854775807]\n", "[1]\n", "[1,2,3]\n",
            "x\n", "\n", "[-1,2]\n",
        ] {
            #expect(read(text, size: 25) == nil, "\(text)")
        }
        var generator = Generator(state: 9)
        let sound = Array("[0,10]\n[20,5]\n[100,1000]\n".utf8)
        for _ in 0..<3000 {
            let bytes = Self.mutated(sound, &generator)
            if let holes = bytes.withUnsafeBytes({ EntryCodec.readHoleLines($0, size: 1 << 20) }) {
                #expect(EntryCodec.areOrdered(holes, size: 1 << 20))
            }
        }
    }

    @Test(
        "Long lists are cut into nodes that give the list back, level by level",
        arguments: [0, 1, 1000, 1001, 5000, 200_000])
    func longLists(count: Int) {
        var generator = Generator(state: UInt64(count))
        let ids = (0..<count).map { _ in
            ChunkID(generator.next(), generator.next(), generator.next(), generator.next())
        }
        var nodes: [ChunkID: (children: [ChunkID], level: Int)] = [:]
        let (top, depth) = ListNode.build(ids) { bytes, children, level in
            #expect(ListNode.read(bytes) == children)
            #expect(children.count <= ManifestLimits.nodeMaximumChildren)
            let id = ChunkID(generator.next(), 0, 0, generator.next())
            nodes[id] = (children, level)
            return id
        }
        #expect(top.count <= Entry.inlineListLimit)
        #expect((depth == 0) == (count <= Entry.inlineListLimit))
        var level = top
        for below in stride(from: depth, to: 0, by: -1) {
            level = level.flatMap { id -> [ChunkID] in
                #expect(nodes[id]?.level == below)
                return nodes[id]?.children ?? []
            }
        }
        #expect(level == ids)
    }
}
