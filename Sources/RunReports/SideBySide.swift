import Glibc
import Synchronization

/// Runs things that block at the same time, each on a thread of its own.
enum SideBySide {
    private final class Work: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    private final class Results<Value: Sendable>: Sendable {
        let values: Mutex<[Value?]>
        init(_ count: Int) { values = Mutex([Value?](repeating: nil, count: count)) }
    }

    /// Where the system has no thread to give, the caller's own does the work.
    ///
    /// - Returns: What each gave, in their order, once all have ended.
    static func run<Value: Sendable>(_ bodies: [@Sendable () -> Value]) -> [Value] {
        let results = Results<Value>(bodies.count)
        var threads: [pthread_t] = []
        // The last one needs no thread: the caller waits anyway.
        for (position, body) in bodies.enumerated() {
            let work = Work {
                let value = body()
                results.values.withLock { $0[position] = value }
            }
            guard position < bodies.count - 1, let thread = start(work) else {
                work.body()
                continue
            }
            threads.append(thread)
        }
        for thread in threads { pthread_join(thread, nil) }
        return results.values.withLock { $0.compactMap(\.self) }
    }

    private static func start(_ work: Work) -> pthread_t? {
        let held = Unmanaged.passRetained(work)
        var thread = pthread_t()
        let result = pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<Work>.fromOpaque(argument).takeRetainedValue().body()
                return nil
            }, held.toOpaque())
        guard result == 0 else {
            held.release()
            return nil
        }
        return thread
    }
}
