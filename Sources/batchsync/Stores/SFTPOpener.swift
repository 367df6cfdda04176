import CSystem
import Glibc
import ObjectStorage

/// How an SFTP server is reached: by the system's ssh, or without it where there is none or a
/// password has to be used.
extension StoreOpener {
    func sftp(_ place: SFTPLocation, creating: Bool) throws -> OpenedStore {
        let memory = StoreMemory(location, directories: directories)
        let store: any ObjectStore
        if let options = try optionsWithoutSSH() {
            store = try opened(
                creating: creating,
                open: { () throws(StorageError) in
                    try DirectSFTPStore.open(at: place, options: options)
                },
                create: { () throws(StorageError) in
                    try DirectSFTPStore.create(at: place, options: options)
                })
        } else {
            let options = try optionsForSSH()
            store = try opened(
                creating: creating,
                open: { () throws(StorageError) in
                    try SFTPStore.open(at: place, options: options)
                },
                create: { () throws(StorageError) in
                    try SFTPStore.create(at: place, options: options)
                })
        }
        var wrapped = wrapRemote(store, memory: memory, maximum: Self.mostCallsToSFTP)
        wrapped.removeMade = {
            (store as? SFTPStore)?.removeMade()
            (store as? DirectSFTPStore)?.removeMade()
        }
        return wrapped
    }

    private func opened(
        creating: Bool, open: () throws(StorageError) -> any ObjectStore,
        create: () throws(StorageError) -> any ObjectStore
    ) throws(StorageError) -> any ObjectStore {
        try whenOnline { () throws(StorageError) in
            guard creating else { return try open() }
            do throws(StorageError) {
                return try create()
            } catch {
                // A repository that is there is better named so than as a directory with something
                // in it.
                guard error.kind == .exists, let there = try? open(),
                    let config = ObjectKey("config.json"),
                    let found = try? there.head(config), found.length > 0
                else { throw error }
                return there
            }
        }
    }

    private func optionsForSSH() throws -> SFTPStore.Options {
        var options = SFTPStore.Options()
        if let command = access.sshCommand { options.command = try SSHCommand(command) }
        if let connections = access.connections { options.connections = connections }
        options.mayAsk = isatty(0) == 1
        options.acceptsNewHostKey = access.acceptsNewHostKey
        options.hashesRemotely = access.hashesRemotely
        options.spoolDirectory = spoolDirectory
        options.traffic = counter
        options.isCancelled = { Signals.haveArrived }
        return options
    }

    /// nil where ssh is to be used.
    private func optionsWithoutSSH() throws -> DirectSFTPStore.Options? {
        let hasCommand =
            access.sshCommand != nil
            || SSHCommand.standard.isFound(in: Assembly.variable("PATH") ?? "")
        guard access.passwordFile != nil || !hasCommand else { return nil }
        guard let home = Assembly.variable("HOME") else {
            throw CommandError.usage(
                "HOME is not set", remedy: "set it to the directory that holds .ssh/known_hosts")
        }
        let user = Assembly.variable("USER") ?? Assembly.variable("LOGNAME") ?? "root"
        var options = DirectSFTPStore.Options(
            user: user,
            knownHostsFiles: ["\(home)/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts"])
        options.password = try access.passwordFile.map { (file) throws in try password(in: file) }
        options.privateKeyFile = ["id_ed25519", "id_ecdsa"].lazy.map { "\(home)/.ssh/\($0)" }
            .first { Glibc.access($0, R_OK) == 0 }
        options.acceptsNewHostKey = access.acceptsNewHostKey
        if let connections = access.connections { options.connections = connections }
        options.spoolDirectory = spoolDirectory
        options.traffic = counter
        options.isCancelled = { Signals.haveArrived }
        return options
    }

    /// The first line of a file, which other users must not be able to read.
    private func password(in file: String) throws(CommandError) -> String {
        var status = csys_stat()
        if csys_statx(AT_FDCWD, file, &status) == 0, csys_kind(status.mode) == CSYS_FILE,
            status.mode & 0o077 != 0
        {
            throw CommandError(
                .failed, "others may read the password in \(file)",
                remedy: "take that right from them: chmod 600 \(file)")
        }
        let bytes = try HostFile.read(
            Array(file.utf8), purpose: "the password from", maximumBytes: 1 << 16)
        let line = bytes.prefix { $0 != 0x0A && $0 != 0x0D && $0 != 0 }
        guard let password = String(validating: line, as: UTF8.self), !password.isEmpty else {
            throw CommandError(
                .failed, "\(file) holds no password", remedy: "write it into its first line")
        }
        return password
    }
}
