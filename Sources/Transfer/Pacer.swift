/// Says how fast bytes may flow in one direction, so that a transfer leaves room on the line.
///
/// Asked from several threads at once; answers at once and never blocks.
package protocol Pacer: Sendable {
    /// How many of `wanted` bytes may flow now. Where it is none, `waitNanoseconds` says when it is
    /// worth asking again; the bytes that are granted count as used.
    func grant(_ wanted: Int) -> (bytes: Int, waitNanoseconds: Int64)
}
