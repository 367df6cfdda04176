import AgeEncryption
import ArgumentParser
import Replication
import SnapshotModel
import SnapshotRepository

struct KeyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "key",
        abstract: "Manage passphrases, owners and hosts.",
        discussion: """
            An owner reads what is stored, with a passphrase or an age identity. A host backs up, lists and verifies with the host \
            key, and reads nothing.

                batchsync key list -r /backup/repository
                batchsync key add --passphrase --label anna -r /backup/repository
                batchsync key export --host --output host.json -r /backup/repository
                batchsync key accept host.json
            """,
        subcommands: [
            KeyListCommand.self, KeyAddCommand.self, KeyRemoveCommand.self, KeyExportCommand.self,
            KeyAcceptCommand.self,
            KeyGenerateCommand.self,
        ])
}

struct KeyListCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "List passphrases, owners and the keys of hosts.",
        discussion: """
            Shows the objects in keys/ of the repository and what this host has pinned. The key of this host is enough.

                batchsync key list -r /backup/repository
            """)

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func perform() throws -> ExitStatus {
        let assembly = Assembly(repository)
        let opened = try assembly.open(.hostKey)
        guard opened.config.isEncrypted else {
            throw RepositoryError(.refused, opened.location, "has no encryption, so it has no keys")
        }
        let keys = RepositoryKeys(of: opened)
        let objects = try keys.list()
        let (sets, refused) = try keys.recipientSets(objects)
        let pinned = try assembly.pinned(opened.config)
        if output.json {
            print(objects, sets, pinned)
        } else {
            var table = TableOutput([
                .init(title: "Key"), .init(title: "What it is"), .init(title: "Name"),
            ])
            var shown: Set<Int> = []
            for object in objects {
                switch object.role {
                case .owner(let label):
                    table.add([.init(object.id.short, .yellow), "passphrase", .init(label)])
                case .host:
                    table.add([
                        .init(object.id.short, .yellow), "host key, sealed to the owners", "",
                    ])
                case .recipients(let number):
                    // A set that was confirmed lies there twice, without and with the owner's
                    // proof.
                    guard shown.insert(number).inserted else { continue }
                    let set = sets.first { $0.number == number }
                    let owners =
                        set.map { $0.owners.map { $0.encoded() }.joined(separator: " ") }
                        ?? "damaged"
                    table.add([
                        .init(object.id.short, .yellow), .init("owners, set \(number)"),
                        .init(owners),
                    ])
                }
            }
            table.print(to: .shared)
            if let pinned {
                Console.shared.out("this host has pinned set \(pinned.recipientNumber)")
            } else {
                Console.shared.out("this host has no key for the repository")
            }
            if let newest = sets.first {
                Console.shared.out("fingerprint of set \(newest.number): \(newest.fingerprint)")
            }
        }
        for text in refused { Console.shared.say("batchsync: \(text)") }
        return refused.isEmpty ? .done : .damaged
    }

    private func print(_ objects: [KeyObject], _ sets: [RecipientSet], _ pinned: HostConfiguration?)
    {
        let list = objects.map { object in
            var fields: [(key: String, value: JSONValue)] = [
                ("name", .string(object.name)), ("id", .string(object.id.description)),
            ]
            switch object.role {
            case .owner(let label):
                fields += [("role", .string("passphrase")), ("label", .string(label))]
            case .host: fields.append(("role", .string("host")))
            case .recipients(let number):
                fields += [("role", .string("owners")), ("number", .count(number))]
                if let set = sets.first(where: { $0.number == number }) {
                    fields += [
                        ("owners", .array(set.owners.map { .string($0.encoded()) })),
                        ("fingerprint", .string(set.fingerprint)),
                    ]
                }
            }
            return JSONValue.object(fields)
        }
        JSONOutput.print(
            "key-list",
            [
                ("keys", .array(list)),
                ("pinned_set", pinned.map { .count($0.recipientNumber) } ?? .null),
            ])
    }
}

