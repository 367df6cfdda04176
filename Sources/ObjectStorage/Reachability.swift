/// Waits until a store answers, for a host that is started before its network.
///
/// - Parameter policy: How patiently; its `patienceSeconds` is all that is waited for. A store that
///   answers with an error that will not pass has answered too, and that error is thrown.
/// - Parameter probe: Asks the store something that costs it little.
/// - Throws: What `probe` threw last.
package func waitUntilReachable(
    policy: RetryPolicy, surroundings: StoreSurroundings, probe: () throws(StorageError) -> Void
) throws(StorageError) {
    var policy = policy
    policy.attempts = .max
    var retrial = Retrial(policy, surroundings)
    while true {
        do throws(StorageError) {
            try probe()
            if retrial.failures > 0 {
                surroundings.report(
                    .reachable(afterSeconds: seconds(in: retrial.failingNanoseconds)))
            }
            return
        } catch {
            try retrial.wait(after: error) { wait, left in
                surroundings.report(
                    .unreachable(error, waitSeconds: wait, patienceLeftSeconds: left))
            }
        }
    }
}

/// Waits until `store` answers a question about `key`, whatever it answers.
package func waitUntilReachable(
    _ store: any ObjectStore, probing key: ObjectKey, policy: RetryPolicy,
    surroundings: StoreSurroundings
) throws(StorageError) {
    try waitUntilReachable(policy: policy, surroundings: surroundings) {
        () throws(StorageError) in
        _ = try store.head(key)
    }
}
