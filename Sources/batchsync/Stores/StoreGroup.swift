import ObjectStorage
import Replication
import SnapshotRepository

/// The stores of one repository that answer, the first of them leading. One that is down does not
/// stop the others.
struct StoreGroup {
    let leader: Repository
    let uploads: UploadLimits
    let replicas: [ReplicaTarget]
    /// Stores that do not answer.
    let lost: [StoreOutcome]

    var repositories: [Repository] { [leader] + replicas.map(\.repository) }

    /// - Throws: What the only store has to say, or that none of several answers.
    init(_ locations: [String], _ assembly: Assembly, _ monitor: any Monitor) throws {
        var found: [(repository: Repository, uploads: UploadLimits)] = []
        var lost: [StoreOutcome] = []
        for location in locations {
            do {
                let opened = try assembly.openStore(try assembly.opener(location, mayWrite: true))
                let repository = try assembly.open(
                    .hostKey, in: opened, asReplica: location != locations[0])
                if let first = found.first?.repository, first.id != repository.id {
                    throw RepositoryError(
                        .notARepository, location,
                        "is another repository than \(first.location)",
                        remedy: Self.makeReplica(of: first.location, at: location))
                }
                if found.isEmpty { Self.noteMissingKey(of: repository, monitor) }
                found.append((repository, opened.uploads))
            } catch {
                guard locations.count > 1, var failure = Self.failureOfOne(error) else {
                    throw error
                }
                if location != locations[0], case .repository(.notARepository) = failure.kind {
                    failure = ReplicationError(
                        failure.kind, failure.subject, failure.message,
                        remedy: Self.makeReplica(of: locations[0], at: location))
                }
                monitor.note(
                    "\(location): \(failure.description)"
                        + (failure.remedy.isEmpty ? "" : "; \(failure.remedy)"))
                lost.append(StoreOutcome(location: location, failure: failure))
            }
        }
        guard let first = found.first else {
            throw CommandError(
                .failed,
                "no store of the repository answers, nothing was done: "
                    + lost.map { "\($0.location): \($0.failure?.description ?? "")" }
                    .joined(separator: "; "),
                remedy: lost.first?.failure?.remedy ?? "")
        }
        leader = first.repository
        uploads = first.uploads
        replicas = found.dropFirst().map { ReplicaTarget($0.repository, uploads: $0.uploads) }
        self.lost = lost
    }

    private static func makeReplica(of first: String, at location: String) -> String {
        "'batchsync init --replica-of \(first) -r \(location)' makes an empty place a further store of the repository, and the next run brings what it lacks"
    }

    /// A backup needs the host key only: whoever has to bring the owner's secret each night is told
    /// how not to.
    private static func noteMissingKey(of repository: Repository, _ monitor: any Monitor) {
        guard repository.config.isEncrypted,
            !LocalFile.exists(repository.directories.hostKeyPath(repository.id))
        else { return }
        monitor.note(
            "this host has no key of its own for the repository, so that the owner's passphrase or identity was needed; 'batchsync key accept -r \(repository.location)', run once with it, gives it one"
        )
    }

    /// What concerns one store alone: the others can go on without it. A key that is missing, or a
    /// sender who is not proven, concerns the user.
    private static func failureOfOne(_ error: any Error) -> ReplicationError? {
        switch error {
        case let error as StorageError:
            ReplicationError(
                .repository(.storage), "", error.description, remedy: error.remedy)
        case let error as RepositoryError
        where error.kind == .storage || error.kind == .notARepository:
            ReplicationError(error)
        default: nil
        }
    }
}
