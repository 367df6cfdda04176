/// Finds the name that somebody meant.
package enum Spelling {
    /// The nearest of some names, if it is so near that a slip of the finger explains the
    /// difference.
    package static func nearest(to name: String, among names: [String]) -> String? {
        // What is longer than any key is no slip, and the table below grows with its square.
        guard name.utf8.count <= 64 else { return nil }
        let wanted = folded(name)
        var best: (name: String, distance: Int)?
        for candidate in names {
            let distance = distance(wanted, folded(candidate))
            let allowed = max(1, min(wanted.count, candidate.utf8.count) / 3)
            if distance <= allowed, distance < best?.distance ?? .max {
                best = (candidate, distance)
            }
        }
        return best?.name
    }

    /// Case and the choice between `-` and `_` are no differences.
    private static func folded(_ name: String) -> [UInt8] {
        name.lowercased().utf8.map { $0 == UInt8(ascii: "_") ? UInt8(ascii: "-") : $0 }
    }

    /// Insertions, deletions, changes and swaps of neighbours that make one text of the other.
    static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
        var before: [Int] = []
        var last = Array(0...right.count)
        for i in 0..<left.count {
            var row = [i + 1]
            for j in 0..<right.count {
                var best = min(row[j] + 1, last[j + 1] + 1)
                best = min(best, last[j] + (left[i] == right[j] ? 0 : 1))
                if i > 0, j > 0, left[i] == right[j - 1], left[i - 1] == right[j] {
                    best = min(best, before[j - 1] + 1)
                }
                row.append(best)
            }
            before = last
            last = row
        }
        return last[right.count]
    }
}
