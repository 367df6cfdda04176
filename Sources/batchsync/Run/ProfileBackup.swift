import FileTree
import Glibc
import Profiles
import Replication
import SnapshotModel

extension Profile {
    /// What the profile says of sources and of how a snapshot is made.
    ///
    /// - Throws: Where a source is not there, or a file that the profile names cannot be read.
    func backupOptions() throws -> BackupOptions {
        var record = ExclusionRecord()
        record.exclude = source.exclude.map { Array($0.utf8) }
        record.excludeFrom = source.excludeFrom.map { Array($0.utf8) }
        record.excludeIfPresent = source.excludeIfPresent.map { Array($0.utf8) }
        record.excludeCaches = source.excludeCaches
        record.excludeLargerThan = source.excludeLargerThan?.bytes
        record.excludeNodump = source.excludeNodump
        record.oneFileSystem = source.oneFileSystem
        record.ignoreFiles = source.ignoreFiles

        var options = BackupOptions(
            host: source.host ?? Assembly.hostName, program: Assembly.program)
        if let command = source.command {
            options.stream = .command(
                command.words, name: try BackupCommand.streamName(Array(command.name.utf8)))
        } else {
            var words = source.paths.map { Array($0.utf8) }
            for file in source.filesFrom {
                words += FileList.paths(
                    in: try HostFile.read(Array(file.utf8), purpose: "the list of sources in"))
            }
            options.roots = try BackupJob.sources(words)
        }
        options.walk = try record.walkOptions()
        options.tags = source.tags
        options.description = description
        options.level = backup.compression
        options.readers = backup.readConcurrency
        options.bundleBytes = Int(clamping: backup.bundleBytes.bytes)
        options.checkpointSeconds = backup.checkpointSeconds
        options.rehash = backup.rehash
        options.ignoresInode = backup.ignoresInode
        options.ignoresCtime = backup.ignoresCtime
        options.ignoresMtime = backup.ignoresMtime
        options.recordedOptions = .object(
            record.fields + [
                ("compression", .count(backup.compression)), ("profile", .string(name)),
            ])
        return options
    }

    /// The stores' places, the leading one first.
    var locations: [String] { [repository.location] + replicas.map(\.location) }

    /// How much a run reads back; nil for nothing.
    var readShare: VerifyOptions.Share? {
        guard !verify.readData.isNothing else { return nil }
        return switch verify.readData.amount {
        case .percent(let percent): percent == 100 ? .everything : .share(percent: percent)
        case .fraction(let part, let whole):
            part == whole ? .everything : .fraction(part, of: whole)
        case .bytes(let count): .bytes(Int(clamping: count.bytes))
        }
    }
}
