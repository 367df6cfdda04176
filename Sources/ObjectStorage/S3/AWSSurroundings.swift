import CSystem
import Glibc
package import Transfer

/// The variables and the files in which all AWS tools find their configuration.
///
/// Handed in, so that a test brings its own.
package struct AWSEnvironment: Sendable {
    /// What came of reading a file.
    package enum FileContents: Sendable {
        case bytes([UInt8])
        case missing
        /// It is there, but cannot be read: says why.
        case unreadable(String)
    }

    private let variables: [String: String]
    let readFile: @Sendable (_ path: String) -> FileContents

    package init(
        variables: [String: String],
        readFile: @escaping @Sendable (String) -> FileContents = readSmallFile
    ) {
        self.variables = variables
        self.readFile = readFile
    }

    /// A variable that is set to something.
    subscript(name: String) -> String? { variables[name].flatMap { $0.isEmpty ? nil : $0 } }

    /// The path with `~/` at its beginning replaced.
    func expanded(_ path: String) -> String {
        guard path.hasPrefix("~/"), let home = self["HOME"] else { return path }
        return home + path.dropFirst()
    }

    /// Reads a file of at most a mebibyte.
    package static func readSmallFile(_ path: String) -> FileContents {
        let file = csys_open(path, O_RDONLY | CSYS_O_CLOEXEC, 0)
        if file == -ENOENT || file == -ENOTDIR { return .missing }
        guard file >= 0 else { return .unreadable(String(cString: strerror(-file))) }
        defer { _ = csys_close(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while bytes.count <= 1 << 20 {
            let count = csys_pread(file, &buffer, buffer.count, Int64(bytes.count))
            if count < 0 { return .unreadable(String(cString: strerror(Int32(-count)))) }
            if count == 0 { return .bytes(bytes) }
            bytes.append(contentsOf: buffer[..<count])
        }
        return .unreadable("it is longer than a mebibyte")
    }
}

/// What looking for credentials takes from the world beyond that: a command, a service on the
/// network, and the time.
package struct AWSSurroundings: Sendable {
    let environment: AWSEnvironment
    let engine: TransferEngine
    /// Runs a line of shell and gives what it prints.
    let run: @Sendable (_ line: String) -> Result<[UInt8], AWSCommandFailure>

    package init(
        environment: AWSEnvironment, engine: TransferEngine,
        run: @escaping @Sendable (String) -> Result<[UInt8], AWSCommandFailure>
    ) {
        self.environment = environment
        self.engine = engine
        self.run = run
    }
}

/// Why a command gave nothing: a sentence without a full stop.
package struct AWSCommandFailure: Error, Sendable {
    package let text: String
    package init(_ text: String) { self.text = text }
}
