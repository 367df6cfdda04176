import AgeEncryption
import ArgumentParser
import FileTree
import ObjectStorage
import Profiles
import Replication
import SnapshotModel
import SnapshotRepository

/// What stopped the command: what happened, to what, and what to do next.
struct CommandError: Error {
    let status: ExitStatus
    let message: String
    var remedy = ""

    init(_ status: ExitStatus, _ message: String, remedy: String = "") {
        self.status = status
        self.message = message
        self.remedy = remedy
    }

    /// Words of the command line that make no sense together.
    static func usage(_ message: String, remedy: String = "") -> CommandError {
        CommandError(.usage, message, remedy: remedy)
    }
}

/// An error of any room as the user reads it, with the code that the program ends with.
struct ErrorReport {
    let status: ExitStatus
    let message: String
    let remedy: String

    init(_ error: any Error) {
        switch error {
        // What failed because everything was being stopped did not fail by itself.
        case _ where Signals.haveArrived:
            (status, message, remedy) = (
                Signals.statusOfInterruption, "interrupted",
                "nothing is half-written: a backup or a restore that is run again goes on from what was stored"
            )
        case let error as CommandError:
            (status, message, remedy) = (error.status, error.message, error.remedy)
        case let error as RepositoryError:
            (status, message, remedy) = (ExitStatus(error.kind), error.description, error.remedy)
        case let error as ReplicationError:
            (status, message, remedy) = (ExitStatus(error), error.description, error.remedy)
        case let error as StorageError:
            (status, message, remedy) = (.failed, error.description, error.remedy)
        case let error as FileTreeError:
            (status, message, remedy) = (.failed, error.description, error.remedy)
        case let error as ProfileError:
            (status, message, remedy) = (
                error.kind == .invalid ? .usage : .failed, error.description, error.remedy
            )
        case let error as AgeError:
            (status, message, remedy) = (.wrongKey, error.description, "")
        default:
            (status, message, remedy) = (.failed, "\(error)", "")
        }
    }

    /// `batchsync: what happened`, and the remedy below it, indented.
    func print(asJSON: Bool) {
        let console = Console.shared
        console.progress("")
        if asJSON {
            JSONOutput.print(
                "error",
                [
                    ("status", .integer(Int64(status.rawValue))), ("message", .string(message)),
                    ("remedy", .string(remedy)),
                ])
        }
        console.flush()
        console.say("batchsync: \(message)")
        if !remedy.isEmpty { console.say("  \(remedy)") }
    }
}
