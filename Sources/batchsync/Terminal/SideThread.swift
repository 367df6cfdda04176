import Glibc

/// A thread beside the verb, for what a person sees of it. Where the system has none to give, nothing but that is lost.
final class SideThread {
    private var thread: pthread_t?

    private final class Work {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    init(_ body: @escaping @Sendable () -> Void) {
        let work = Unmanaged.passRetained(Work(body))
        var made = pthread_t()
        let result = pthread_create(
            &made, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<Work>.fromOpaque(argument).takeRetainedValue().body()
                return nil
            }, work.toOpaque())
        if result == 0 { thread = made } else { work.release() }
    }

    /// Waits for its end.
    func join() {
        if let thread { pthread_join(thread, nil) }
        thread = nil
    }
}
