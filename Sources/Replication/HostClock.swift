import CSystem
import Glibc

/// What a run asks this host about itself.
package enum HostClock {
    /// Nanoseconds since 1970.
    package static var now: Int64 { csys_realtime_ns() }
    /// Nanoseconds on a clock that nobody sets and that runs through suspend.
    package static var monotonic: Int64 { csys_boottime_ns() }
    static var userID: UInt32 { getuid() }
    static var groupID: UInt32 { getgid() }
}

/// Random names of runs.
enum RunIdentity {
    static func make() -> String {
        var generator = SystemRandomNumberGenerator()
        let words = (generator.next() as UInt64, generator.next() as UInt64)
        func hex(_ word: UInt64) -> String {
            let digits = String(word, radix: 16)
            return String(repeating: "0", count: 16 - digits.count) + digits
        }
        return hex(words.0) + hex(words.1)
    }
}
