import Glibc

/// The ssh command by which a server is reached: its words, and what is added to them.
package struct SSHCommand: Sendable, Equatable {
    /// Program and leading arguments, at least one word.
    package let words: [String]

    /// The `ssh` that the search path finds.
    package static let standard = SSHCommand(words: ["ssh"])

    private init(words: [String]) { self.words = words }

    /// Takes the words of a command line: separated by blanks, kept together by quotes and
    /// backslashes as a shell does it. No shell runs, so nothing else has a meaning in it: no
    /// variable, no pattern, no second command.
    ///
    /// - Throws: `.unsupported` where there is no word, or a quote is not closed.
    package init(_ text: String) throws(StorageError) {
        func refusal(_ cause: String) -> StorageError {
            StorageError(
                .unsupported, .open, location: text, cause: cause,
                hint: "write --ssh-command like \"ssh -i /etc/backup/key -J gateway\"")
        }
        guard let words = SSHCommand.split(text) else {
            throw refusal("a quote in the ssh command is not closed")
        }
        guard let program = words.first, !program.isEmpty else {
            throw refusal("the ssh command is empty")
        }
        self.words = words
    }

    /// All words for reaching `location`: the command, what the program wants of ssh, then
    /// `-p PORT -l USER HOST` and `remote`.
    ///
    /// An option that stands earlier wins with ssh, so the user's own words are above ours. Where no
    /// word names a program `ssh`, the options are left out, since another program may not know
    /// them. A program that is reached over a terminal may ask there for a passphrase or whether a
    /// host is to be trusted; without one it must not wait for an answer.
    func arguments(
        for location: SFTPLocation, remote: SSHRemote, mayAsk: Bool, acceptsNewHostKey: Bool = false
    ) -> [String] {
        var arguments = words
        if words.contains(where: { $0 == "ssh" || $0.hasSuffix("/ssh") }) {
            var options = SSHCommand.options
            if !mayAsk { options.append("BatchMode=yes") }
            if acceptsNewHostKey { options.append("StrictHostKeyChecking=accept-new") }
            for option in options { arguments += ["-o", option] }
        }
        if let port = location.port { arguments += ["-p", String(port)] }
        if let user = location.user { arguments += ["-l", user] }
        switch remote {
        case .subsystem(let name): arguments += ["-s", location.host, name]
        case .command(let command): arguments += [location.host, command]
        }
        return arguments
    }

    /// Whether its program can be started: named by a path, or found in one of the directories of
    /// `searchPath`, which are separated by colons.
    package func isFound(in searchPath: String) -> Bool {
        if words[0].contains("/") { return access(words[0], X_OK) == 0 }
        return searchPath.split(separator: ":").contains { access("\($0)/\(words[0])", X_OK) == 0 }
    }

    private static let options = [
        // A line that has gone silent is noticed after a minute.
        "ServerAliveInterval=15", "ServerAliveCountMax=4", "ConnectTimeout=30",
        // Forwardings of the user's configuration would be set up by each of several connections,
        // and all but the first would complain.
        "ClearAllForwardings=yes",
        // A connection that others share would have to outlive this program; one that is there
        // already is used all the same.
        "ControlMaster=no",
    ]

    /// Words as a shell would make them, without any expansion; nil where a quote stays open.
    private static func split(_ text: String) -> [String]? {
        var words: [String] = []
        var word: String?
        var quote: Character?
        var characters = text.makeIterator()
        while let character = characters.next() {
            switch (quote, character) {
            case (nil, " "), (nil, "\t"), (nil, "\n"):
                if let finished = word { words.append(finished) }
                word = nil
            case (nil, "'"), (nil, "\""):
                quote = character
                word = word ?? ""
            case (.some(let open), character) where open == character:
                quote = nil
            case (nil, "\\"):
                guard let next = characters.next() else { return nil }
                word = (word ?? "") + String(next)
            case ("\"", "\\"):
                guard let next = characters.next() else { return nil }
                let isEscape = "\"\\$`".contains(next)
                word = (word ?? "") + (isEscape ? String(next) : "\\" + String(next))
            default:
                word = (word ?? "") + String(character)
            }
        }
        guard quote == nil else { return nil }
        if let word { words.append(word) }
        return words
    }
}

/// What is to run at the server's end.
enum SSHRemote: Sendable {
    /// A subsystem of the server, such as `sftp`.
    case subsystem(String)
    /// A command line for the account's shell.
    case command(String)
}
