import Glibc
import SnapshotModel

/// The directories that wait to be listed, the threads that list them, and the lock that guards
/// both.
///
/// Last in, first out, and a directory's children are pushed in reverse: so threads list in about
/// the order in which the consumer will ask. Nobody waits while holding a directory: whoever has
/// taken one lists it and hands it over. So the consumer, who lists what nobody has begun, never
/// waits for something that does not move.
final class WalkQueue: @unchecked Sendable {
    // Sendable: all that changes is guarded by `mutex`, and PendingDirectory says what its own
    // threads may touch.

    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    /// There may be something to list.
    private let workArrived = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    /// What the consumer waits for is listed.
    private let workDone = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

    private let options: WalkOptions
    private let directoriesAhead: Int
    private var stack: [PendingDirectory] = []
    /// Entries in all listings that exist.
    private var entriesHeld = 0
    /// Listings that exist or are being made and that the consumer has not asked for.
    private var directoriesHeld = 0
    private var idleThreads = 0
    private var awaited: PendingDirectory?
    private var isStopping = false
    private var threads: [pthread_t] = []

    init(options: WalkOptions, directoriesAhead: Int) {
        self.options = options
        self.directoriesAhead = directoriesAhead
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(workArrived, nil)
        pthread_cond_init(workDone, nil)
    }

    deinit {
        pthread_cond_destroy(workDone)
        pthread_cond_destroy(workArrived)
        pthread_mutex_destroy(mutex)
        workDone.deallocate()
        workArrived.deallocate()
        mutex.deallocate()
    }

    // MARK: Threads