struct KeyAddCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "add", abstract: "Add a passphrase or an owner.",
        discussion: """
            Another passphrase opens the same content. Another owner reads what is stored from now on; what was stored before \
            stays closed to them, because it was sealed to the owners of its time. Needs the owner's passphrase or identity.

                batchsync key add --passphrase --label anna -r /backup/repository
                batchsync key add --recipient age1... -r /backup/repository

            The new passphrase comes from --new-passphrase-file, else from BATCHSYNC_NEW_PASSPHRASE, else it is asked for.
            A new owner counts for this host at once; other hosts go on sealing to the owners they have pinned until \
            they accept a fresh 'key export --host'.
            """)

    @Flag(help: "Add a passphrase.") var passphrase = false

    @Option(
        help: ArgumentHelp("Name of the new passphrase: a-z, 0-9, '_' and '.'.", valueName: "name"),
        transform: plainText)
    var label = "passphrase"

    @Option(help: ArgumentHelp("Read the new passphrase from a file.", valueName: "file"))
    var newPassphraseFile: PathArgument?

    @Option(help: ArgumentHelp("Add an owner. May be given several times.", valueName: "age1..."))
    var recipient: [String] = []

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func validate() throws {
        if passphrase == !recipient.isEmpty {
            throw ValidationError("say what to add: --passphrase, or --recipient age1...")
        }
    }

    func perform() throws -> ExitStatus {
        let assembly = Assembly(repository)
        let added = try recipient.map { try InitCommand.parsed($0) }
        let opened = try assembly.open(.owner)
        let keys = RepositoryKeys(of: opened)
        guard let host = opened.access.host, let owner = opened.access.owners.first else {
            throw RepositoryError(
                .refused, opened.location, "has no encryption, so it takes no keys")
        }
        if passphrase {
            let source = PassphraseSource(
                file: newPassphraseFile, command: nil, variable: "BATCHSYNC_NEW_PASSPHRASE",
                credential: "batchsync-new-passphrase")
            var words = try source.given()
            if words == nil, PassphraseSource.canAsk {
                words = try PassphraseSource.askForNew("new passphrase")
            }
            guard let words else {
                throw CommandError(
                    .wrongKey, "there is no new passphrase",
                    remedy: "set BATCHSYNC_NEW_PASSPHRASE, or give --new-passphrase-file FILE")
            }
            let name = try keys.addPassphrase(words, label: label, for: owner)
            if output.json {
                JSONOutput.print("key-add", [("name", .string(name))])
            } else {
                Console.shared.out("added \(name)")
            }
            return .done
        }
        var owners = opened.access.recipients
        for recipient in added where !owners.contains(recipient) { owners.append(recipient) }
        let set = try keys.putRecipients(
            owners, host: host, provenBy: opened.access.owners, now: Assembly.now)
        try assembly.pin(set, of: opened, host: host)
        Self.tell(set, output)
        return .done
    }

    static func tell(_ set: RecipientSet, _ output: PrintOptions) {
        let owners = set.owners.map { $0.encoded() }
        if output.json {
            JSONOutput.print(
                "key-owners",
                [
                    ("number", .count(set.number)), ("owners", .array(owners.map { .string($0) })),
                    ("fingerprint", .string(set.fingerprint)),
                ])
        } else {
            Console.shared.out("owners, set \(set.number): \(owners.joined(separator: " "))")
            Console.shared.out(
                "Other hosts need a fresh 'batchsync key export --host' to seal to them.")
        }
    }
}

struct KeyRemoveCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "Remove a passphrase or an owner.",
        discussion: """
            Removes a passphrase by its name in keys/ (its beginning is enough), or an owner by the recipient age1.... The last of \
            either cannot be removed: to remove a passphrase give a key that stays, of an owner of all that is stored. Who \
            has copied keys/, or an owner's identity, can still read what was stored until now.

                batchsync key remove owner-anna -r /backup/repository
            """)

    @Argument(
        help: ArgumentHelp("A name of 'key list', or age1....", valueName: "key"),
        transform: plainText)
    var key: String

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func perform() throws -> ExitStatus {
        let assembly = Assembly(repository)
        let opened = try assembly.open(.owner)
        guard let host = opened.access.host else {
            throw RepositoryError(.refused, opened.location, "has no encryption, so it has no keys")
        }
        let keys = RepositoryKeys(of: opened)
        guard key.hasPrefix("age1") else {
            var name = key
            // The table shows ids; an object is found by the beginning of its name.
            let matching = try keys.list().filter {
                $0.id.description.hasPrefix(key) && key.count >= 4
            }
            if matching.count == 1 { name = matching[0].name }
            let removed = try keys.remove(name, staying: try assembly.credential(mayAsk: true))
            if output.json {
                JSONOutput.print("key-remove", [("name", .string(removed))])
            } else {
                Console.shared.out("removed \(removed)")
            }
            return .done
        }
        let leaving = try InitCommand.parsed(key)
        guard opened.access.recipients.contains(leaving) else {
            throw RepositoryError(
                .notFound, key, "is not an owner", remedy: "'batchsync key list' shows them")
        }
        let owners = opened.access.recipients.filter { $0 != leaving }
        guard !owners.isEmpty else {
            throw RepositoryError(
                .refused, key, "is the last owner", remedy: "add another one first")
        }
        let remaining = opened.access.owners.filter { owners.contains($0.recipient) }
        guard !remaining.isEmpty else {
            throw RepositoryError(
                .refused, key,
                "cannot be removed with its own identity alone: nobody would prove the owners that stay",
                remedy: "give the --identity of an owner that stays")
        }
        let set = try keys.putRecipients(owners, host: host, provenBy: remaining, now: Assembly.now)
        try assembly.pin(set, of: opened, host: host)
        KeyAddCommand.tell(set, output)
        return .done
    }
}

