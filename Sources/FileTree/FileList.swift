/// The list of paths in a file given by `--files-from`.
///
/// Paths are taken as they are: no comments, no quoting, no patterns, no trimming, since a name may
/// hold every byte but NUL. Order and repetitions are kept; empty items are not.
package enum FileList {
    /// What ends a path in the list.
    package enum Separator: Sendable {
        /// NUL if the list holds one, line feeds otherwise. What `find -print0` writes is
        /// recognised with certainty: it ends every path with NUL, and no path holds one.
        case automatic
        case lineFeed
        case nul
    }

    /// - Parameter bytes: The whole of the list; its last path need not be terminated.
    package static func paths(
        in bytes: [UInt8], separatedBy separator: Separator = .automatic
    ) -> [[UInt8]] {
        let byte: UInt8 =
            switch separator {
            case .automatic: bytes.contains(0) ? 0 : UInt8(ascii: "\n")
            case .lineFeed: UInt8(ascii: "\n")
            case .nul: 0
            }
        return bytes.split(separator: byte).map(Array.init)
    }
}
