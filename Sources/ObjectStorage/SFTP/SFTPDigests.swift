import SnapshotModel
import Synchronization

/// SHA-256 sums that the server computes itself, where the account has a shell.
///
/// `sha256sum` is run over ssh in the store's directory, by `xargs`, which takes the names from its
/// input: so neither their number nor a shell's rules bound what can be asked. The directory alone
/// stands in the command line, quoted. Each line of the answer must be one of the names that were
/// asked for with 64 digits before it; anything else ends the attempt.
extension SFTPStore {
    package func digests(
        of keys: [ObjectKey], _ body: (ObjectKey, [UInt8]) -> Bool
    ) throws(StorageError) {
        let subject = subject(.head)
        guard options.hashesRemotely else {
            throw StorageError(
                .unsupported, .head, location: address,
                cause: "the server is not to run commands for this account",
                hint: "allow it by --remote-hash if the account has a shell")
        }
        for start in stride(from: 0, to: keys.count, by: SFTPStore.digestsAtOnce) {
            let part = keys[start..<min(keys.count, start + SFTPStore.digestsAtOnce)]
            options.traffic.count(.head)
            let lines = try hashRemotely(part, subject)
            var asked = Set(part)
            for line in lines {
                guard let (key, digest) = SFTPStore.parseDigest(line), asked.remove(key) != nil
                else {
                    throw subject.failure(
                        .io, "the server's sha256sum answers \"\(printable(line.prefix(100)))\"")
                }
                guard body(key, digest) else { return }
            }
        }
    }

    /// So many that starting a command costs nothing beside the reading, and so few that an answer
    /// is never long in coming.
    private static let digestsAtOnce = 500

    /// Runs the command and gives the lines it prints, in any order.
    private func hashRemotely(
        _ keys: some Sequence<ObjectKey>, _ subject: StorageSubject
    ) throws(StorageError) -> [ArraySlice<UInt8>] {
        let process: SSHProcess
        let command = try hashCommand(subject)
        do throws(SSHFailure) {
            process = try SSHProcess(
                options.command.arguments(
                    for: location, remote: .command(command), mayAsk: options.mayAsk,
                    acceptsNewHostKey: options.acceptsNewHostKey))
        } catch {
            throw subject.failure(error)
        }
        let names = keys.flatMap { Array("./\($0)\n".utf8) }
        let output = SFTPStore.exchange(names, with: process)
        let code = process.end(waitMilliseconds: 10_000)
        // sha256sum fails where an object is missing, which xargs reports by 123; the others are
        // told all the same.
        guard code == 0 || code == 123 else {
            throw hashFailure(code, process.saidErrors, subject)
        }
        // An object that is there and cannot be read must not pass for one that is not there.
        if let trouble = process.saidErrors.first(where: {
            $0.contains("./") && !$0.contains("No such file")
        }) {
            throw subject.failure(.io, "the server says: \(trouble)")
        }
        return output.split(separator: UInt8(ascii: "\n"))
    }

    private func hashCommand(_ subject: StorageSubject) throws(StorageError) -> String {
        guard let path = String(validating: location.rootPath, as: UTF8.self) else {
            throw subject.failure(.unsupported, "no command line can hold the store's path")
        }
        let quoted = path.split(separator: "'", omittingEmptySubsequences: false)
            .joined(separator: #"'\''"#)
        return "cd '\(quoted)' && env LC_ALL=C xargs sha256sum"
    }

    private func hashFailure(
        _ code: Int32?, _ said: [String], _ subject: StorageSubject
    ) -> StorageError {
        // 255 is ssh's own.
        if code == 255 || code == nil {
            return subject.failure(
                SSHFailure.ended(saying: said, exitCode: code, wasConnected: false))
        }
        return StorageError(
            .unsupported, .head, location: address,
            cause: said.last ?? "the account's shell ended with exit code \(code ?? 0)",
            hint: "--remote-hash needs an account with a shell, xargs and sha256sum, and an "
                + "sshd that lets it run them; leave it out to read the objects instead")
    }

    /// Sends `input` and receives until the other side is done, both at once: neither side may wait
    /// for the other to read.
    private static func exchange(_ input: [UInt8], with process: SSHProcess) -> [UInt8] {
        let output = Mutex<[UInt8]>([])
        runOnThreads(2) { index in
            if index == 0 {
                _ = input.withUnsafeBytes {
                    process.send($0, UnsafeRawBufferPointer(start: nil, count: 0))
                }
                process.finishSending()
                return
            }
            withUnsafeTemporaryAllocation(byteCount: 64 << 10, alignment: 16) { buffer in
                // Hashing takes as long as reading does; a dead line ends ssh by itself.
                while true {
                    switch process.receive(into: buffer, waitMilliseconds: 1_000) {
                    case .bytes(let count):
                        output.withLock { $0 += UnsafeRawBufferPointer(rebasing: buffer[..<count]) }
                    case .ended: return
                    case .nothing: continue
                    }
                }
            }
        }
        return output.withLock { $0 }
    }

    /// `DIGEST  ./KEY`, as GNU, BusyBox and BSD print it; binary mode has `*` for the second blank.
    static func parseDigest(_ line: ArraySlice<UInt8>) -> (ObjectKey, [UInt8])? {
        guard line.count > 68 else { return nil }
        let start = line.startIndex
        let mark = line[start + 65]
        guard line[start + 64] == UInt8(ascii: " "),
            mark == UInt8(ascii: " ") || mark == UInt8(ascii: "*"),
            line[start + 66] == UInt8(ascii: "."), line[start + 67] == UInt8(ascii: "/"),
            let key = ObjectKey(String(decoding: line[(start + 68)...], as: UTF8.self))
        else { return nil }
        return Hex.bytes(String(decoding: line.prefix(64), as: UTF8.self)).map { (key, $0) }
    }
}
