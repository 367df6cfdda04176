import Glibc

/// Threads wait before it until somebody opens it; then it stays open.
final class Gate: @unchecked Sendable {
    // Sendable: a semaphore is made for many threads.
    private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

    init() { precondition(sem_init(semaphore, 0, 0) == 0, "no semaphore can be made") }

    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }

    func open() { sem_post(semaphore) }

    func wait() {
        while sem_wait(semaphore) != 0 && errno == EINTR {}
        // The next one shall pass as well.
        sem_post(semaphore)
    }
}
