import CSystem
import Glibc
package import SnapshotModel
import Synchronization

/// The rest of a list that may be as long as a snapshot and is wanted whole: in a file without a
/// name, so that memory stays bounded.
///
/// Nothing is lost but the list where the file cannot be written: the counts are kept elsewhere.
package final class RestoreSpool: Sendable {
    private struct State {
        var descriptor: Int32
        /// Bytes in the file.
        var size: Int64 = 0
        let pending = ByteBuffer(capacity: 64 << 10)
    }
    private let state: Mutex<State>

    /// Nil where no file can be made in `directory`.
    init?(in directory: String) {
        let descriptor = csys_open(directory, O_RDWR | CSYS_O_TMPFILE | CSYS_O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return nil }
        state = Mutex(State(descriptor: descriptor))
    }

    deinit { _ = state.withLock { csys_close($0.descriptor) } }

    func append(_ value: JSONValue) {
        state.withLock { state in
            state.pending.append(value.bytes)
            state.pending.append(0x0A)
            if state.pending.count >= 60 << 10 { Self.flush(&state) }
        }
    }

    private static func flush(_ state: inout State) {
        var done = 0
        while done < state.pending.count {
            let count = csys_pwrite(
                state.descriptor, state.pending.base + done, state.pending.count - done,
                state.size + Int64(done))
            guard count > 0 else { break }
            done += count
        }
        // A line that was cut off is none.
        if done == state.pending.count { state.size += Int64(done) }
        state.pending.removeAll()
    }

    /// Hands out what was appended, in that order.
    package func readEach(_ body: (JSONValue) -> Void) {
        state.withLock { state in
            Self.flush(&state)
            let bytes = ByteBuffer(capacity: 256 << 10)
            var place: Int64 = 0
            while place < state.size {
                bytes.removeAll()
                let wanted = Int(min(Int64(bytes.capacity), state.size - place))
                bytes.count = max(0, csys_pread(state.descriptor, bytes.base, wanted, place))
                var start = 0
                while let end = JSONLines.lineEnd(bytes.bytes, from: start) {
                    let line = UnsafeRawBufferPointer(rebasing: bytes.bytes[start..<end])
                    if let value = JSONValue(parsing: line) { body(value) }
                    start = end + 1
                }
                place += Int64(start)
                guard start == 0 else { continue }
                // A longer line, or a file that cannot be read.
                guard bytes.count == wanted, wanted < state.size - place else { return }
                bytes.reserve(bytes.capacity * 2)
            }
        }
    }
}
