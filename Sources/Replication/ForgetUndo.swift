import SnapshotModel
package import SnapshotRepository

/// Which forgotten snapshots are to be listed again: decided, not yet done.
package struct ForgetUndo: Sendable {
    /// In order of time, then id.
    package let snapshots: [Snapshot]

    /// What the last forgetting on this host took away and prune has not removed yet.
    package static func last(
        in catalog: SnapshotCatalog, host: String
    ) throws(ReplicationError) -> ForgetUndo {
        let forgotten = catalog.forgottenRecords.forgotten
        for record in catalog.forgottenRecords.reversed() where record.host == host {
            let snapshots = catalog.forgottenSnapshots.filter {
                forgotten[$0.id]?.name == record.name
            }
            if !snapshots.isEmpty { return ForgetUndo(snapshots: snapshots) }
        }
        throw ReplicationError(
            .repository(.notFound), "",
            "nothing that host \(host) has forgotten can be brought back",
            remedy: choice(catalog))
    }

    /// What the user names by the beginnings of ids.
    package static func naming(
        _ names: [String], in catalog: SnapshotCatalog
    ) throws(ReplicationError) -> ForgetUndo {
        var chosen: Set<SnapshotID> = []
        for name in names { chosen.insert(try find(name, in: catalog)) }
        return ForgetUndo(snapshots: catalog.forgottenSnapshots.filter { chosen.contains($0.id) })
    }

    private static func find(
        _ name: String, in catalog: SnapshotCatalog
    ) throws(ReplicationError) -> SnapshotID {
        func failure(_ message: String, _ remedy: String) -> ReplicationError {
            ReplicationError(.repository(.notFound), name, message, remedy: remedy)
        }
        let digits = name.utf8
        guard digits.count >= 4,
            digits.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) })
        else {
            throw failure(
                "is not the beginning of an id, by which a forgotten snapshot is named",
                choice(catalog))
        }
        func matches(_ ids: some Sequence<SnapshotID>) -> [SnapshotID] {
            ids.filter { $0.description.hasPrefix(name) }
        }
        let found = matches(catalog.forgottenSnapshots.map(\.id))
        if found.count == 1 { return found[0] }
        guard found.isEmpty else {
            throw failure(
                "\(found.count) forgotten snapshots begin like this: \(found.map(\.short).joined(separator: ", "))",
                "give more digits")
        }
        guard matches(catalog.snapshots.map(\.id)).isEmpty else {
            throw failure("is not forgotten", "'batchsync snapshots' lists it")
        }
        guard matches(catalog.forgotten).isEmpty else {
            throw failure("was forgotten, and prune has removed it", choice(catalog))
        }
        throw failure("no forgotten snapshot has this id", choice(catalog))
    }

    /// What can be brought back, as a sentence for who asked for something else.
    private static func choice(_ catalog: SnapshotCatalog) -> String {
        let ids = catalog.forgottenSnapshots.suffix(10).map(\.id.short)
        return ids.isEmpty
            ? "no forgotten snapshot is left in the repository"
            : "these can be brought back: \(ids.joined(separator: ", "))"
    }
}
