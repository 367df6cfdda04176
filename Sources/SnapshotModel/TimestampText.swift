extension Timestamp {
    /// RFC 3339 in UTC with nanoseconds: `2026-03-31T20:00:05.123456789Z`.
    package var rfc3339: String {
        let at = civil
        func two(_ value: Int) -> String { Self.padded(value, 2) }
        return
            "\(Self.padded(at.year, 4))-\(two(at.month))-\(two(at.day))T\(two(at.hour)):\(two(at.minute))"
            + ":\(two(at.second)).\(Self.padded(Int(nanoseconds), 9))Z"
    }

    /// Reads what `rfc3339` writes; nil for anything else.
    package init?(rfc3339 text: some StringProtocol) {
        let bytes = Array(text.utf8)
        let pattern = Array("0000-00-00T00:00:00.000000000Z".utf8)
        guard bytes.count == pattern.count else { return nil }
        for (byte, expected) in zip(bytes, pattern) {
            let isGood = expected == 0x30 ? (0x30...0x39).contains(byte) : byte == expected
            guard isGood else { return nil }
        }
        func number(_ range: Range<Int>) -> Int {
            bytes[range].reduce(0) { $0 * 10 + Int($1 - 0x30) }
        }
        let whole = Timestamp(
            year: number(0..<4), month: number(5..<7), day: number(8..<10), hour: number(11..<13),
            minute: number(14..<16), second: number(17..<19))
        self.init(seconds: whole.seconds, nanoseconds: UInt32(number(20..<29)))
        // What the calendar does not have would have counted on.
        guard rfc3339.utf8.elementsEqual(bytes) else { return nil }
    }
}
