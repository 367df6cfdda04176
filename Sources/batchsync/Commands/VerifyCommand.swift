import ArgumentParser
import Replication
import RunReports
import SnapshotModel
import SnapshotRepository

struct VerifyCommand: Verb {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Prove that what is stored is whole.",
        discussion: """
            Checks every snapshot down to the bundles it needs: that each is there, at its length, and authentic. The key of this \
            host is enough. With --read-data it also reads stored bytes back, those that were read longest ago first: without the \
            owner's identity it compares each object with its SHA-256, with it every chunk is opened and hashed. What was read, and how deeply, \
            is remembered in the repository.

                batchsync verify -r /backup/repository
                batchsync verify --read-data=1/30 -r /backup/repository
                batchsync verify --read-data -r /backup/repository

            Where a store tells more of an object than its length, a checksum in its listing or one that it keeps, that is compared \
            as well, without reading anything.

            Run every night, --read-data=1/30 reads everything in a month. Findings name the damaged object, every \
            snapshot it affects, and each file once with the snapshots that do not have it whole; the exit code is 4.
            """)

    @Option(
        defaultAsFlag: ShareArgument.everything, parsing: .next,
        help: ArgumentHelp(
            "Read stored data back: all of it, or a share such as 5%, 2GiB or 1/30. Written --read-data=SHARE.",
            valueName: "share"))
    var readData: ShareArgument? = nil

    @Flag(
        help:
            "Let an SFTP server compute the SHA-256 of every bundle; the account needs a shell with sha256sum."
    )
    var remoteHash = false

    @OptionGroup(title: "Repository") var repository: RepositoryOptions
    @OptionGroup(title: "Output") var output: OutputOptions

    var wantsJSON: Bool { output.json }

    func validate() throws {
        if let readData, readData.share == nil {
            throw ValidationError("'\(readData)' is no share of the data: write 5%, 2GiB or 1/30")
        }
    }

    func perform() throws -> ExitStatus {
        let assembly = Assembly(repository) { $0.hashesRemotely = remoteHash }
        let location = try assembly.location()
        return try RunReporter.keep(.verify, at: [location], try assembly.directories()) {
            run, findings in
            let report = try verify(assembly)
            run.store(location) { $0.verified = VerificationSummary(report) }
            run.text =
                report.isSound
                ? "no damage found"
                : "\(NumberText.counted(report.findings.count { $0.isDamage }, "finding")) of damage"
            run.failures = report.findings.filter(\.isDamage).map {
                .init($0.description, remedy: $0.remedy)
            }
            findings.take(report, of: location, at: Assembly.now)
            return report.isSound ? .done : .damaged
        }
    }

    private func verify(_ assembly: Assembly) throws -> VerifyReport {
        let (opened, owner) = try assembly.openBeforeOwner()
        let monitor = TerminalMonitor(output)
        var options = VerifyOptions(
            readData: readData?.share, host: Assembly.hostName, now: Assembly.now)
        options.hashesRemotely = remoteHash
        Signals.stopCleanly()
        let verify = Verify(
            repository: opened, owner: owner, options: options, monitor: monitor,
            cancellation: Signals.cancellation)
        let report = try monitor.whileShowing { try verify.run() }
        if output.json {
            JSONOutput.print("verify", Self.document(report))
        } else {
            tell(report)
        }
        return report
    }

    private func tell(_ report: VerifyReport) {
        let console = Console.shared
        for finding in report.findings {
            let word =
                finding.isDamage ? console.styled("damaged", .red) : console.styled("note", .yellow)
            console.out("\(word) \(finding.description)")
            if !finding.remedy.isEmpty { console.out("    \(finding.remedy)") }
            if !finding.snapshots.isEmpty {
                console.out(
                    "    snapshots: \(finding.snapshots.map(\.short).joined(separator: " "))")
            }
            tellFiles(finding)
        }
        if output.quiet { return }
        console.out(
            "\(NumberText.counted(report.snapshots, "snapshot")), \(NumberText.counted(report.bundles, "bundle")) of "
                + "\(NumberText.bytes(report.bundleBytes)), \(NumberText.counted(report.chunks, "chunk")), "
                + "\(NumberText.counted(report.records, "record"))")
        if report.manifestsRead {
            console.out(
                "\(NumberText.counted(report.entries, "entry", "entries")) in the manifests")
        }
        let compared = [
            (report.comparedByMD5, "by the MD5 that the store lists"),
            (report.comparedBySHA256, "by the SHA-256 that the store keeps"),
            (report.computedRemotely, "by the SHA-256 that the server computed"),
        ].filter { $0.0 > 0 }
        for (count, how) in compared {
            console.out("\(NumberText.counted(count, "bundle")) compared \(how)")
        }
        if report.uncompared > 0 {
            console.out(
                "\(NumberText.counted(report.uncompared, "bundle")) compared by length only: the store says no more of them"
            )
        }
        if report.bundlesRead > 0 {
            let depth =
                report.contentRead ? "opened, every chunk hashed" : "compared with their SHA-256"
            console.out(
                "read back \(NumberText.counted(report.bundlesRead, "bundle")), \(NumberText.bytes(report.bytesRead)): \(depth)"
            )
        }
        if report.neverRead > 0 {
            console.out("\(NumberText.counted(report.neverRead, "bundle")) never read back so far")
        } else if let oldest = report.oldestRead {
            console.out("every bundle was read back, the first on \(TimeText.person(oldest))")
        }
        // Where something is missing, nobody knows what is needed.
        if report.orphans > 0, report.isSound {
            console.out(
                "\(NumberText.counted(report.orphans, "bundle")) of \(NumberText.bytes(report.orphanBytes)) no snapshot needs"
            )
        }
        StoreSession.shared.tellTraffic()
        if report.isSound {
            console.out(console.styled("no damage found", .green))
        } else {
            let count = report.findings.count { $0.isDamage }
            console.out(
                console.styled(
                    "\(NumberText.counted(count, "finding")) of damage; \(report.damagedSnapshots) of "
                        + "\(NumberText.counted(report.snapshots, "snapshot")) not whole", .red))
        }
    }

    /// Each file once, with the snapshots that do not have it whole.
    private func tellFiles(_ finding: VerifyFinding) {
        let console = Console.shared
        let shown = finding.files.prefix(Self.filesNamed)
        for file in shown {
            var places = file.snapshots.prefix(Self.snapshotsNamed).map(\.short)
                .joined(separator: " ")
            if file.snapshots.count > Self.snapshotsNamed {
                places += " and \(file.snapshots.count - Self.snapshotsNamed) more"
            }
            console.out("    \(UTF8Text.display(file.path)) in \(places)")
        }
        if finding.fileCount > shown.count {
            let rest = NumberText.counted(finding.fileCount - shown.count, "more file")
            console.out("    and \(rest): --json names the first \(VerifyFinding.pathsKept)")
        }
    }

    private static let filesNamed = 100
    private static let snapshotsNamed = 5

    private static func document(_ report: VerifyReport) -> [(key: String, value: JSONValue)] {
        let findings = report.findings.map { finding in
            JSONValue.object([
                ("kind", .string(finding.kind.rawValue)), ("object", .string(finding.object)),
                ("message", .string(finding.message)), ("remedy", .string(finding.remedy)),
                ("damage", .bool(finding.isDamage)),
                ("snapshots", JSONValue(ids: finding.snapshots)),
                ("path_count", .count(finding.fileCount)),
                ("paths", .array(finding.files.map { JSONValue(path: $0.path) })),
                (
                    "files",
                    .array(
                        finding.files.map {
                            .object([
                                ("path", JSONValue(path: $0.path)),
                                ("snapshots", JSONValue(ids: $0.snapshots)),
                            ])
                        })
                ),
            ])
        }
        return [
            ("sound", .bool(report.isSound)), ("findings", .array(findings)),
            ("snapshots", .count(report.snapshots)),
            ("sound_snapshots", .count(report.soundSnapshots)), ("records", .count(report.records)),
            ("bundles", .count(report.bundles)), ("bundle_bytes", .count(report.bundleBytes)),
            ("chunks", .count(report.chunks)), ("orphans", .count(report.orphans)),
            ("orphan_bytes", .count(report.orphanBytes)),
            ("compared_by_md5", .count(report.comparedByMD5)),
            ("compared_by_sha256", .count(report.comparedBySHA256)),
            ("computed_remotely", .count(report.computedRemotely)),
            ("compared_by_length", .count(report.uncompared)),
            ("manifests_read", .bool(report.manifestsRead)),
            ("entries", .count(report.entries)), ("bundles_read", .count(report.bundlesRead)),
            ("bytes_read", .count(report.bytesRead)), ("content_read", .bool(report.contentRead)),
            ("never_read", .count(report.neverRead)),
            ("oldest_read", report.oldestRead.map { .time($0) } ?? .null),
            StoreSession.shared.trafficField,
        ]
    }
}

/// How much of the stored data to read: `100%`, `5%`, `2GiB`, `1/30`.
struct ShareArgument: ExpressibleByArgument, Sendable, CustomStringConvertible {
    /// Nil where the word is none of them. The parser takes the option's default for a word that it cannot read, which
    /// must not happen to a word that was meant.
    let share: VerifyOptions.Share?
    let description: String

    static let everything = ShareArgument(argument: "100%")

    init(argument: String) {
        description = RawArguments.display(argument)
        share = Self.parsed(argument)
    }

    private static func parsed(_ text: String) -> VerifyOptions.Share? {
        if text.hasSuffix("%") {
            guard let percent = Double(text.dropLast()), percent > 0, percent <= 100 else {
                return nil
            }
            return percent == 100 ? .everything : .share(percent: percent)
        }
        if let slash = text.firstIndex(of: "/") {
            guard let part = Int(text[..<slash]),
                let whole = Int(text[text.index(after: slash)...]), part > 0,
                whole >= part
            else { return nil }
            return part == whole ? .everything : .fraction(part, of: whole)
        }
        guard let count = ByteCount(parsing: text), let bytes = Int(exactly: count.bytes), bytes > 0
        else { return nil }
        return .bytes(bytes)
    }
}
