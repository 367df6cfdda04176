/// Bech32 as in BIP 173, without its limit on length: age writes its keys so.
enum Bech32 {
    private static let alphabet = [UInt8]("qpzry9x8gf2tvdw0s3jn54khce6mua7l".utf8)

    private static let values: [UInt8] = {
        var values = [UInt8](repeating: 0xff, count: 256)
        for (value, character) in alphabet.enumerated() {
            values[Int(character)] = UInt8(value)
        }
        return values
    }()

    enum Failure: Error {
        case character
        case mixedCase
        case separator
        case checksum
        case padding

        /// The reason as the second half of a sentence; it never repeats the text itself.
        var cause: String {
            switch self {
            case .character: "it contains a character that does not belong there"
            case .mixedCase: "it mixes upper and lower case"
            case .separator: "it is too short, or its separator 1 is missing"
            case .checksum: "its checksum does not match: a character is wrong, missing or added"
            case .padding: "its last character carries bits that belong to no byte"
            }
        }
    }

    /// The lower-case text for `bytes`; `prefix` is in lower case.
    static func encode(prefix: String, _ bytes: [UInt8]) -> String {
        var groups: [UInt8] = []
        var bits: UInt32 = 0
        var count = 0
        for byte in bytes {
            bits = (bits << 8) | UInt32(byte)
            count += 8
            while count >= 5 {
                count -= 5
                groups.append(UInt8((bits >> UInt32(count)) & 31))
            }
        }
        if count > 0 {
            groups.append(UInt8((bits << UInt32(5 - count)) & 31))
        }
        let sum = polymod(expanded(Array(prefix.utf8)) + groups + [0, 0, 0, 0, 0, 0]) ^ 1
        for shift in stride(from: UInt32(25), through: 0, by: -5) {
            groups.append(UInt8((sum >> shift) & 31))
        }
        let characters = groups.map { alphabet[Int($0)] }
        return prefix + "1" + String(decoding: characters, as: UTF8.self)
    }

    /// The prefix as it is written, in its own case, and the bytes.
    static func decode(_ text: String) throws(Failure) -> (prefix: String, bytes: [UInt8]) {
        let characters = Array(text.utf8)
        guard characters.allSatisfy({ (33...126).contains($0) }) else { throw .character }
        let lower = characters.map { (65...90).contains($0) ? $0 + 32 : $0 }
        if lower != characters, characters.contains(where: { (97...122).contains($0) }) {
            throw .mixedCase
        }
        guard let separator = lower.lastIndex(of: UInt8(ascii: "1")), separator >= 1,
            lower.count - separator - 1 >= 6
        else { throw .separator }
        var groups: [UInt8] = []
        for character in lower[(separator + 1)...] {
            let value = values[Int(character)]
            guard value < 32 else { throw .character }
            groups.append(value)
        }
        guard polymod(expanded(Array(lower[..<separator])) + groups) == 1 else { throw .checksum }
        var bytes: [UInt8] = []
        var bits: UInt32 = 0
        var count = 0
        for group in groups.dropLast(6) {
            bits = (bits << 5) | UInt32(group)
            count += 5
            if count >= 8 {
                count -= 8
                bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(count)))
            }
        }
        guard count < 5, bits & ((1 << UInt32(count)) - 1) == 0 else { throw .padding }
        return (String(decoding: characters[..<separator], as: UTF8.self), bytes)
    }

    private static func expanded(_ prefix: [UInt8]) -> [UInt8] {
        prefix.map { $0 >> 5 } + [0] + prefix.map { $0 & 31 }
    }

    private static func polymod(_ values: [UInt8]) -> UInt32 {
        let generators: [UInt32] = [
            0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3,
        ]
        var sum: UInt32 = 1
        for value in values {
            let top = sum >> 25
            sum = ((sum & 0x1ff_ffff) << 5) ^ UInt32(value)
            for (bit, generator) in generators.enumerated() where (top >> UInt32(bit)) & 1 == 1 {
                sum ^= generator
            }
        }
        return sum
    }
}
