import ObjectStorage
import SnapshotModel
import Transfer

extension StoreOpener {
    /// What the options or the profile say, the environment and the files of the AWS tools.
    private func s3Configuration(
        _ environment: AWSEnvironment
    ) throws(StorageError) -> S3Configuration {
        var explicit = S3Configuration.Explicit()
        explicit.endpoint = access.endpoint
        explicit.region = access.region
        explicit.profile = access.awsProfile
        explicit.style =
            switch access.addressing {
            case "path": .path
            case "virtual", "virtual-host": .virtual
            default: nil
            }
        if let keyID = access.accessKeyID, let secret = access.secretAccessKey {
            explicit.credentials = S3Credentials(
                keyID: keyID, secret: secret, sessionToken: access.sessionToken,
                origin: "the profile of batchsync")
        }
        return try S3Configuration.read(explicit, environment)
    }

    /// Runs a `credential_process`.
    private static func run(_ line: String) -> Result<[UInt8], AWSCommandFailure> {
        do throws(CommandError) {
            return .success(try ShellOutput.of(Array(line.utf8), purpose: "the credentials"))
        } catch {
            return .failure(AWSCommandFailure("it gives no credentials"))
        }
    }

    private func s3Options() throws(CommandError) -> S3Options {
        var options = S3Options()
        options.isCancelled = { Signals.haveArrived }
        if let name = access.storageClasses["bundles"] { options.storageClasses["bundles/"] = name }
        if let name = access.storageClasses["records"] { options.storageClasses[""] = name }
        if let words = access.serverSideEncryption {
            guard let encryption = S3Options.ServerSideEncryption(words: words) else {
                throw .usage(
                    "'\(words)' is no encryption of an S3 service",
                    remedy: "write AES256, aws:kms or aws:kms:KEY")
            }
            options.encryption = encryption
        }
        if let words = access.objectLock {
            guard let retention = S3Options.Retention(words: words) else {
                throw .usage(
                    "'\(words)' is no retention", remedy: "write GOVERNANCE:30d or COMPLIANCE:30d")
            }
            options.retention = retention
        }
        return options
    }

    func s3(_ address: String, creating: Bool) throws -> OpenedStore {
        var memory = StoreMemory(location, directories: directories)
        let environment = AWSEnvironment(variables: RawArguments.variables)
        let configuration = try s3Configuration(environment)
        let place = try S3Location.parse(
            address, endpoint: configuration.endpoint, region: configuration.region,
            style: configuration.style)
        var transfer = TransferEngine.Options()
        transfer.caFile = access.caFile ?? configuration.caFile
        transfer.userAgent = Assembly.program
        let options = try s3Options()
        let engine = TransferEngine(transfer)
        let credentials = configuration.credentials(
            AWSSurroundings(environment: environment, engine: engine, run: Self.run))
        func store(_ traits: S3Traits) -> S3Store {
            var traits = traits
            if traits.region == nil { traits.region = memory.s3Region }
            return S3Store.open(
                place, options: options, credentials: credentials, engine: engine,
                traits: traits, counter: counter, spoolDirectory: spoolDirectory)
        }
        var known = memory.s3Traits.map { S3Traits(text: $0) }
        let first = store(known ?? S3Traits())
        if creating {
            _ = try whenOnline { () throws(StorageError) in try first.createBucketIfMissing() }
        }
        // What a host that only reads does not know costs it the comparisons of a few objects only:
        // a listed ETag that is the MD5 proves the object, whatever is known of the service.
        if known == nil || access.triesAnew, creating || access.mayWrite {
            let number = UInt64.random(in: 0 ... .max)
            let found = try whenOnline { () throws(StorageError) in
                try first.probe(below: "probe-\(String(number, radix: 16))/")
            }
            memory.s3Traits = found.text
            memory.save()
            known = found
        }
        let settled = known.map { store($0) } ?? first
        var opened = wrapRemote(settled, memory: memory, maximum: Self.mostCallsToS3)
        opened.region = { settled.traits.region }
        return opened
    }
}

extension S3Options.ServerSideEncryption {
    /// `AES256`, `aws:kms` or `aws:kms:KEY`.
    fileprivate init?(words: String) {
        switch words {
        case "AES256": self = .serviceKeys
        case "aws:kms": self = .managedKey(nil)
        default:
            guard words.hasPrefix("aws:kms:"), words.count > 8 else { return nil }
            self = .managedKey(String(words.dropFirst(8)))
        }
    }
}

extension S3Options.Retention {
    /// A mode, a colon and a number of days: `GOVERNANCE:30d`.
    fileprivate init?(words: String) {
        let parts = words.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, let mode = Mode(rawValue: parts[0].uppercased()) else { return nil }
        let number = parts[1].hasSuffix("d") ? parts[1].dropLast() : parts[1]
        guard let days = Int(number), (1...36_500).contains(days) else { return nil }
        self.init(mode: mode, days: days)
    }
}
