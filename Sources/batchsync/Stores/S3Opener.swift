import ObjectStorage
import SnapshotModel
import Transfer

extension StoreOpener {
    /// Keys that the user's profile gives, or the variables of the environment.
    private struct GivenCredentials: S3CredentialSource {
        let credentials: S3Credentials?
        func find() throws(S3CredentialsError) -> S3Credentials? { credentials }
    }

    private func credentialSource() throws(CommandError) -> any S3CredentialSource {
        let id = access.accessKeyID ?? Assembly.variable("AWS_ACCESS_KEY_ID")
        let secret = access.secretAccessKey ?? Assembly.variable("AWS_SECRET_ACCESS_KEY")
        guard let id, let secret else {
            throw CommandError(
                .failed, "\(location): there are no keys for the service",
                remedy: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name them in a profile"
            )
        }
        return GivenCredentials(
            credentials: S3Credentials(
                keyID: id, secret: secret,
                sessionToken: access.sessionToken ?? Assembly.variable("AWS_SESSION_TOKEN"),
                origin: access.accessKeyID == nil ? "the environment" : "the profile"))
    }

    private func s3Location(_ address: String) throws -> S3Location {
        let endpoint =
            try
            (access.endpoint ?? Assembly.variable("AWS_ENDPOINT_URL_S3")
            ?? Assembly.variable("AWS_ENDPOINT_URL")).map { (text) throws in try S3Endpoint(text) }
        let region =
            access.region ?? Assembly.variable("AWS_REGION")
            ?? Assembly.variable("AWS_DEFAULT_REGION") ?? S3Location.defaultRegion
        let style: S3Location.Style =
            switch access.addressing {
            case "path": .path
            case "virtual", "virtual-host": .virtual
            default: .auto
            }
        return try S3Location.parse(address, endpoint: endpoint, region: region, style: style)
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
        let place = try s3Location(address)
        var transfer = TransferEngine.Options()
        transfer.caFile =
            access.caFile ?? Assembly.variable("AWS_CA_BUNDLE")
            ?? Assembly.variable("SSL_CERT_FILE")
        transfer.userAgent = Assembly.program
        let options = try s3Options()
        let engine = TransferEngine(transfer)
        let credentials = try credentialSource()
        func store(_ traits: S3Traits?) -> S3Store {
            S3Store.open(
                place, options: options, credentials: credentials, engine: engine,
                traits: traits ?? S3Traits(), counter: counter, spoolDirectory: spoolDirectory)
        }
        var known = memory.s3Traits.map { S3Traits(text: $0) }
        let first = store(known)
        if creating {
            try whenOnline { () throws(StorageError) in try first.createBucketIfMissing() }
        }
        // What a host that only reads does not know costs it nothing but comparisons.
        if known == nil, creating || access.mayWrite {
            let number = UInt64.random(in: 0 ... .max)
            let found = try whenOnline { () throws(StorageError) in
                try first.probe(below: "probe-\(String(number, radix: 16))/")
            }
            memory.s3Traits = found.text
            memory.save()
            known = found
        }
        return wrapRemote(store(known), memory: memory, maximum: Self.mostCallsToS3)
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
