import Synchronization

/// A few threads that share a list of jobs by number.
enum VerifyCrew {
    private final class Counter: Sendable {
        let next = Atomic<Int>(0)
    }

    /// Runs `body` on each of `threads` threads; each asks for the next job until there is none.
    /// Returns when all have ended.
    static func run(
        threads: Int = 2, jobs: Int, cancellation: Cancellation,
        _ body: @escaping @Sendable (() -> Int?) -> Void
    ) {
        guard jobs > 0 else { return }
        let counter = Counter()
        let crew = (0..<min(threads, jobs)).map { _ in
            WorkThread {
                body {
                    if cancellation.isCancelled { return nil }
                    let job = counter.next.wrappingAdd(1, ordering: .relaxed).oldValue
                    return job < jobs ? job : nil
                }
            }
        }
        for thread in crew { thread.join() }
    }
}

/// Bundles by number: a set of them takes a bit each.
struct VerifyBundleSet: Sendable {
    private var words: [UInt64] = []

    mutating func insert(_ number: Int) {
        while words.count <= number >> 6 { words.append(0) }
        words[number >> 6] |= 1 << UInt64(number & 63)
    }

    func contains(_ number: Int) -> Bool {
        number >> 6 < words.count && words[number >> 6] >> UInt64(number & 63) & 1 == 1
    }
}
