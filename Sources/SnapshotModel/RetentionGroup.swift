/// What a retention policy has to know of a snapshot.
package struct RetentionCandidate: Sendable, Equatable {
    package var id: SnapshotID
    package var time: Timestamp
    package var host: String
    package var roots: [[UInt8]]
    package var tags: [String]
    /// No rule may remove it.
    package var isPinned: Bool
    /// It lacks something that was deleted before it was committed. What has problems, but all that
    /// it says it has, is not incomplete.
    package var isIncomplete: Bool
    /// Nothing tells what it has: it does not count, and no rule removes it.
    package var isUndescribed: Bool

    package init(
        id: SnapshotID, time: Timestamp, host: String, roots: [[UInt8]], tags: [String] = [],
        isPinned: Bool = false, isIncomplete: Bool = false, isUndescribed: Bool = false
    ) {
        self.id = id
        self.time = time
        self.host = host
        self.roots = roots
        self.tags = tags
        self.isPinned = isPinned
        self.isIncomplete = isIncomplete
        self.isUndescribed = isUndescribed
    }
}

/// What snapshots must have in common for a rule to count them together.
package struct RetentionGrouping: OptionSet, Sendable {
    package let rawValue: Int
    package init(rawValue: Int) { self.rawValue = rawValue }

    package static let host = RetentionGrouping(rawValue: 1)
    package static let paths = RetentionGrouping(rawValue: 2)
    package static let tags = RetentionGrouping(rawValue: 4)
    /// One host's backups of the same sources.
    package static let standard: RetentionGrouping = [.host, .paths]

    private static let words: [(word: String, member: RetentionGrouping)] = [
        ("host", .host), ("paths", .paths), ("tags", .tags),
    ]

    /// Reads `host`, `paths`, `tags` with commas between them, or `none`.
    package init?(parsing text: some StringProtocol) {
        var result: RetentionGrouping = []
        if text != "none" {
            for part in text.split(separator: ",", omittingEmptySubsequences: false) {
                guard let found = Self.words.first(where: { $0.word == part }) else { return nil }
                result.insert(found.member)
            }
        }
        self = result
    }

    /// As it is read.
    package var text: String {
        isEmpty
            ? "none" : Self.words.filter { contains($0.member) }.map(\.word).joined(separator: ",")
    }

    func key(of candidate: RetentionCandidate) -> RetentionGroupKey {
        RetentionGroupKey(
            host: contains(.host) ? candidate.host : nil,
            roots: contains(.paths)
                ? Set(candidate.roots).sorted { EntryPath.precedes($0, $1) } : nil,
            tags: contains(.tags) ? Set(candidate.tags).sorted() : nil)
    }
}

/// What the snapshots of one group have in common; nil is what they were not asked for.
package struct RetentionGroupKey: Sendable, Hashable, Comparable, CustomStringConvertible {
    package let host: String?
    /// In the order of paths, none twice.
    package let roots: [[UInt8]]?
    /// Sorted, none twice.
    package let tags: [String]?

    package static func < (left: RetentionGroupKey, right: RetentionGroupKey) -> Bool {
        if left.host != right.host { return (left.host ?? "") < (right.host ?? "") }
        if left.roots != right.roots {
            return (left.roots ?? []).lexicographicallyPrecedes(right.roots ?? []) {
                EntryPath.precedes($0, $1)
            }
        }
        return (left.tags ?? []).lexicographicallyPrecedes(right.tags ?? [])
    }

    /// `host mars, paths /etc /srv, tags daily`; `all snapshots` where nothing tells groups apart.
    package var description: String {
        func list(_ word: String, _ items: [String]) -> String {
            items.isEmpty ? "no \(word)" : "\(word) \(items.joined(separator: " "))"
        }
        var parts: [String] = []
        if let host { parts.append("host \(UTF8Text.display(Array(host.utf8)))") }
        if let roots { parts.append(list("paths", roots.map { UTF8Text.display($0) })) }
        if let tags {
            parts.append(list("tags", tags.map { UTF8Text.display(Array($0.utf8)) }))
        }
        return parts.isEmpty ? "all snapshots" : parts.joined(separator: ", ")
    }
}

/// What a policy makes of one group.
package struct RetentionGroup: Sendable {
    package let key: RetentionGroupKey
    /// In order of time, then id.
    package let verdicts: [RetentionVerdict]
}

/// What a policy makes of one snapshot.
package struct RetentionVerdict: Sendable, Equatable {
    package let candidate: RetentionCandidate
    /// Why it is kept, in the order of the rules; empty where it is to be forgotten.
    package let reasons: [RetentionReason]
    /// Why it is not, one for each rule; empty where it is kept.
    package let misses: [RetentionMiss]

    package var isKept: Bool { !reasons.isEmpty }
}