struct KeyExportCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Write out what another host needs, or the owner's identity.",
        discussion: """
            With --host: the key with which a host backs up into this repository; it opens no content. Needs the owner's \
            passphrase or identity, or the key of this host. 'key accept' takes it on the other host.
            With --owner: the owner's identity, which opens everything, for age and for --identity.

                batchsync key export --host --output host.json -r /backup/repository
            """)

    @Flag(help: "Write the key of a host.") var host = false
    @Flag(help: "Write the owner's identity.") var owner = false

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp("Write a new file instead of standard output.", valueName: "file"))
    var output: PathArgument?

    @OptionGroup(title: "Repository") var repository: RepositoryOptions

    func validate() throws {
        if host == owner { throw ValidationError("say what to write: --host or --owner") }
    }

    func perform() throws -> ExitStatus {
        let assembly = Assembly(repository)
        let opened = try assembly.open(owner ? .owner : .ownerIfGiven)
        let bytes: [UInt8]
        if host {
            bytes = try RepositoryKeys(of: opened).hostConfiguration(opened).bytes
        } else {
            guard !opened.access.owners.isEmpty else {
                throw RepositoryError(
                    .refused, opened.location, "has no encryption, so it has no owner")
            }
            bytes = Array(opened.access.owners.map(Self.identityFile).joined().utf8)
        }
        guard let output else {
            Console.shared.write(bytes)
            return .done
        }
        try HostFile.create(bytes, at: output.bytes)
        Console.shared.out("wrote \(output.display)")
        return .done
    }

    static func identityFile(_ identity: X25519Identity) -> String {
        "# public key: \(identity.recipient.encoded())\n\(identity.encoded())\n"
    }
}

