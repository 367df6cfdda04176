package import SnapshotModel
package import SnapshotRepository

/// What is to be forgotten, and why: decided, not yet done.
package struct ForgetPlan: Sendable {
    /// What the policy makes of each snapshot; empty where the user has named snapshots.
    package let groups: [RetentionGroup]
    /// In order of time, then id.
    package let forgotten: [Snapshot]
    /// How many snapshots were looked at and stay.
    package let keptCount: Int

    /// Asks a retention policy.
    ///
    /// What cannot be read may be a pin, or say that a snapshot is incomplete, so only a snapshot's
    /// own record may be unreadable: as one that is not there it makes nothing else go.
    ///
    /// - Parameter catalog: With incomplete snapshots marked (`markIncomplete`).
    /// - Parameter isWanted: Which snapshots the policy is to judge; others neither count nor go.
    package static func byPolicy(
        _ policy: RetentionPolicy, on catalog: SnapshotCatalog,
        grouping: RetentionGrouping = .standard, now: Timestamp, calendar: RetentionCalendar,
        isWanted: (Snapshot) -> Bool = { _ in true }
    ) throws(ReplicationError) -> ForgetPlan {
        if let error = catalog.damaged.first(where: { !$0.subject.hasPrefix("snapshots/") }) {
            throw ReplicationError(
                .repository(error.kind), error.subject,
                "\(error.message); it may be a pin, so that no rule can be applied",
                remedy:
                    "run 'batchsync verify'; single snapshots can be forgotten by their ids meanwhile"
            )
        }
        let wanted = catalog.snapshots.filter(isWanted)
        let groups: [RetentionGroup]
        do {
            groups = try policy.decide(
                on: wanted.map(\.retentionCandidate), grouping: grouping, now: now,
                calendar: calendar)
        } catch {
            throw refusal(error)
        }
        let going = Set(groups.flatMap(\.verdicts).filter { !$0.isKept }.map(\.candidate.id))
        let forgotten = wanted.filter { going.contains($0.id) }
        return ForgetPlan(
            groups: groups, forgotten: forgotten, keptCount: wanted.count - forgotten.count)
    }

    /// Takes what the user has named, however much that leaves. What is pinned is refused.
    package static func naming(_ snapshots: [Snapshot]) throws(ReplicationError) -> ForgetPlan {
        if let pinned = snapshots.first(where: \.isPinned) {
            throw ReplicationError(
                .repository(.refused), pinned.id.short, "is pinned",
                remedy: "take the pin away first: batchsync tag \(pinned.id.short) --no-pin")
        }
        var seen: Set<SnapshotID> = []
        let forgotten = snapshots.filter { seen.insert($0.id).inserted }
            .sorted { $0.time != $1.time ? $0.time < $1.time : $0.id < $1.id }
        return ForgetPlan(groups: [], forgotten: forgotten, keptCount: 0)
    }

    private static func refusal(_ refusal: RetentionRefusal) -> ReplicationError {
        switch refusal {
        case .noRules:
            ReplicationError(
                .usage, "", "the retention policy has no rule",
                remedy: "say what is to stay, such as --keep-daily 7")
        case .leavesNothing(let keys):
            ReplicationError(
                .repository(.refused), "",
                "the policy would leave nothing of \(keys.map(\.description).joined(separator: "; ")); nothing was forgotten",
                remedy:
                    "add a rule that keeps something of every group, such as --keep-last 1, or choose snapshots with --host, --path or --tag"
            )
        }
    }
}

extension Snapshot {
    /// The snapshot as a retention policy sees it. One whose run had problems is whole.
    package var retentionCandidate: RetentionCandidate {
        RetentionCandidate(
            id: id, time: time, host: host, roots: roots, tags: tags, isPinned: isPinned,
            isIncomplete: !isWhole, isUndescribed: isUndescribed)
    }
}
