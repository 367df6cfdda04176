import Glibc
import Profiles
import SnapshotModel
import SnapshotRepository

extension SecretReference {
    /// The secret itself; a line end at its end is cut. Never to be shown or logged.
    ///
    /// - Parameter purpose: What it is, for errors: `the passphrase`.
    func text(_ purpose: String) throws(CommandError) -> [UInt8] {
        var bytes: [UInt8]
        switch self {
        case .environment(let name):
            guard let value = RawArguments.environment(name) else {
                throw CommandError(
                    .wrongKey, "\(purpose) is to come from the variable \(name), which is not set",
                    remedy: "set it, or change the profile")
            }
            bytes = value
        case .file(let path):
            bytes = try HostFile.read(
                Array(path.utf8), purpose: "\(purpose) from", maximumBytes: 1 << 20)
        case .command(let line):
            bytes = try ShellOutput.of(Array(line.utf8), purpose: purpose)
        case .credential(let name):
            guard let directory = RawArguments.environment("CREDENTIALS_DIRECTORY") else {
                throw CommandError(
                    .wrongKey,
                    "\(purpose) is to come from the systemd credential \(name), and systemd has handed over none",
                    remedy:
                        "run the profile by its systemd unit, which 'batchsync schedule install' writes"
                )
            }
            bytes = try HostFile.read(
                directory + Array("/\(name)".utf8), purpose: "\(purpose) from",
                maximumBytes: 1 << 20)
        }
        if bytes.last == 0x0A { bytes.removeLast() }
        if bytes.last == 0x0D { bytes.removeLast() }
        guard !bytes.isEmpty else {
            throw CommandError(.wrongKey, "\(purpose) is empty", remedy: "\(self) holds no text")
        }
        return bytes
    }

    /// The same as a word of an HTTP request.
    func word(_ purpose: String) throws(CommandError) -> String {
        let bytes = try text(purpose)
        guard bytes.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }), UTF8Text.isValid(bytes) else {
            throw CommandError(
                .wrongKey, "\(purpose) holds bytes that are no text",
                remedy: "see what \(self) gives")
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

extension ReferenceOrText {
    func word(_ purpose: String) throws(CommandError) -> String {
        switch self {
        case .text(let text): text
        case .reference(let reference): try reference.word(purpose)
        }
    }
}

extension Profile {
    /// What the profile names to open content with; nil where it names nothing.
    func ownerCredential() throws -> OwnerCredential? {
        if let reference = credentials.identity {
            return .identities(
                try Assembly.identities(
                    try reference.text("the owner's identity"), from: reference.description))
        }
        if let reference = credentials.passphrase {
            return .passphrase(try reference.text("the passphrase"))
        }
        return nil
    }
}
