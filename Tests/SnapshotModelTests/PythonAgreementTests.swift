import Glibc
import SnapshotModel
import Testing

/// What Python and date(1) say of the same bytes: two witnesses that share no code with this room.
@Suite("Agreement with Python and date")
struct PythonAgreementTests {
    /// SplitMix64.
    struct Generator: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state &+= 0x9e37_79b9_7f4a_7c15
            var mixed = state
            mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
            return mixed ^ (mixed >> 31)
        }
        mutating func bytes(_ count: Int, below: UInt8 = .max) -> [UInt8] {
            (0..<count).map { _ in UInt8.random(in: 0...below, using: &self) }
        }
    }

    /// Runs a command of the shell with `input` as its standard input, and gives its standard
    /// output.
    static func output(of command: String, input: String) throws -> String {
        var template = Array("/tmp/batchsync-python-XXXXXX".utf8CString)
        let file = mkstemp(&template)
        try #require(file >= 0)
        let path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        defer { unlink(path) }
        let stream = try #require(fdopen(file, "w"))
        fputs(input, stream)
        fclose(stream)
        let pipe = try #require(popen("\(command) < \(path)", "r"))
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = fread(&buffer, 1, buffer.count, pipe)
            if count == 0 { break }
            bytes += buffer[..<count]
        }
        try #require(pclose(pipe) == 0, "\(command) has failed")
        return String(decoding: bytes, as: UTF8.self)
    }

    /// One line of hex for each input, given to a Python expression over `b`; one line back for
    /// each.
    static func python(_ expression: String, _ inputs: [[UInt8]]) throws -> [String] {
        let script = """
            import sys, json, base64, binascii
            def f(b):
                try:
                    return \(expression)
                except (ValueError, RecursionError, binascii.Error):
                    return "error"
            for line in sys.stdin:
                print(f(bytes.fromhex(line)))
            """
        let quoted = script.replacing("'", with: "'\\''")
        let text = try output(
            of: "python3 -c '\(quoted)'", input: inputs.map { Hex.text($0) + "\n" }.joined())
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        lines.removeLast()
        try #require(lines.count == inputs.count)
        return lines
    }

    static func bytes(_ body: (ByteBuffer) -> Void) -> [UInt8] {
        let buffer = ByteBuffer()
        body(buffer)
        return buffer.array
    }

    /// Bytes that are often nearly UTF-8.
    static func nearlyText(_ generator: inout Generator) -> [UInt8] {
        var bytes: [UInt8] = []
        for _ in 0..<Int.random(in: 0...12, using: &generator) {
            switch Int.random(in: 0..<8, using: &generator) {
            case 0: bytes += generator.bytes(1)
            case 1: bytes += generator.bytes(9, below: 0x7F)
            case 2: bytes += [0xED, UInt8.random(in: 0x80...0xBF, using: &generator), 0x80]
            case 3: bytes += [0xF4, UInt8.random(in: 0x80...0xBF, using: &generator), 0x80, 0xBF]
            case 4: bytes += [0xE0, UInt8.random(in: 0x80...0xBF, using: &generator), 0x80]
            case 5: bytes += [UInt8.random(in: 0xC0...0xC4, using: &generator), 0x80]
            default:
                let value = UInt32.random(in: 0...0x10FFFF, using: &generator)
                if let scalar = Unicode.Scalar(value) {
                    bytes += Array(String(Character(scalar)).utf8)
                }
            }
        }
        if Int.random(in: 0..<6, using: &generator) == 0, !bytes.isEmpty { bytes.removeLast() }
        return bytes
    }

    @Test("Bytes are UTF-8 where Python decodes them")
    func utf8() throws {
        var generator = Generator(state: 1)
        let inputs =
            (0..<4000).map { _ in Self.nearlyText(&generator) }
            + (0...0xFFFF).map { [UInt8($0 >> 8), UInt8($0 & 0xFF)] }
        let expected = try Self.python("str(len(b.decode('utf-8')) >= 0)", inputs)
        for (input, text) in zip(inputs, expected) {
            #expect(UTF8Text.isValid(input) == (text == "True"), "\(Hex.text(input))")
        }
        #expect(expected.contains("error") && expected.contains("True"))
    }

    @Test("Base64 is what Python writes, and read only where it is exactly that")
    func base64() throws {
        var generator = Generator(state: 2)
        let inputs = (0..<300).map { generator.bytes($0 % 100) }
        for (input, text) in zip(inputs, try Self.python("base64.b64encode(b).decode()", inputs)) {
            #expect(Base64.encode(input) == text)
            #expect(Array(text.utf8).withUnsafeBytes { Base64.decode($0) } == input)
        }
        // Texts that may be wrong: what is read back must be written the same way, and Python must
        // agree that it is right.
        let alphabet = Array("ABab01+/==== -_\n".utf8)
        let texts = (0..<4000).map { _ in
            (0..<Int.random(in: 0...12, using: &generator)).map { _ in
                alphabet.randomElement(using: &generator)!
            }
        }
        let judged = try Self.python(
            "'right' if base64.b64encode(base64.b64decode(b, validate=True)) == b else 'other'",
            texts)
        for (text, verdict) in zip(texts, judged) {
            let decoded = text.withUnsafeBytes { Base64.decode($0) }
            #expect(
                (decoded != nil) == (verdict == "right"), "\(String(decoding: text, as: UTF8.self))"
            )
        }
    }

    @Test("Hex is what Python writes, in lower case only")
    func hex() throws {
        var generator = Generator(state: 3)
        let inputs = (0..<200).map { generator.bytes($0 % 70) } + [generator.bytes(32)]
        for (input, text) in zip(inputs, try Self.python("b.hex()", inputs)) {
            #expect(Hex.text(input) == text)
            #expect(Hex.bytes(text) == input)
            if input.count == 32 {
                #expect(ChunkID(text)?.bytes == input)
                #expect(Self.bytes { $0.append(hex: ChunkID(bytes: input)!) } == Array(text.utf8))
                #expect(ChunkID(text.uppercased()) == nil || text.uppercased() == text)
            }
        }
        for text in ["0", "0g", "AB", " 0", "0x", "é0", "\u{0}\u{0}"] {
            #expect(Hex.bytes(text) == nil)
        }
        for text in [
            String(repeating: "0", count: 63), String(repeating: "0", count: 65),
            String(repeating: "g", count: 64), "",
        ] {
            #expect(ChunkID(text) == nil)
        }
    }

    @Test("Ids compare as their bytes do")
    func order() {
        var generator = Generator(state: 4)
        for _ in 0..<2000 {
            var left = generator.bytes(32)
            var right = left
            right[Int.random(in: 0..<32, using: &generator)] = UInt8.random(
                in: 0...255, using: &generator)
            if Bool.random(using: &generator) { swap(&left, &right) }
            #expect(
                (ChunkID(bytes: left)! < ChunkID(bytes: right)!)
                    == left.lexicographicallyPrecedes(right))
        }
    }

    @Test("Text written as JSON is the same text to Python")
    func jsonWriting() throws {
        var generator = Generator(state: 5)
        var inputs: [[UInt8]] = (0..<0x80).map { [UInt8($0)] }
        inputs += (0..<3000).map { _ in Self.nearlyText(&generator) }.filter {
            UTF8Text.isValid($0)
        }
        let written = inputs.map { input in
            Self.bytes { out in input.withUnsafeBytes { out.append(jsonText: $0) } }
        }
        let read = try Self.python("json.loads(b.decode('utf-8')).encode('utf-8').hex()", written)
        for (input, back) in zip(inputs, read) { #expect(Hex.text(input) == back) }
        // And nothing stands in it that would end a line.
        #expect(written.allSatisfy { !$0.contains { $0 < 0x20 } })
    }

    @Test("JSON that Python writes is read as the same text, escapes and surrogates included")
    func jsonReading() throws {
        var generator = Generator(state: 6)
        let inputs = (0..<3000).map { _ in Self.nearlyText(&generator) }.filter {
            UTF8Text.isValid($0)
        }
        for form in ["True", "False"] {
            let texts = try Self.python(
                "json.dumps(b.decode('utf-8'), ensure_ascii=\(form))", inputs)
            for (input, text) in zip(inputs, texts) {
                #expect(
                    JSONValue(parsing: Array(text.utf8))
                        == .string(String(decoding: input, as: UTF8.self)))
            }
        }
    }

    /// Small documents with mistakes in them.
    static func document(_ generator: inout Generator, depth: Int = 0) -> String {
        func pick(_ list: [String]) -> String { list.randomElement(using: &generator)! }
        switch Int.random(in: 0..<(depth > 3 ? 4 : 7), using: &generator) {
        case 0:
            return pick([
                "0", "-0", "1", "01", "1.5", "1.", ".5", "1e5", "1e", "-", "--1", "1.2.3",
                "9223372036854775807", "1E+2", "+1", "2-1", "1e5.5", "00",
            ])
        case 1: return pick(["true", "false", "null", "True", "nul", "nullx", "tru e"])
        case 2:
            return "\""
                + pick([
                    "a", "", "\\n", "\\u0041", "\\ud83d\\ude00", "\\u12", "\\x", "\t", "é", "\\\"",
                    "\\", "\\/", "\\b\\f\\r\\t", "\\u00e9",
                ]) + "\""
        case 3: return pick(["", " ", "\"", "{", "]", ",", "[]", "{}", "[,]", "{,}"])
        case 4, 5:
            let items = (0..<Int.random(in: 0...3, using: &generator)).map { _ in
                document(&generator, depth: depth + 1)
            }
            return "[" + pick(["", " "])
                + items.joined(separator: pick([",", ",", ",", " ,\r", ",,", " "]))
                + pick(["]", "]", "]", "", ",]", "}"])
        default:
            let items = (0..<Int.random(in: 0...3, using: &generator)).map { number in
                pick(["\"k\(number)\"", "\"k\(number)\"", "k", "1"])
                    + pick([":", ":", " : ", "", "::"]) + document(&generator, depth: depth + 1)
            }
            return "{" + items.joined(separator: pick([",", ",", ";"]))
                + pick(["}", "}", "}", "", "]"])
        }
    }

    @Test("What is well-formed JSON and what is not, Python says alike", arguments: 0..<4)
    func jsonGrammar(seed: Int) throws {
        var generator = Generator(state: UInt64(seed) &+ 100)
        let inputs = (0..<4000).map { _ in Array(Self.document(&generator).utf8) }
        // Python takes NaN and Infinity, which none of these contain, and lone surrogates, which
        // none of these contain.
        let verdicts = try Self.python("'right' if [json.loads(b.decode('utf-8'))] else ''", inputs)
        var right = 0
        for (input, verdict) in zip(inputs, verdicts) {
            let value = JSONValue(parsing: input)
            #expect(
                (value != nil) == (verdict == "right"), "\(String(decoding: input, as: UTF8.self))")
            guard let value else { continue }
            right += 1
            #expect(JSONValue(parsing: value.bytes) == value)
        }
        #expect(right > 400)
    }

    @Test("Dates are those of date(1), centuries back and ahead")
    func calendar() throws {
        var generator = Generator(state: 7)
        var seconds: [Int64] = [
            0, -1, 86_399, 86_400, 951_782_399, 951_782_400, 4_107_542_399, 4_107_542_400,
            -2_203_891_200, 253_402_300_799,
        ]
        seconds += (0..<1500).map { _ in
            Int64.random(in: -62_000_000_000...253_402_300_799, using: &generator)
        }
        // Around each turn of a year, leap or not.
        for year in stride(from: 1890, through: 2110, by: 1) {
            seconds.append(Timestamp(year: year, month: 3, day: 1).seconds - 1)
            seconds.append(Timestamp(year: year, month: 1, day: 1).seconds)
        }
        let text = try Self.output(
            of: "date -u -f - +%Y%m%dT%H%M%SZ", input: seconds.map { "@\($0)\n" }.joined())
        let dates = text.split(separator: "\n").map(String.init)
        try #require(dates.count == seconds.count)
        for (second, date) in zip(seconds, dates) {
            let time = Timestamp(seconds: second, nanoseconds: 999_999_999)
            #expect(
                time.compactUTC == String(repeating: "0", count: max(0, 16 - date.count)) + date)
            let at = time.civil
            #expect(
                Timestamp(
                    year: at.year, month: at.month, day: at.day, hour: at.hour, minute: at.minute,
                    second: at.second
                ).seconds
                    == second)
        }
    }

    @Test("Times are the decimal numbers that Python reads, and come back to the nanosecond")
    func times() throws {
        var generator = Generator(state: 8)
        var times = (0..<2000).map { _ in
            Timestamp(
                seconds: Int64.random(in: -999_999_999_999...999_999_999_998, using: &generator)
                    >> Int64.random(in: 0...39, using: &generator),
                nanoseconds: UInt32.random(in: 0...999_999_999, using: &generator))
        }
        times += [
            Timestamp(seconds: 0), Timestamp(seconds: -1, nanoseconds: 1),
            Timestamp(seconds: 999_999_999_999),
        ]
        let texts = times.map(\.text)
        let read = try Self.python(
            "str(int(b.decode().replace('.', '')) )", texts.map { Array($0.utf8) })
        for (time, (text, number)) in zip(times, zip(texts, read)) {
            #expect(Timestamp(text) == time)
            // Python's number is that of the digits without the point: nanoseconds since 1970.
            let whole = Int(time.seconds).multipliedReportingOverflow(by: 1_000_000_000)
            if !whole.overflow {
                let (sum, overflow) = whole.partialValue.addingReportingOverflow(
                    Int(time.nanoseconds))
                if !overflow { #expect(number == String(sum)) }
                if !overflow { #expect(time.nanosecondsSince1970 == Int64(sum)) }
            }
            #expect(
                time.nanosecondsSince1970.signum()
                    == (time < Timestamp(seconds: 0) ? -1 : time == Timestamp(seconds: 0) ? 0 : 1))
        }
    }

    @Test(
        "A time further away than twelve digits is written as the furthest they tell; longer texts are none"
    )
    func distantTimes() {
        for (seconds, text) in [
            (Int64.max, "999999999999.999999999"), (Int64.min, "-999999999999.000000000"),
            (1_000_000_000_000, "999999999999.999999999"),
        ] {
            #expect(Timestamp(seconds: seconds, nanoseconds: 5).text == text)
            #expect(Timestamp(text) != nil)
        }
        #expect(Timestamp(seconds: .max, nanoseconds: 999_999_999).nanosecondsSince1970 == .max)
        #expect(
            Timestamp(seconds: 9_223_372_036, nanoseconds: 999_999_999).nanosecondsSince1970 == .max
        )
        #expect(Timestamp(seconds: .min).nanosecondsSince1970 == .min)
        for text in [
            "1000000000000.000000000", "1", "1.", "1.5", ".000000000", "1.0000000000",
            "+1.000000000", "--1.000000000", "-.000000000",
            "1.00000000x", " 1.000000000", "1.000000000 ", "", "-",
        ] {
            #expect(Timestamp(text) == nil, "\(text)")
        }
    }
}
