import AgeEncryption
import ArgumentParser
import ObjectStorage
import Profiles
import Replication
import SnapshotModel
import SnapshotRepository

struct InitCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "init",
        abstract: "Make a new repository.",
        discussion: """
            Makes a repository in a directory, on an SFTP server or in an S3 bucket, in a place that is new or empty, and the key \
            with which this host backs up into it.

            By default the repository is encrypted with a passphrase, which is asked for twice, or with the one that the profile (-p) names. Nothing brings the data \
            back once the passphrase is lost. With --recipient the owner's key stays on another machine, where age-keygen \
            or 'batchsync key generate' made it; that machine is then needed to read anything.

                batchsync init -r /backup/repository
                batchsync init -r /backup/repository --recipient age1...

                batchsync init -r sftp://backup@nas/srv/batchsync

            With --replica-of the place becomes a second store of a repository that exists: the same id and the same keys, and \
            nothing in it yet. A backup with --replica goes to both; what a store lacks it gets from the other.

                batchsync init --replica-of /backup/repository -r s3://bucket/prefix

            The repository gets RECOVER.md and recover.py, which restore it without batchsync.
            """)

    @OptionGroup(title: "Repository") var repository: RepositoryOptions

    @Option(
        help: ArgumentHelp(
            "Encrypt for this owner instead of with a passphrase. May be given several times.",
            valueName: "age1..."))
    var recipient: [String] = []

    @Flag(help: "Do not encrypt. Whoever can read the directory can read everything.")
    var noEncryption = false

    @Option(
        help: ArgumentHelp(
            "Least hours between condemning and deleting an object. Fixed for ever.",
            discussion:
                "A backup that takes longer looks again before it commits. With 0 prune deletes at once, and no backup may run meanwhile: it would have to begin anew.",
            valueName: "hours"))
    var graceHours = 24

    @Option(
        help: ArgumentHelp(
            "Make a second store of this repository instead of a new one.",
            valueName: "repository"))
    var replicaOf: PathArgument?

    @Flag(
        name: .shortAndLong,
        help: "Say nothing but errors, and the fingerprint that an owner has to confirm.")
    var quiet = false

    @OptionGroup(title: "Output") var output: PrintOptions

    var wantsJSON: Bool { output.json }

    func validate() throws {
        if noEncryption && !recipient.isEmpty {
            throw ValidationError("--no-encryption and --recipient contradict each other")
        }
        if !repository.identity.isEmpty {
            throw ValidationError(
                "a new repository needs no identity; --recipient says who can read it")
        }
        if replicaOf != nil && (noEncryption || !recipient.isEmpty) {
            throw ValidationError("a replica has the keys of the repository that it belongs to")
        }
        guard (0...8760).contains(graceHours) else {
            throw ValidationError("--grace-hours takes 0 to 8760 hours")
        }
    }

    func perform() throws -> ExitStatus {
        let assembly = Assembly(repository)
        let location = try assembly.location()
        if LocalFile.exists(location + "/config.json") {
            throw RepositoryError(
                .exists, location, "is already a repository",
                remedy: "choose another place, or use this one as it is")
        }
        if let replicaOf {
            return try makeReplica(
                of: try Assembly.text(replicaOf.bytes, of: "a repository"), assembly)
        }
        let protection = try protection(assembly, location)
        let opened = try assembly.createStore()
        let created = try Repository.create(
            store: opened.store, location: location, protection: protection, now: Assembly.now,
            graceSeconds: graceHours * 3600, directories: try assembly.directories())
        if output.json {
            JSONOutput.print(
                "init",
                [
                    ("repository", .string(created.repository.id.description)),
                    ("location", .string(location)),
                    ("encryption", .string(created.repository.config.isEncrypted ? "age" : "none")),
                    ("host_key", .optional(created.hostKeyPath)),
                    ("recover_sha256", .string(created.recoverDigest.description)),
                    ("fingerprint", .optional(created.unprovenFingerprint)),
                ])
        } else if !quiet {
            tell(created, location)
        } else if let fingerprint = created.unprovenFingerprint {
            Console.shared.out("Fingerprint of the keys: \(fingerprint)")
        }
        return .done
    }

    private func makeReplica(of first: String, _ assembly: Assembly) throws -> ExitStatus {
        let repository = try assembly.open(
            .hostKey, in: try assembly.openStore(try assembly.opener(first)))
        let opened = try assembly.createStore()
        let replica = try repository.createReplica(in: opened.store, location: opened.location)
        if output.json {
            JSONOutput.print(
                "init",
                [
                    ("repository", .string(replica.id.description)),
                    ("location", .string(opened.location)), ("replica_of", .string(first)),
                    ("encryption", .string(replica.config.isEncrypted ? "age" : "none")),
                ])
        } else if !quiet {
            let console = Console.shared
            console.out("made \(opened.location) a second store of repository \(replica.id.short)")
            console.out("It is empty. The next backup to both brings it what there is:")
            console.out("  batchsync backup -r \(first) --replica \(opened.location) PATH...")
        }
        return .done
    }

    private func protection(_ assembly: Assembly, _ location: String) throws
        -> Repository.Protection
    {
        if noEncryption { return .none }
        if !recipient.isEmpty {
            return .recipients(try recipient.map { try Self.parsed($0) })
        }
        let passphrases = assembly.passphrases
        if passphrases.isNamed, let passphrase = try passphrases.given() {
            return .passphrase(passphrase)
        }
        // The one with which the profile's runs open the repository, before what happens to be in
        // the environment.
        if let reference = try assembly.profile()?.credentials.passphrase {
            return .passphrase(try reference.text("the passphrase"))
        }
        if let passphrase = try passphrases.given() { return .passphrase(passphrase) }
        guard PassphraseSource.canAsk else {
            throw CommandError(
                .wrongKey, "there is no passphrase for the new repository",
                remedy:
                    "set BATCHSYNC_PASSPHRASE, give --passphrase-file FILE, or choose --recipient or --no-encryption"
            )
        }
        return .passphrase(try PassphraseSource.askForNew("passphrase for \(location)"))
    }

    static func parsed(_ text: String) throws -> X25519Recipient {
        do {
            return try X25519Recipient(parsing: text)
        } catch {
            throw CommandError.usage(
                "'\(RawArguments.display(text))' is not an age recipient: \(error.cause)",
                remedy:
                    "a recipient begins with age1; age-keygen and 'batchsync key generate' print one"
            )
        }
    }

    private func tell(_ created: Repository.Created, _ location: String) {
        let console = Console.shared
        console.out("made repository \(created.repository.id.short) in \(location)")
        guard let path = created.hostKeyPath else {
            console.out("It is not encrypted: whoever can read the directory can read everything.")
            console.out("SHA-256 of recover.py: \(created.recoverDigest)")
            return
        }
        console.out("host key: \(path)")
        console.out("SHA-256 of recover.py: \(created.recoverDigest)")
        console.out()
        if let fingerprint = created.unprovenFingerprint {
            console.out("Fingerprint of the keys: \(fingerprint)")
            console.out("Keep it. Where the owner's identity is, confirm it once:")
            console.out("  batchsync key accept --identity FILE -r REPOSITORY")
            console.out("Nothing here opens what is stored; without the identity the data is lost.")
        } else {
            console.out("Write the passphrase down: without it the data is lost.")
        }
        console.out("Keep a copy of \(location)/keys elsewhere: without it the data is lost, too.")
    }
}
