import CSystem
import Synchronization

/// The service's clock, as its answers tell it.
///
/// A header `Date` says the whole second in which the answer was made, and the answer took a while
/// to arrive: both make the service seem late. So of several answers the one that puts it furthest
/// ahead is nearest the truth.
final class S3Clock: Sendable {
    private let offset = Mutex<Int64?>(nil)
    private let hostNanoseconds: @Sendable () -> Int64

    /// A clock was set, or the host's own is wrong by the hour: then the last answer counts alone.
    private static let jumpNanoseconds: Int64 = 5_000_000_000

    /// - Parameter hostNanoseconds: A clock of this host that runs evenly, also through suspend.
    init(hostNanoseconds: @escaping @Sendable () -> Int64 = { csys_boottime_ns() }) {
        self.hostNanoseconds = hostNanoseconds
    }

    /// Takes note of an answer that has just arrived.
    func note(date: String?) {
        guard let date, let seconds = StoreTime.seconds(httpDate: date) else { return }
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        guard !overflow else { return }
        let seen = product - hostNanoseconds()
        offset.withLock { offset in
            if let known = offset, known > seen, known - seen < S3Clock.jumpNanoseconds { return }
            offset = seen
        }
    }

    /// Seconds since 1970; nil where no answer has come yet.
    var seconds: Int64? {
        guard let offset = offset.withLock({ $0 }) else { return nil }
        return (hostNanoseconds() + offset) / 1_000_000_000
    }
}
