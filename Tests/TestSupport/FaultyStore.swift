package import ObjectStorage
import Synchronization

/// A store that fails as a script says, and can prove that it did.
package final class FaultyStore: StoreDecorator {
    /// One fault of a script.
    package struct Fault: Sendable {
        package enum Timing: Sendable {
            /// The call fails and nothing has happened.
            case before
            /// The call takes effect and its answer is lost.
            case after
        }

        /// The kind of call that fails; any kind where nil.
        package let operation: StoreOperation?
        /// Only calls whose key or prefix begins with this count.
        package let prefix: String
        /// Which of the calls that match fails, from 1.
        package let occurrence: Int
        package let timing: Timing
        package let kind: StorageError.Kind
        package let isTransient: Bool
        /// Whether every call after it fails as well, as after the end of the process.
        package let isCrash: Bool

        package init(
            _ operation: StoreOperation? = nil, below prefix: String = "", occurrence: Int = 1,
            _ timing: Timing = .before, kind: StorageError.Kind = .unavailable,
            isTransient: Bool = false, isCrash: Bool = false
        ) {
            precondition(occurrence >= 1)
            self.operation = operation
            self.prefix = prefix
            self.occurrence = occurrence
            self.timing = timing
            self.kind = kind
            self.isTransient = isTransient
            self.isCrash = isCrash
        }
    }

    fileprivate struct Script {
        var faults: [Fault]
        var matches: [Int]
        var fired: Set<Int> = []
        var hasCrashed = false
    }

    package let base: any ObjectStore
    private let script: Mutex<Script>

    package init(_ base: any ObjectStore, faults: [Fault]) {
        self.base = base
        script = Mutex(Script(faults: faults, matches: faults.map { _ in 0 }))
    }

    /// Faults that have not happened yet. A test that ends with any has not tested what it says.
    package var pending: [Fault] {
        script.withLock { script in
            script.faults.indices.filter { !script.fired.contains($0) }.map { script.faults[$0] }
        }
    }

    /// How many faults have happened.
    package var firedCount: Int { script.withLock { $0.fired.count } }

    package func perform(
        _ operation: StoreOperation, _ subject: String, _ effect: () throws(StorageError) -> Int
    ) throws(StorageError) {
        let (fault, hasCrashed) = script.withLock { $0.next(operation, subject) }
        if hasCrashed {
            throw injectedError(.unavailable, operation, subject, "the process has ended")
        }
        guard let fault else {
            _ = try effect()
            return
        }
        if fault.timing == .after { _ = try effect() }
        throw injectedError(
            fault.kind, operation, subject,
            fault.timing == .after ? "the answer was lost on purpose" : "refused on purpose",
            isTransient: fault.isTransient)
    }
}

extension FaultyStore.Script {
    /// The fault that this call meets, if any, and whether an earlier one has ended everything.
    fileprivate mutating func next(
        _ operation: StoreOperation, _ subject: String
    ) -> (FaultyStore.Fault?, hasCrashed: Bool) {
        if hasCrashed { return (nil, true) }
        var found: FaultyStore.Fault?
        for (index, fault) in faults.enumerated() {
            guard fault.operation == nil || fault.operation == operation,
                subject.hasPrefix(fault.prefix)
            else { continue }
            matches[index] += 1
            guard matches[index] == fault.occurrence, found == nil else { continue }
            fired.insert(index)
            found = fault
        }
        if found?.isCrash == true { hasCrashed = true }
        return (found, false)
    }
}

/// A store whose process ends at its N-th call: with that call and from then on nothing succeeds.
///
/// Run once with `crashAt: nil` to learn by `operations` how many calls there are, then once for
/// each.
package final class CrashingStore: StoreDecorator {
    package let base: any ObjectStore
    private let crashAt: Int?
    private let timing: FaultyStore.Fault.Timing
    private let writesOnly: Bool
    private let count = Mutex(0)

    /// - Parameter crashAt: The call that does not return, from 1; nil for none.
    /// - Parameter timing: Whether that call still takes effect.
    /// - Parameter writesOnly: Whether only puts and deletes are counted. What lies between two of
    ///   them leaves the same store behind.
    package init(
        _ base: any ObjectStore, crashAt: Int?, _ timing: FaultyStore.Fault.Timing = .before,
        writesOnly: Bool = false
    ) {
        self.base = base
        self.crashAt = crashAt
        self.timing = timing
        self.writesOnly = writesOnly
    }

    /// Calls counted so far.
    package var operations: Int { count.withLock { $0 } }

    package var hasCrashed: Bool { crashAt.map { operations >= $0 } ?? false }

    package func perform(
        _ operation: StoreOperation, _ subject: String, _ effect: () throws(StorageError) -> Int
    ) throws(StorageError) {
        let isCounted = operation.isWrite || !writesOnly
        let number = count.withLock { count in
            if isCounted { count += 1 }
            return count
        }
        guard let crashAt, number >= crashAt else {
            _ = try effect()
            return
        }
        if isCounted && number == crashAt && timing == .after { _ = try effect() }
        throw injectedError(.unavailable, operation, subject, "the process has ended")
    }
}

private func injectedError(
    _ kind: StorageError.Kind, _ operation: StoreOperation, _ subject: String, _ cause: String,
    isTransient: Bool = false
) -> StorageError {
    StorageError(
        kind, operation.errorOperation, key: ObjectKey(subject), location: "a faulty store",
        cause: cause, isTransient: isTransient)
}
