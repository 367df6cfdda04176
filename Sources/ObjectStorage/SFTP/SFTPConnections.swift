import Glibc

/// The few connections of one store, over which all its requests are spread.
///
/// The first is dialled when it is needed, a further one when every other has a long transfer under
/// way. One is dialled at a time, since servers refuse connections that begin together
/// (MaxStartups). A connection that has ended is forgotten; the next request dials anew.
final class SFTPConnections: @unchecked Sendable {
    // Sendable: what changes is touched only while the mutex is held.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private let limit: Int
    private let dial: @Sendable () throws(SSHFailure) -> SFTPConnection
    private var slots: [Slot] = []
    private var isDialling = false
    /// How many attempts to dial have ended, and how the last of them failed.
    private var attempts = 0
    private var lastFailure: SSHFailure?
    /// No further connection is dialled before that time, while there is one to use.
    private var nextDial: Int64 = 0

    /// A connection and what goes on over it.
    private struct Slot {
        let connection: SFTPConnection
        var users = 0
        var transfers = 0
    }

    init(limit: Int, dial: @escaping @Sendable () throws(SSHFailure) -> SFTPConnection) {
        precondition(limit > 0, "no connection allowed")
        self.limit = limit
        self.dial = dial
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// Runs `body` with a connection, which others may be using too.
    ///
    /// - Parameter isTransfer: Whether it will move many bytes, so that a connection of its own
    ///   would serve it better.
    func use<Result>(
        isTransfer: Bool, _ body: (SFTPConnection) throws(SFTPFailure) -> Result
    ) throws(SFTPFailure) -> Result {
        let connection: SFTPConnection
        do throws(SSHFailure) {
            connection = try take(isTransfer: isTransfer)
        } catch {
            throw .unreachable(error)
        }
        defer { giveBack(connection, isTransfer: isTransfer) }
        return try body(connection)
    }

    /// Ends every connection.
    func close() {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        for slot in slots { slot.connection.close() }
        slots = []
    }

    private func take(isTransfer: Bool) throws(SSHFailure) -> SFTPConnection {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while true {
            slots.removeAll { !$0.connection.isAlive }
            let least = slots.indices.min { a, b in
                (slots[a].transfers, slots[a].users) < (slots[b].transfers, slots[b].users)
            }
            if let least, !isTransfer || slots[least].transfers == 0 || !mayDialAnother {
                slots[least].users += 1
                if isTransfer { slots[least].transfers += 1 }
                return slots[least].connection
            }
            if !isDialling {
                try dialAnother(isNeeded: least == nil)
                continue
            }
            // Somebody dials the first connection; his failure is that of all who wait for it.
            let before = attempts
            while attempts == before { pthread_cond_wait(condition, mutex) }
            if slots.isEmpty, let lastFailure { throw lastFailure }
        }
    }

    private var mayDialAnother: Bool {
        !isDialling && slots.count < limit && monotonicNanoseconds() >= nextDial
    }

    /// Dials while the mutex is released.
    private func dialAnother(isNeeded: Bool) throws(SSHFailure) {
        isDialling = true
        pthread_mutex_unlock(mutex)
        var made: SFTPConnection?
        var failure: SSHFailure?
        do throws(SSHFailure) {
            made = try isNeeded ? dialPatiently() : dial()
        } catch {
            failure = error
        }
        pthread_mutex_lock(mutex)
        isDialling = false
        attempts += 1
        lastFailure = failure
        if let made { slots.append(Slot(connection: made)) }
        pthread_cond_broadcast(condition)
        guard let failure else { return }
        if isNeeded { throw failure }
        nextDial = monotonicNanoseconds() + SFTPConnections.pauseNanoseconds
    }

    /// Dials again after a moment where the server has too many that are just connecting.
    private func dialPatiently() throws(SSHFailure) -> SFTPConnection {
        var pauseMicroseconds: UInt32 = 200_000
        while true {
            do throws(SSHFailure) {
                return try dial()
            } catch {
                guard error.isOverload, pauseMicroseconds < 3_000_000 else { throw error }
            }
            usleep(pauseMicroseconds + UInt32.random(in: 0..<pauseMicroseconds / 2))
            pauseMicroseconds *= 2
        }
    }

    private static let pauseNanoseconds: Int64 = 30_000_000_000

    private func giveBack(_ connection: SFTPConnection, isTransfer: Bool) {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        guard let index = slots.firstIndex(where: { $0.connection === connection }) else { return }
        slots[index].users -= 1
        if isTransfer { slots[index].transfers -= 1 }
    }
}
