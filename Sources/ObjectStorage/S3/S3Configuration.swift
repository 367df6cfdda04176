/// What the user said, the environment and the AWS files say together: where the service is, and
/// who asks.
///
/// What the user said in so many words goes first, then the environment, then the profile. Source:
/// the AWS SDKs and tools reference guide.
package struct S3Configuration: Sendable {
    /// What the user said in so many words.
    package struct Explicit: Sendable {
        package var endpoint: String?
        package var region: String?
        package var style: S3Location.Style?
        /// A profile of the AWS files.
        package var profile: String?
        package var credentials: S3Credentials?

        package init() {}
    }

    /// Nil for Amazon's own.
    package let endpoint: S3Endpoint?
    package let region: String
    package let style: S3Location.Style
    /// A file of certificates to trust; nil where nobody names one.
    package let caFile: String?
    private let explicit: Explicit

    package static func read(
        _ explicit: Explicit, _ environment: AWSEnvironment
    ) throws(StorageError) -> S3Configuration {
        let profile: AWSProfile
        do throws(S3CredentialsError) {
            profile = try AWSProfile.read(explicit.profile, environment)
        } catch {
            throw StorageError(
                .denied, .open, location: "", cause: error.cause, hint: error.hint)
        }
        let isIgnored =
            environment["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"]?.lowercased() == "true"
        let configured =
            environment["AWS_ENDPOINT_URL_S3"]
            ?? environment["AWS_ENDPOINT_URL"] ?? profile.endpoint
        let endpoint = explicit.endpoint ?? (isIgnored ? nil : configured)
        return S3Configuration(
            endpoint: try endpoint.map { (text) throws(StorageError) in try S3Endpoint(text) },
            region: explicit.region ?? environment["AWS_REGION"]
                ?? environment["AWS_DEFAULT_REGION"] ?? profile["region"]
                ?? S3Location.defaultRegion,
            style: explicit.style
                ?? profile.addressingStyle.flatMap { S3Location.Style(rawValue: $0) } ?? .auto,
            caFile: (environment["AWS_CA_BUNDLE"] ?? profile["ca_bundle"]
                ?? environment["SSL_CERT_FILE"])
                .map { environment.expanded($0) },
            explicit: explicit)
    }

    /// Where the credentials are looked for, in this order: what was said, the environment, the
    /// profile, the container, the machine. A profile that was named in so many words goes before
    /// the environment.
    package func credentials(_ surroundings: AWSSurroundings) -> any S3CredentialSource {
        if let credentials = explicit.credentials { return S3FixedCredentials(credentials) }
        let profile = S3ProfileCredentials(name: explicit.profile, surroundings: surroundings)
        if explicit.profile != nil { return profile }
        return S3CredentialChain(sources: [
            S3EnvironmentCredentials(environment: surroundings.environment), profile,
            S3ContainerCredentials(surroundings: surroundings),
            S3InstanceCredentials(surroundings: surroundings),
        ])
    }
}
