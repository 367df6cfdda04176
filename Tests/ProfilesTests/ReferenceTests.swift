import TestSupport
import Testing

@testable import Profiles

/// profiles/reference.toml is what people read to know the keys, and what the manual page is made
/// of.
@Suite("The reference profile")
struct ReferenceTests {
    /// A key as the reference has it.
    struct Line: CustomTestStringConvertible, Sendable {
        let section: String
        let key: String
        /// `key = value`.
        let text: String
        let comment: String

        var hasDefault: Bool { !comment.contains("Not set by default") && key != "location" }
        var name: String { section.isEmpty ? key : "\(section).\(key)" }
        var testDescription: String { name }
    }

    static let text = String(
        decoding: readFile("\(examples)/reference.toml") ?? [], as: UTF8.self)

    static let lines: [Line] = {
        var lines: [Line] = []
        var section = ""
        var comment: [Substring] = []
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            let bare = line.hasPrefix("#") && !line.hasPrefix("# ") ? line.dropFirst() : line
            if line.hasPrefix("# ") {
                comment.append(line.dropFirst(2))
            } else if bare.hasPrefix("[") {
                section = bare.filter { $0 != "[" && $0 != "]" }
            } else if let equals = bare.firstRange(of: " = ") {
                lines.append(
                    Line(
                        section: section, key: String(bare[..<equals.lowerBound]),
                        text: String(bare), comment: comment.joined(separator: " ")))
            }
            if !line.hasPrefix("# ") { comment = [] }
        }
        return lines
    }()

    /// Every key that the decoder knows. A replica has those of the repository.
    static var known: Set<String> {
        var names = Set(ProfileKeys.top.map(\.name) + [ProfileKeys.inherit, "replica.location"])
        for section in ProfileKeys.sections {
            for key in section.keys { names.insert("\(section.name).\(key.name)") }
        }
        return names
    }

    @Test("It has every key that is read, and no other")
    func complete() {
        let written = Self.lines.map(\.name)
        #expect(Set(written) == Self.known)
        #expect(Set(written).count == written.count, "no key is there twice")
    }

    @Test("Each key is explained", arguments: lines)
    func explained(_ line: Line) {
        #expect(line.comment.count > 15 && line.comment.hasSuffix("."), "\(line.comment)")
    }

    @Test("What it shows is read, each key by itself", arguments: lines)
    func read(_ line: Line) throws {
        let fixture = ProfileFixture()
        fixture.write("[repository]\nlocation = \"/base\"", to: "base.toml")
        var text = line.section.isEmpty ? line.text : ""
        if line.name != "repository.location" {
            text += "\n[repository]\nlocation = \"/repository\"\n"
        }
        if line.section == "replica" {
            text += "\n[[replica]]\n\(line.text)\n"
        } else if !line.section.isEmpty {
            text +=
                (line.section == "repository" && line.key != "location"
                    ? "" : "[\(line.section)]\n") + line.text
        }
        // Keys that only make sense together are tried together below.
        let problems = fixture.problems(text: text).filter {
            !$0.contains("needs") && !$0.contains("goes with") && !$0.contains("go together")
        }
        #expect(problems == [])
    }

    @Test("What it says of defaults is what holds in the code")
    func defaults() {
        let written = Profile()
        for section in ProfileKeys.sections {
            for key in section.keys {
                let name = "\(section.name).\(key.name)"
                guard let line = Self.lines.first(where: { $0.name == name }) else { continue }
                let value = key.write(written)?.toml
                guard name != "repository.location" else { continue }
                if line.hasDefault {
                    #expect(value.map { "\(key.name) = \($0)" } == line.text)
                } else {
                    #expect(value == nil, "\(name) has a default and is said to have none")
                }
            }
        }
        #expect(written.description == nil)
    }

    @Test("With every key written it is a profile, and shows what was written")
    func everything() throws {
        let fixture = ProfileFixture()
        fixture.write("", to: "base.toml")
        var text = ""
        for line in Self.text.split(separator: "\n") {
            let bare = line.hasPrefix("#") && !line.hasPrefix("# ") ? line.dropFirst() : line
            // A stream is the only source of its snapshot, and a key of "aws:kms" wants that.
            if bare.hasPrefix("stdin-from-command") { continue }
            text += bare.replacing("\"AES256\"", with: "\"aws:kms\"") + "\n"
        }
        let profile = try fixture.load(text: text)
        #expect(profile.replicas.count == 1)
        for setting in profile.settings where setting.section != "replica[0]" {
            if setting.key == "stdin-from-command" { continue }
            #expect(setting.origin != nil, "\(setting.section).\(setting.key) was written")
            #expect(setting.value != nil || setting.origin != nil)
        }
    }
}

@Suite("The example profiles")
struct ExampleTests {
    static let names = [
        "ceph-common", "ceph-host", "database-with-dump", "laptop-to-disk", "minimal", "nightly",
        "reference", "server-to-s3", "three-two-one", "write-only-host",
    ]

    @Test("Each is a profile as it stands", arguments: names)
    func loads(_ name: String) throws {
        let profile = try Profile.load(
            "\(examples)/\(name).toml", environment: ["HOME": "/home/anna"], isRoot: false)
        #expect(!profile.repository.location.isEmpty)
        #expect(profile.name == name)
        #expect(
            name == "reference" || name == "ceph-common" || profile.description != nil
                || name == "minimal")
        // What they say is not said twice: a value that is the default teaches nothing.
        let defaults = Profile().settings
        for setting in profile.settings where setting.origin?.isInherited == false {
            let isDefault = defaults.contains {
                $0.section == setting.section && $0.key == setting.key && $0.value != nil
                    && $0.value == setting.value
            }
            #expect(!isDefault || setting.key == "when", "\(setting.key) is the default")
        }
    }

    @Test("All of them are tried here")
    func complete() {
        let found = ProfileSearchPath(
            environment: ["BATCHSYNC_CONFIG_DIR": examples], isRoot: true)
        let elsewhere = ProfileSearchPath(environment: [:], isRoot: true).names
        #expect(Set(found.names).subtracting(elsewhere) == Set(Self.names).subtracting(elsewhere))
        #expect(found.directories[0] == examples)
    }

    @Test("A host's file takes what all hosts have in common, and replaces lists as a whole")
    func inherits() throws {
        let profile = try Profile.load(
            "\(examples)/ceph-host.toml", environment: [:], isRoot: true)
        #expect(profile.repository.style == .path)
        #expect(profile.source.paths == ["/etc", "/home", "/srv", "/var/lib", "/opt"])
        #expect(
            profile.files.map { $0.split(separator: "/").last } == [
                "ceph-host.toml", "ceph-common.toml",
            ])
        #expect(profile.origins["source.paths"]?.isInherited == false)
        #expect(profile.origins["repository.style"]?.isInherited == true)
    }
}