    /// Starts the threads. With fewer than asked for, or none, the consumer does the rest.
    func start() {
        // Signals are for the threads of the program, not for these.
        var all = sigset_t()
        var before = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_SETMASK, &all, &before)
        for _ in 0..<options.threads {
            var thread = pthread_t()
            let context = Unmanaged.passRetained(self)
            let result = pthread_create(
                &thread, nil,
                { context in
                    guard let context else { return nil }
                    Unmanaged<WalkQueue>.fromOpaque(context).takeRetainedValue().work()
                    return nil
                }, context.toOpaque())
            if result == 0 { threads.append(thread) } else { context.release() }
        }
        pthread_sigmask(SIG_SETMASK, &before, nil)
    }

    /// Ends the threads and waits for them.
    func stop() {
        pthread_mutex_lock(mutex)
        isStopping = true
        pthread_cond_broadcast(workArrived)
        pthread_mutex_unlock(mutex)
        for thread in threads { pthread_join(thread, nil) }
        threads = []
        stack = []
    }

    private func work() {
        let lister = DirectoryLister(options: options)
        pthread_mutex_lock(mutex)
        while !isStopping {
            if let (pending, place) = next() {
                list(pending, in: place, by: lister)
            } else {
                idleThreads += 1
                pthread_cond_wait(workArrived, mutex)
                idleThreads -= 1
            }
        }
        pthread_mutex_unlock(mutex)
    }

    /// Takes the next directory that may be listed now. Called under the lock.
    private func next() -> (PendingDirectory, DirectoryHandle)? {
        guard entriesHeld < options.entriesAhead, directoriesHeld < directoriesAhead else {
            return nil
        }
        while let pending = stack.popLast() {
            // Taken by the consumer meanwhile: its parent may be gone, so nothing else may be
            // looked at.
            guard pending.state == .waiting else { continue }
            // The directory above has been closed; the consumer will open it again and then list
            // this one.
            guard let place = pending.parent.handle else { continue }
            pending.state = .running
            directoriesHeld += 1
            return (pending, place)
        }
        return nil
    }

    /// Lists what `next` took. Called under the lock, which it leaves meanwhile.
    private func list(
        _ pending: PendingDirectory, in place: DirectoryHandle, by lister: DirectoryLister
    ) {
        pthread_mutex_unlock(mutex)
        let (listing, failure) = lister.list(pending, in: place)
        pthread_mutex_lock(mutex)
        if let failure, failure.errno == EMFILE || failure.errno == ENFILE {
            // Descriptors may be free again when the consumer comes here.
            pending.state = .waiting
            directoriesHeld -= 1
        } else {
            pending.listing = listing
            pending.failure = failure
            pending.state = .done
            if let listing { push(listing) }
        }
        if awaited === pending {
            awaited = nil
            pthread_cond_signal(workDone)
        }
    }

    /// Counts a new listing and queues its subdirectories. Called under the lock.
    private func push(_ listing: DirectoryListing) {
        entriesHeld += listing.count
        guard !listing.children.isEmpty, options.threads > 0 else { return }
        for child in listing.children.reversed() { stack.append(child) }
        if idleThreads > 0 {
            if listing.children.count > 1 {
                pthread_cond_broadcast(workArrived)
            } else {
                pthread_cond_signal(workArrived)
            }
        }
    }

    // MARK: The consumer's side

    /// Brings the listing of a directory: one that is ready, or else made here and now.
    func take(
        _ pending: PendingDirectory, in place: DirectoryHandle, by lister: DirectoryLister
    ) -> (listing: DirectoryListing?, failure: WalkProblem?) {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while true {
            switch pending.state {
            case .done:
                directoriesHeld -= 1
                wakeThreads()
                let listing = pending.listing
                pending.listing = nil
                return (listing, pending.failure)
            case .waiting:
                pending.state = .running
                // Entries of the stack that are no longer waiting gather at its end when threads
                // are held back.
                while let last = stack.last, last.state != .waiting { stack.removeLast() }
                pthread_mutex_unlock(mutex)
                let (listing, failure) = lister.list(pending, in: place)
                pthread_mutex_lock(mutex)
                pending.state = .done
                if let listing { push(listing) }
                return (listing, failure)
            case .running:
                // Better than waiting: do what will be asked for next.
                if let (other, place) = next() {
                    list(other, in: place, by: lister)
                } else {
                    awaited = pending
                    pthread_cond_wait(workDone, mutex)
                }
            }
        }
    }

    /// Counts a listing that the consumer made by itself; nothing of it is listed ahead.
    func adopt(_ listing: DirectoryListing) {
        pthread_mutex_lock(mutex)
        entriesHeld += listing.count
        pthread_mutex_unlock(mutex)
    }

    /// Says that a listing is consumed. Its memory goes with the last reference.
    func release(_ listing: DirectoryListing) {
        pthread_mutex_lock(mutex)
        entriesHeld -= listing.count
        wakeThreads()
        pthread_mutex_unlock(mutex)
    }

    /// Wakes threads that were held back, once there is room for more than a moment's work. Called
    /// under the lock.
    private func wakeThreads() {
        if idleThreads > 0, !stack.isEmpty, entriesHeld < options.entriesAhead / 4 * 3,
            directoriesHeld <= directoriesAhead / 4 * 3
        {
            pthread_cond_broadcast(workArrived)
        }
    }

    /// Lets a directory be asked for again that could not be opened.
    func reset(_ pending: PendingDirectory) {
        pthread_mutex_lock(mutex)
        pending.state = .waiting
        pending.failure = nil
        pthread_mutex_unlock(mutex)
    }

    /// Closes the directory of a listing that is still needed, or gives it back.
    func setHandle(_ handle: DirectoryHandle?, of listing: DirectoryListing) {
        pthread_mutex_lock(mutex)
        let old = listing.handle
        listing.handle = handle
        pthread_mutex_unlock(mutex)
        // Closed here and not under the lock, unless somebody still uses it.
        _ = consume old
    }

    /// Sees to it that nothing refers to a listing's remaining subdirectories any more, so that it
    /// can be left before its end.
    func abandon(_ listing: DirectoryListing) {
        pthread_mutex_lock(mutex)
        var open = [listing]
        while let next = open.popLast() {
            for child in next.children {
                while child.state == .running {
                    awaited = child
                    pthread_cond_wait(workDone, mutex)
                }
                if child.state == .waiting {
                    child.state = .done
                } else if let found = child.listing {
                    child.listing = nil
                    directoriesHeld -= 1
                    entriesHeld -= found.count
                    open.append(found)
                }
            }
        }
        pthread_mutex_unlock(mutex)
    }
}
