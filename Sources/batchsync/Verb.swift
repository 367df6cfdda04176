import ArgumentParser

/// A verb of the command: words in, words out, and a code.
protocol Verb: ParsableCommand {
    /// Whether the result is one JSON document.
    var wantsJSON: Bool { get }

    func perform() throws -> ExitStatus
}

extension Verb {
    var wantsJSON: Bool { false }

    // `perform` is what the program calls; this one is for whoever runs a verb by itself.
    func run() throws {
        let status = try perform()
        if status != .done { throw ExitCode(status.rawValue) }
    }
}
