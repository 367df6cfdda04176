/// Makes calls again that failed for a reason that may pass, with a wait before each.
///
/// Which errors are worth it is the store's word (`isTransient`); how long it asked to be left
/// alone is obeyed. Repeating is safe by the contract: a put whose answer was lost succeeds without
/// effect. A listing goes on behind the last object that it handed out, so none comes twice.
package struct RetryingStore: StoreWrapper {
    package let base: any ObjectStore
    private let policy: RetryPolicy
    private let surroundings: StoreSurroundings
    private let counter: TrafficCounter?
    private var deadline: Int64?

    /// - Parameter counter: Counts each call that is made again, and each object that had to be
    ///   fetched again because it arrived altered.
    package init(
        _ base: any ObjectStore, policy: RetryPolicy = RetryPolicy(),
        surroundings: StoreSurroundings = StoreSurroundings(), counter: TrafficCounter? = nil
    ) {
        self.base = base
        self.policy = policy
        self.surroundings = surroundings
        self.counter = counter
    }

    /// The same store for work that has to be done by a certain time: no attempt begins at
    /// `deadline` or later, not even the first. An attempt under way is not cut short.
    ///
    /// - Parameter deadline: By the clock of the surroundings, in nanoseconds.
    package func withDeadline(_ deadline: Int64) -> RetryingStore {
        var copy = self
        copy.deadline = min(deadline, self.deadline ?? .max)
        return copy
    }

    package func perform<Result>(
        _ call: StoreCall, _ effect: () throws(StorageError) -> Result
    ) throws(StorageError) -> Result {
        var retrial = Retrial(policy, surroundings, deadline: deadline)
        while true {
            try checkDeadline(call)
            do throws(StorageError) {
                let result = try effect()
                tellRecovery(retrial)
                return result
            } catch {
                try wait(&retrial, after: error)
            }
        }
    }

    package func list(
        prefix: String, after last: ObjectKey?, _ body: (StoredObject) -> Bool
    ) throws(StorageError) {
        var retrial = Retrial(policy, surroundings, deadline: deadline)
        var last = last
        var isWanted = true
        while true {
            try checkDeadline(StoreCall(.list))
            do throws(StorageError) {
                try base.list(prefix: prefix, after: last) { object in
                    if retrial.failures > 0 {
                        tellRecovery(retrial)
                        retrial.advanced()
                    }
                    last = object.key
                    isWanted = body(object)
                    return isWanted
                }
                tellRecovery(retrial)
                return
            } catch {
                // Whoever has what he wanted does not care how the rest went.
                guard isWanted else { return }
                try wait(&retrial, after: error)
            }
        }
    }

    package func digests(
        of keys: [ObjectKey], _ body: (ObjectKey, [UInt8]) -> Bool
    ) throws(StorageError) {
        var retrial = Retrial(policy, surroundings, deadline: deadline)
        var handedOut: Set<ObjectKey> = []
        var isWanted = true
        while true {
            try checkDeadline(StoreCall(.get))
            do throws(StorageError) {
                let rest = handedOut.isEmpty ? keys : keys.filter { !handedOut.contains($0) }
                try base.digests(of: rest) { key, digest in
                    if retrial.failures > 0 {
                        tellRecovery(retrial)
                        retrial.advanced()
                    }
                    handedOut.insert(key)
                    isWanted = body(key, digest)
                    return isWanted
                }
                tellRecovery(retrial)
                return
            } catch {
                guard isWanted else { return }
                try wait(&retrial, after: error)
            }
        }
    }

    package func delete(_ keys: [ObjectKey], _ failed: (ObjectKey, StorageError) -> Void) {
        var retrial = Retrial(policy, surroundings, deadline: deadline)
        var rest = keys
        while !rest.isEmpty {
            var failures: [(key: ObjectKey, error: StorageError)] = []
            do throws(StorageError) {
                try checkDeadline(StoreCall(.delete, rest[0]))
            } catch {
                for key in rest { failed(key, error) }
                return
            }
            base.delete(rest) { key, error in
                if error.isTransient {
                    failures.append((key, error))
                } else {
                    failed(key, error)
                }
            }
            if failures.count < rest.count {
                tellRecovery(retrial)
                retrial.advanced()
            }
            rest = failures.map(\.key)
            // Who asks to be left alone longest speaks for all.
            guard
                let slowest = failures.max(by: {
                    $0.error.retryAfterSeconds ?? 0 < $1.error.retryAfterSeconds ?? 0
                })
            else { return }
            do throws(StorageError) {
                try wait(&retrial, after: slowest.error)
            } catch {
                for (key, error) in failures { failed(key, error) }
                return
            }
        }
    }

    package func noteAlteredTransfer() { counter?.countAltered() }

    private func checkDeadline(_ call: StoreCall) throws(StorageError) {
        if let deadline, surroundings.now() >= deadline {
            throw call.failure(.unavailable, "the time by which it had to be done is over")
        }
    }

    private func wait(
        _ retrial: inout Retrial, after error: StorageError
    ) throws(StorageError) {
        let attempt = retrial.failures + 1
        try retrial.wait(after: error) { wait, _ in
            surroundings.report(.retrying(error, attempt: attempt, waitSeconds: wait))
        }
        counter?.countRetry()
    }

    private func tellRecovery(_ retrial: borrowing Retrial) {
        guard retrial.failures > 0 else { return }
        surroundings.report(
            .recovered(
                attempts: retrial.failures, failingSeconds: seconds(in: retrial.failingNanoseconds))
        )
    }
}

extension ObjectStore {
    /// This store for work that has to be done by a certain time, given in nanoseconds on a clock
    /// that runs through suspend. A store that makes each attempt once has nothing to bound and is
    /// given as it is.
    package func withDeadline(_ deadline: Int64) -> any ObjectStore {
        guard let retrying = self as? RetryingStore else { return self }
        return retrying.withDeadline(deadline) as RetryingStore
    }
}
