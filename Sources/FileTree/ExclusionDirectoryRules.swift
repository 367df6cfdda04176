/// The rules of one directory's `.batchsyncignore`, linked to those of the directories above.
///
/// Immutable: the threads of a walk share it, and each subtree holds on to the chain it needs.
package final class DirectoryRules: Sendable {
    /// The rules of the nearest directory above that has some.
    package let parent: DirectoryRules?
    /// The absolute path of the directory, without trailing slash; `/` for the root.
    package let directory: [UInt8]
    let list: ExclusionRuleList
    /// How many bytes of the path of an entry below come before what is relative to the directory.
    let base: Int

    private init(directory: [UInt8], list: ExclusionRuleList, parent: DirectoryRules?) {
        self.directory = directory
        self.list = list
        self.parent = parent
        base = directory == [UInt8(ascii: "/")] ? 1 : directory.count + 1
    }

    /// The rules for what lies in `directory`: those of its `.batchsyncignore` before those of
    /// `parent`.
    ///
    /// - Parameters:
    ///   - contents: The whole of the file.
    ///   - directory: Absolute, without trailing slash; `/` for the root.
    ///   - parent: The rules that hold in the directory above.
    /// - Returns: `parent` itself where the file holds no rule.
    package static func reading(
        _ contents: [UInt8], in directory: [UInt8], below parent: DirectoryRules?
    ) -> DirectoryRules? {
        let slash = UInt8(ascii: "/")
        let path = (directory == [slash] ? [] : directory) + [slash] + ExclusionRules.ignoreFileName
        let list = ExclusionRuleList(
            extending: nil, by: ExclusionRuleList.origins(in: contents, source: .ignoreFile(path)))
        guard list.writtenCount > 0 else { return parent }
        return DirectoryRules(directory: directory, list: list, parent: parent)
    }

    /// The patterns of this file alone that can never match, and what is wrong with them.
    package var neverMatching: [(rule: ExclusionReason, defect: GlobPattern.Defect)] {
        list.defects.map { origin, defect in
            (.rule(text: origin.text, source: origin.source, line: origin.line), defect)
        }
    }
}
