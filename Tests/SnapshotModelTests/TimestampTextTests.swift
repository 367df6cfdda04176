import SnapshotModel
import Testing

@Suite("Moments as RFC 3339 has them")
struct TimestampTextTests {
    @Test(
        "A moment is written with nanoseconds, and read back",
        arguments: [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (1_774_994_405, 123_456_789, "2026-03-31T22:00:05.123456789Z"),
            (-1, 1, "1969-12-31T23:59:59.000000001Z"),
            (951_782_400, 0, "2000-02-29T00:00:00.000000000Z"),
        ] as [(Int64, UInt32, String)])
    func roundTrip(_ seconds: Int64, _ nanoseconds: UInt32, _ text: String) {
        let time = Timestamp(seconds: seconds, nanoseconds: nanoseconds)
        #expect(time.rfc3339 == text)
        #expect(Timestamp(rfc3339: text) == time)
    }

    @Test(
        "What is no moment of that form is refused",
        arguments: [
            "", "2026-03-31", "2026-03-31T22:00:05Z", "2026-03-31T22:00:05.123456789",
            "2026-02-30T00:00:00.000000000Z", "2026-13-01T00:00:00.000000000Z",
            "2026-03-31T24:00:00.000000000Z", "2026-03-31t22:00:05.123456789Z",
            "2026-03-31T22:00:60.000000000Z", "+026-03-31T22:00:05.123456789Z",
        ])
    func refused(_ text: String) { #expect(Timestamp(rfc3339: text) == nil) }
}