struct KeyAcceptCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "accept",
        abstract: "Take a host key, or confirm the keys of a new repository.",
        discussion: """
            With a file that 'key export --host' wrote ('-' is standard input): keeps it as this host's key. An older set of owners \
            than the one this host has pinned is refused.
            Without a file, with the owner's passphrase or identity: confirms, once, that the keys in a repository made with \
            'init --recipient' are the owner's, after a comparison with the fingerprint that init printed; and gives this \
            host its key.

                batchsync key accept host.json
                batchsync key accept --identity owner.txt -r /backup/repository
            """)

    @Argument(help: "What 'key export --host' wrote.") var file: PathArgument?

    @Option(
        help: ArgumentHelp(
            "The fingerprint that init printed, instead of a question.", valueName: "fingerprint"),
        transform: plainText)
    var fingerprint: String?

    @OptionGroup(title: "Repository") var repository: RepositoryOptions

    func perform() throws -> ExitStatus {
        let assembly = Assembly(repository)
        if let file { return try acceptHostKey(file, assembly) }
        let place = try assembly.openStore()
        let (store, location) = (place.store, place.location)
        let credential = try assembly.credential(mayAsk: true)
        let directories = try assembly.directories()
        func open(_ directories: HostDirectories, acceptUnproven: Bool) throws -> Repository {
            try Repository.open(
                store: store, location: location, credential: credential, needsOwner: true,
                acceptUnproven: acceptUnproven, directories: directories)
        }
        let opened = try open(directories, acceptUnproven: true)
        guard let host = opened.access.host, let owner = opened.access.owners.first else {
            throw RepositoryError(
                .refused, opened.location, "has no encryption, so there is nothing to accept")
        }
        let keys = RepositoryKeys(of: opened)
        let number = opened.access.recipientNumber
        guard
            let set = try keys.recipientSets(try keys.list()).sets.first(where: {
                $0.number == number
            })
        else {
            throw RepositoryError(.damaged, "keys/", "there is no recipient set")
        }
        do {
            // What this host has pinned must not count here: a host that has pinned nothing opens
            // only what an owner has proven.
            let nowhere = HostDirectories(
                configuration: "", cache: directories.cache, state: directories.state)
            _ = try open(nowhere, acceptUnproven: false)
            Console.shared.out("the keys are confirmed already: \(set.fingerprint)")
        } catch let error as RepositoryError where error.kind == .notProven {
            try compare(set)
            try keys.confirm(set, by: owner)
            Console.shared.out("confirmed \(set.fingerprint)")
        }
        try assembly.pin(set, of: opened, host: host)
        return .done
    }

    private func compare(_ set: RecipientSet) throws {
        if let fingerprint {
            guard fingerprint.lowercased() == set.fingerprint else {
                throw CommandError(
                    .wrongKey,
                    "the fingerprint of the keys in the repository is \(set.fingerprint), not the one given",
                    remedy: "somebody may have replaced the keys: compare with what init printed")
            }
            return
        }
        guard PassphraseSource.canAsk else {
            throw CommandError(
                .wrongKey, "nobody is here to compare the fingerprint \(set.fingerprint)",
                remedy: "give the one that init printed: --fingerprint FINGERPRINT")
        }
        Console.shared.flush()
        Console.shared.say("Fingerprint of the keys: \(set.fingerprint)")
        Console.shared.say("Is it the one that init printed? (yes/no)")
        guard readLine() == "yes" else { throw CommandError(.wrongKey, "not confirmed") }
    }

    private func acceptHostKey(_ file: PathArgument, _ assembly: Assembly) throws -> ExitStatus {
        let bytes = try HostFile.read(file.bytes, purpose: "the host key in", maximumBytes: 1 << 20)
        let given = try HostConfiguration(parsing: bytes, path: file.display)
        let path = try assembly.directories().hostKeyPath(given.repository)
        if let known = try LocalFile.read(path, maximumBytes: 1 << 20) {
            let pinned = try HostConfiguration(parsing: known, path: path)
            guard given.recipientNumber >= pinned.recipientNumber else {
                throw RepositoryError(
                    .notProven, file.display,
                    "is older (set \(given.recipientNumber)) than what this host has pinned (set \(pinned.recipientNumber))",
                    remedy: "fetch a fresh one: batchsync key export --host")
            }
            guard given.configDigest == pinned.configDigest, given.identity == pinned.identity
            else {
                throw RepositoryError(
                    .notProven, file.display, "contradicts what this host has pinned in \(path)",
                    remedy:
                        "find out which of the two is right; move \(path) away to take the new one")
            }
        }
        // Where a repository is named, the key must be one of it.
        if repository.repository != nil || RawArguments.environment("BATCHSYNC_REPOSITORY") != nil {
            let place = try assembly.openStore()
            let (store, location) = (place.store, place.location)
            let (config, digest) = try Repository.readConfig(store: store, location: location)
            guard config.repository == given.repository, digest == given.configDigest else {
                throw RepositoryError(
                    .notProven, file.display, "is the key of another repository than \(location)")
            }
        }
        try LocalFile.write(given.bytes, to: path)
        Console.shared.out("host key of repository \(given.repository.short): \(path)")
        return .done
    }
}

struct KeyGenerateCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "generate", abstract: "Make an owner's identity, as age-keygen does.",
        discussion: """
            Make it on the machine where it is to stay, and give its public half to 'init --recipient' elsewhere. Whoever has the \
            file can read the repository.

                batchsync key generate --output owner.txt
            """)

    @Option(
        name: .shortAndLong,
        help: ArgumentHelp("Write a new file instead of standard output.", valueName: "file"))
    var output: PathArgument?

    func perform() throws -> ExitStatus {
        let identity = X25519Identity()
        let bytes = Array(KeyExportCommand.identityFile(identity).utf8)
        guard let output else {
            Console.shared.write(bytes)
            return .done
        }
        try HostFile.create(bytes, at: output.bytes)
        Console.shared.out("public key: \(identity.recipient.encoded())")
        return .done
    }
}

extension Assembly {
    fileprivate func pinned(_ config: RepositoryConfig) throws -> HostConfiguration? {
        let path = try directories().hostKeyPath(config.repository)
        guard let bytes = try LocalFile.read(path, maximumBytes: 1 << 20) else { return nil }
        return try HostConfiguration(parsing: bytes, path: path)
    }

    /// Pins a set on this host, by the user's own word.
    fileprivate func pin(_ set: RecipientSet, of repository: Repository, host: HostKey) throws {
        let configuration = HostConfiguration(
            repository: repository.id, configDigest: repository.configDigest,
            identity: host.identity,
            recipientNumber: set.number, owners: set.owners)
        try LocalFile.write(configuration.bytes, to: directories().hostKeyPath(repository.id))
    }
}
