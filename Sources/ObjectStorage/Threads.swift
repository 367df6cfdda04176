import Glibc

/// Runs `body` with 0, 1, … on as many threads of the system as asked for, and waits for all of
/// them.
package func runOnThreads(_ count: Int, _ body: @Sendable (Int) -> Void) {
    withoutActuallyEscaping(body) { body in
        var threads: [pthread_t] = []
        for index in 0..<count {
            var thread = pthread_t()
            let work = Unmanaged.passRetained(ThreadWork(index: index, body: body))
            let created = pthread_create(&thread, nil, runThreadWork, work.toOpaque())
            if created == 0 {
                threads.append(thread)
            } else {
                // Short of threads: the work is done here instead.
                work.takeRetainedValue().run()
            }
        }
        for thread in threads { pthread_join(thread, nil) }
    }
}

private final class ThreadWork {
    let index: Int
    let body: @Sendable (Int) -> Void

    init(index: Int, body: @escaping @Sendable (Int) -> Void) {
        self.index = index
        self.body = body
    }

    func run() { body(index) }
}

private func runThreadWork(_ work: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let work else { return nil }
    Unmanaged<ThreadWork>.fromOpaque(work).takeRetainedValue().run()
    return nil
}
