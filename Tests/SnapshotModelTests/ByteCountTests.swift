import SnapshotModel
import Testing

@Suite("Byte counts")
struct ByteCountTests {
    @Test(
        "A letter alone or with iB counts in powers of 1024, with B in powers of 1000",
        arguments: [
            ("0", 0), ("1", 1), ("123B", 123), ("7b", 7), ("1k", 1024), ("1K", 1024),
            ("1kB", 1000), ("1KiB", 1024), ("100M", 104_857_600), ("100MB", 100_000_000),
            ("100MiB", 104_857_600), ("100mib", 104_857_600), ("2GiB", 2_147_483_648),
            ("1.5G", 1_610_612_736), ("1.5 GB", 1_500_000_000), ("0.5B", 0), ("0.1k", 102),
            ("1T", 1_099_511_627_776), ("3PB", 3_000_000_000_000_000), ("15E", 15 << 60),
            ("18446744073709551615", .max), ("007", 7), ("18446744073709551615B", .max),
        ] as [(String, UInt64)])
    func parsing(_ text: String, _ bytes: UInt64) {
        #expect(ByteCount(parsing: text)?.bytes == bytes)
    }

    @Test(
        "What is no size, or too large a one, is refused",
        arguments: [
            "", " ", "k", "-1", "+1", "1.", ".5", "1..5", "1.2.3", "1x", "1kk", "1kib2", "1 k b",
            " 1", "1k ", "1i", "1iB", "1Bk", "0x10", "1,5k", "18446744073709551616", "16E",
            "20EB", "99999999999999999999k", "1.00000000000000000000k", "١", "1µ", "inf",
        ])
    func refusing(_ text: String) {
        #expect(ByteCount(parsing: text) == nil)
    }

    @Test(
        "Bytes are written in the powers of 1000, rounded to the nearest",
        arguments: [
            (0, "0 B"), (1, "1 B"), (999, "999 B"), (1000, "1.0 kB"), (1049, "1.0 kB"),
            (1050, "1.1 kB"), (1_439_221_002, "1.4 GB"), (14_240_000_000, "14.2 GB"),
            (99_949, "99.9 kB"), (99_950, "100 kB"), (142_400_000, "142 MB"), (999_499, "999 kB"),
            (999_500, "1.0 MB"), (1_000_000, "1.0 MB"), (.max, "18.4 EB"),
        ] as [(UInt64, String)])
    func formatting(_ bytes: UInt64, _ text: String) {
        #expect(ByteCount(bytes).description == text)
    }

    @Test("What was written can be read, and is off by the rounding at most", arguments: 0..<60)
    func roundTrip(_ power: Int) throws {
        let bytes = (UInt64(1) << power) + UInt64(power)
        let read = try #require(ByteCount(parsing: ByteCount(bytes).description)).bytes
        let difference = read > bytes ? read - bytes : bytes - read
        #expect(difference <= bytes / 20)
    }

    @Test("Counts compare as their numbers")
    func order() {
        #expect(ByteCount(999) < ByteCount(1000))
        #expect(!(ByteCount(1000) < ByteCount(1000)))
    }
}
