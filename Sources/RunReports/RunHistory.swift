import SnapshotModel

/// The runs of this host, a line each, in files of its own: by profile, or by the repository's place
/// where no profile was named.
///
/// Bounded: the oldest go when there are several thousand. What a crash tore off, or nobody can
/// read, is passed over. Any number of processes may add to it at once.
package struct RunHistory: Sendable {
    /// What a history is of.
    package enum Subject: Sendable, Hashable {
        case profile(String)
        case repository(String)

        /// A file name that stands for it and that a person recognises.
        var fileName: String {
            switch self {
            case .profile(let name): "profile-" + FileNameText.escaped(name)
            case .repository(let location): "repository-" + FileNameText.escaped(location)
            }
        }
    }

    private let directory: String
    /// About two thousand runs; as many again are kept in the file before.
    private let limitBytes: Int
    private static let keeping = 1
    private static let ending = ".jsonl"

    /// - Parameter state: This host's directory for state.
    package init(state: String, limitBytes: Int = 2 << 20) {
        directory = state + "/history"
        self.limitBytes = limitBytes
    }

    private func path(_ subject: Subject) -> String {
        "\(directory)/\(subject.fileName)\(Self.ending)"
    }

    /// Adds a run; it is durable when this returns.
    package func append(_ run: RunSummary, to subject: Subject) throws(RunReportError) {
        try ReportFile.makeDirectory(directory)
        try ReportFile.append(
            run.document.bytes, to: path(subject), mode: 0o600, limitBytes: limitBytes,
            keeping: Self.keeping, isDurable: true)
    }

    /// The runs of one profile or repository, the oldest first.
    package func runs(of subject: Subject) -> [RunSummary] { read(path(subject)) }

    /// The last so many of them, the oldest first. What lies before is not even looked at.
    package func lastRuns(_ count: Int, of subject: Subject) -> [RunSummary] {
        var found: [RunSummary] = []
        for path in ReportFile.generations(of: path(subject), keeping: Self.keeping).reversed() {
            for line in lines(path).reversed() where found.count < count {
                if let run = Self.run(line) { found.append(run) }
            }
        }
        return found.reversed()
    }

    /// The runs of all profiles and repositories, in order of time.
    package func all() -> [RunSummary] {
        // The file that grows is not there just after it was put aside.
        let names = ReportFile.names(in: directory).compactMap { name in
            name.hasSuffix(Self.ending)
                ? name : name.hasSuffix(Self.ending + ".1") ? String(name.dropLast(2)) : nil
        }
        return Set(names).flatMap { read("\(directory)/\($0)") }.sorted {
            ($0.began, $0.verb.rawValue) < ($1.began, $1.verb.rawValue)
        }
    }

    private func read(_ path: String) -> [RunSummary] {
        ReportFile.generations(of: path, keeping: Self.keeping).flatMap {
            lines($0).compactMap(Self.run)
        }
    }

    private func lines(_ path: String) -> [ArraySlice<UInt8>] {
        // A file that grew beyond its bound by one line is still read.
        (ReportFile.read(path, maximumBytes: limitBytes + (8 << 20)) ?? []).split(separator: 0x0A)
    }

    private static func run(_ line: ArraySlice<UInt8>) -> RunSummary? {
        JSONValue(parsing: Array(line)).flatMap { RunSummary($0) }
    }

    // MARK: What it teaches

    /// How long the next run will take: the middle one of the last runs that went well.
    ///
    /// - Parameter runs: Of one subject, the oldest first.
    package static func expectedMilliseconds(of verb: RunSummary.Verb, after runs: [RunSummary])
        -> Int?
    {
        let last = runs.filter {
            $0.verb == verb && ($0.outcome == .success || $0.outcome == .partial)
        }.suffix(7).map(\.milliseconds).sorted()
        return last.isEmpty ? nil : last[last.count / 2]
    }
}

/// Names of files that tell people what they stand for.
enum FileNameText {
    /// Letters, digits and `._-` as they are, everything else as `%` and two hex digits. What would
    /// be too long for a file name is cut, with a number of the whole behind it.
    static func escaped(_ text: String) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var name: [UInt8] = []
        for byte in text.utf8 {
            let isPlain =
                (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte)
                || (0x61...0x7A).contains(byte) || byte == 0x2D || byte == 0x2E || byte == 0x5F
            if isPlain {
                name.append(byte)
            } else {
                name += [0x25, digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        let plain = String(decoding: name, as: UTF8.self)
        guard name.count > 100 else { return plain }
        // FNV-1a: names that differ behind the cut get different numbers.
        let number = text.utf8.reduce(UInt64(0xcbf2_9ce4_8422_2325)) {
            ($0 ^ UInt64($1)) &* 0x100_0000_01b3
        }
        return plain.prefix(80) + "%-" + String(number, radix: 16)
    }
}
