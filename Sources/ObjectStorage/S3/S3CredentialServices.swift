import SnapshotModel
import Transfer

/// Credentials that a container is given by the host that runs it
/// (`AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, `AWS_CONTAINER_CREDENTIALS_FULL_URI`).
struct S3ContainerCredentials: S3CredentialSource {
    let surroundings: AWSSurroundings

    /// Where the service of Amazon's container hosts listens.
    private static let host = "http://169.254.170.2"
    /// Hosts to which a request may go unencrypted: this one, and those of the services themselves.
    private static let plainHosts = [
        "127.0.0.1", "localhost", "[::1]", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]",
    ]

    func find() throws(S3CredentialsError) -> S3Credentials? {
        guard let url = try url() else { return nil }
        let origin = "the container's credentials service"
        var request = TransferRequest("GET", url)
        if let token = try token() { request.headers = [("Authorization", token)] }
        let document = try CredentialService.document(
            surroundings.engine, request, origin: origin)
        return try S3Credentials(document: document, token: "Token", origin: origin)
    }

    private func url() throws(S3CredentialsError) -> String? {
        if let path = surroundings.environment["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] {
            return S3ContainerCredentials.host + (path.hasPrefix("/") ? path : "/\(path)")
        }
        guard let url = surroundings.environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] else {
            return nil
        }
        if url.hasPrefix("https://") { return url }
        let authority = url.dropFirst("http://".count).prefix { !"/?#".contains($0) }
        let isAllowed = S3ContainerCredentials.plainHosts.contains { host in
            authority == host || authority.hasPrefix(host + ":")
        }
        guard url.hasPrefix("http://"), isAllowed else {
            throw S3CredentialsError(
                "AWS_CONTAINER_CREDENTIALS_FULL_URI names a host to which credentials would travel"
                    + " in the clear",
                hint: "use https, or a service on this host")
        }
        return url
    }

    private func token() throws(S3CredentialsError) -> String? {
        guard let path = surroundings.environment["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] else {
            return surroundings.environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        }
        switch surroundings.environment.readFile(path) {
        case .bytes(let bytes):
            return String(String(decoding: bytes, as: UTF8.self).filter { !$0.isNewline })
        case .missing:
            throw S3CredentialsError(
                "\(path) is missing", hint: "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE names it")
        case .unreadable(let reason):
            throw S3CredentialsError(
                "cannot read \(path): \(reason)", hint: "make it readable for this user")
        }
    }
}

/// Credentials of the machine itself, from the metadata service of Amazon's cloud (IMDSv2).
struct S3InstanceCredentials: S3CredentialSource {
    let surroundings: AWSSurroundings

    private static let path = "/latest/meta-data/iam/security-credentials/"

    func find() throws(S3CredentialsError) -> S3Credentials? {
        if surroundings.environment["AWS_EC2_METADATA_DISABLED"]?.lowercased() == "true" {
            return nil
        }
        var service =
            surroundings.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
            ?? "http://169.254.169.254"
        while service.hasSuffix("/") { service.removeLast() }
        guard let token = try token(service) else { return nil }
        let origin = "the role of this machine"
        let headers = [(name: "x-aws-ec2-metadata-token", value: token)]
        let path = service + S3InstanceCredentials.path
        // One line with the name of the role; nothing where the machine has none.
        guard
            let roles = try CredentialService.body(
                surroundings.engine, TransferRequest("GET", path, headers: headers),
                origin: origin),
            let role = String(decoding: roles, as: UTF8.self)
                .split(whereSeparator: \.isNewline).first
        else { return nil }
        let document = try CredentialService.document(
            surroundings.engine,
            TransferRequest("GET", path + URLText.encoded(role), headers: headers), origin: origin)
        if let code = document["Code"]?.string, code != "Success" {
            throw S3CredentialsError(
                "\(origin), \(role), gives no credentials: \(code)",
                hint: "check the role that the machine was given", isTransient: true)
        }
        return try S3Credentials(
            document: document, token: "Token", origin: "\(origin), \(role)")
    }

    /// Nil where no such service answers: this is no machine in Amazon's cloud, or it gives nothing
    /// to programs that run in a container on it.
    private func token(_ service: String) throws(S3CredentialsError) -> String? {
        var request = TransferRequest(
            "PUT", service + "/latest/api/token",
            headers: [("x-aws-ec2-metadata-token-ttl-seconds", "21600")], body: .bytes([]))
        CredentialService.makeImpatient(&request)
        guard let response = try? surroundings.engine.perform(request), response.isSuccess,
            !response.body.isEmpty
        else { return nil }
        return String(decoding: response.body, as: UTF8.self)
    }
}

/// How services near at hand are asked for credentials.
private enum CredentialService {
    /// They answer at once or not at all, and no proxy stands before them.
    static func makeImpatient(_ request: inout TransferRequest) {
        request.usesProxy = false
        request.connectSeconds = 1
        request.stallSeconds = 3
        request.deadlineSeconds = 6
    }

    static func document(
        _ engine: TransferEngine, _ request: TransferRequest, origin: String
    ) throws(S3CredentialsError) -> JSONValue {
        guard let bytes = try body(engine, request, origin: origin) else {
            throw S3CredentialsError(
                "\(origin) has no credentials", hint: "check what it was given")
        }
        guard let document = JSONValue(parsing: bytes) else {
            throw S3CredentialsError(
                "\(origin) answered something else than JSON", hint: "see what it answers",
                isTransient: true)
        }
        return document
    }

    /// Nil where the service has no such thing.
    static func body(
        _ engine: TransferEngine, _ request: TransferRequest, origin: String
    ) throws(S3CredentialsError) -> [UInt8]? {
        var request = request
        makeImpatient(&request)
        do throws(TransferError) {
            let response = try engine.perform(request)
            if response.status == 404 { return nil }
            guard response.isSuccess else {
                throw TransferError(
                    .login, "it answered \(response.status)",
                    isTransient: response.status >= 500 || response.status == 429)
            }
            return response.body
        } catch {
            throw S3CredentialsError(
                "\(origin) gives no credentials: \(error.text)", hint: "see why it does not answer",
                isTransient: error.isTransient)
        }
    }
}
