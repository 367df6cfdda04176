import SnapshotModel

/// Looks in one place after another, and takes what it finds first.
struct S3CredentialChain: S3CredentialSource {
    let sources: [any S3CredentialSource]

    func find() throws(S3CredentialsError) -> S3Credentials? {
        for source in sources {
            if let found = try source.find() { return found }
        }
        return nil
    }
}

/// Credentials that somebody named in so many words.
package struct S3FixedCredentials: S3CredentialSource {
    private let credentials: S3Credentials?

    package init(_ credentials: S3Credentials?) { self.credentials = credentials }

    package func find() throws(S3CredentialsError) -> S3Credentials? { credentials }
}

/// `AWS_ACCESS_KEY_ID` and its kin.
struct S3EnvironmentCredentials: S3CredentialSource {
    let environment: AWSEnvironment

    func find() throws(S3CredentialsError) -> S3Credentials? {
        let keyID = environment["AWS_ACCESS_KEY_ID"]
        let secret = environment["AWS_SECRET_ACCESS_KEY"]
        guard let keyID, let secret else {
            guard keyID == nil && secret == nil else {
                let (has, lacks) =
                    keyID == nil
                    ? ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")
                    : ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
                throw S3CredentialsError(
                    "\(has) is set, but \(lacks) is not", hint: "set both, or neither")
            }
            return nil
        }
        return S3Credentials(
            keyID: keyID, secret: secret,
            sessionToken: environment["AWS_SESSION_TOKEN"],
            origin: "the environment (AWS_ACCESS_KEY_ID)")
    }
}

/// What a profile holds, or what the command prints that it names. Read anew each time, so that
/// credentials renewed in the file are found.
struct S3ProfileCredentials: S3CredentialSource {
    /// Nil for the one that the environment names.
    let name: String?
    let surroundings: AWSSurroundings

    func find() throws(S3CredentialsError) -> S3Credentials? {
        let profile = try AWSProfile.read(name, surroundings.environment)
        guard profile.exists else {
            guard profile.name == "default" else {
                throw S3CredentialsError(
                    "there is no profile \(profile.name) in the AWS configuration",
                    hint: "check AWS_PROFILE; profiles stand in ~/.aws/config and"
                        + " ~/.aws/credentials")
            }
            return nil
        }
        if let keyID = profile["aws_access_key_id"] {
            guard let secret = profile["aws_secret_access_key"] else {
                throw S3CredentialsError(
                    "the profile \(profile.name) has an access key without its secret key",
                    hint: "add aws_secret_access_key to it in \(profile.credentialsPath)")
            }
            return S3Credentials(
                keyID: keyID, secret: secret, sessionToken: profile["aws_session_token"],
                origin: "the profile \(profile.name) of \(profile.credentialsPath)")
        }
        if let line = profile["credential_process"] { return try ask(line, profile) }
        let others = ["role_arn", "sso_session", "sso_start_url", "login_session"]
        if let setting = others.first(where: { profile[$0] != nil }) {
            throw S3CredentialsError(
                "the profile \(profile.name) gets its credentials by \(setting), which is not"
                    + " understood here",
                hint: "make another profile with the line: credential_process = aws configure"
                    + " export-credentials --profile \(profile.name)")
        }
        return nil
    }

    private func ask(
        _ line: String, _ profile: AWSProfile
    ) throws(S3CredentialsError) -> S3Credentials {
        let origin = "the credential_process of the profile \(profile.name)"
        switch surroundings.run(line) {
        case .failure(let failure):
            throw S3CredentialsError(
                "\(origin) failed: \(failure.text)", hint: "run it by hand to see why",
                isTransient: true)
        case .success(let bytes):
            guard let document = JSONValue(parsing: bytes) else {
                throw S3CredentialsError(
                    "\(origin) printed something else than JSON", hint: "run it by hand to see why"
                )
            }
            guard document["Version"]?.integer == 1 else {
                throw S3CredentialsError(
                    "\(origin) printed credentials of another version than 1",
                    hint: "use a command that prints version 1")
            }
            return try S3Credentials(
                document: document, token: "SessionToken", origin: origin)
        }
    }
}

extension S3Credentials {
    /// Reads the form in which commands and services give credentials.
    ///
    /// - Parameter token: How the session token is called there.
    init(document: JSONValue, token: String, origin: String) throws(S3CredentialsError) {
        guard let keyID = document["AccessKeyId"]?.string, !keyID.isEmpty,
            let secret = document["SecretAccessKey"]?.string, !secret.isEmpty
        else {
            throw S3CredentialsError(
                "\(origin) gave no access key", hint: "see what it gives", isTransient: true)
        }
        var expiration: Int64?
        if let text = document["Expiration"]?.string {
            expiration = StoreTime.seconds(iso8601: text)
            if expiration == nil {
                throw S3CredentialsError(
                    "\(origin) gave an end of the credentials that is no time: \(text)",
                    hint: "it must look like 2026-11-26T19:32:36Z")
            }
        }
        self.init(
            keyID: keyID, secret: secret, sessionToken: document[token]?.string,
            expiration: expiration, origin: origin)
    }
}
