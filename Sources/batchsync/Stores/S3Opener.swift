import ObjectStorage
import SnapshotModel
import Transfer

extension StoreOpener {
    /// Keys that the user's profile gives, or the variables of the environment.
    private struct GivenCredentials: S3CredentialSource {
        let credentials: S3Credentials?
        func find() throws(S3CredentialsError) -> S3Credentials? { credentials }
    }

    private func credentialSource() -> any S3CredentialSource {
        let id = access.accessKeyID ?? Assembly.variable("AWS_ACCESS_KEY_ID")
        let secret = access.secretAccessKey ?? Assembly.variable("AWS_SECRET_ACCESS_KEY")
        guard let id, let secret else { return GivenCredentials(credentials: nil) }
        return GivenCredentials(
            credentials: S3Credentials(
                keyID: id, secret: secret,
                sessionToken: access.sessionToken ?? Assembly.variable("AWS_SESSION_TOKEN"),
                origin: "the environment"))
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

    func s3(_ address: String, creating: Bool) throws -> OpenedStore {
        let memory = StoreMemory(location, directories: directories)
        let place = try s3Location(address)
        var transfer = TransferEngine.Options()
        transfer.caFile =
            access.caFile ?? Assembly.variable("AWS_CA_BUNDLE")
            ?? Assembly.variable("SSL_CERT_FILE")
        transfer.userAgent = Assembly.program
        var options = S3Options()
        options.isCancelled = { Signals.haveArrived }
        let store = S3Store.open(
            place, options: options, credentials: credentialSource(),
            engine: TransferEngine(transfer),
            traits: memory.s3Traits.map { S3Traits(text: $0) } ?? S3Traits(), counter: counter,
            spoolDirectory: spoolDirectory)
        return wrapRemote(store, memory: memory, maximum: Self.mostCallsToS3)
    }
}
