/// The bytes that a server sends, taken apart into packets. One thread uses it at a time.
final class SFTPStream {
    /// How the stream came to its end.
    enum End: Error {
        /// The other side closed it.
        case closed
        /// What was waited for did not come in time.
        case late
        case malformed(String)
    }

    /// What stands before the fields of every answer.
    struct Head {
        let kind: UInt8
        let id: UInt32
        /// Bytes that follow.
        let fieldBytes: Int
    }

    private let process: SSHProcess
    private let buffer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: 128 << 10, alignment: 16)
    /// What has been received and not yet read.
    private var start = 0
    private var end = 0

    init(_ process: SSHProcess) { self.process = process }

    deinit { buffer.deallocate() }

    /// No answer but data is longer: OpenSSH sends at most 256 KiB.
    private static let maximumFieldBytes = 1 << 20
    /// Data are bounded by what was asked for; this only keeps lengths sane.
    private static let maximumDataBytes = 16 << 20
    /// How often a wait looks whether it has become too long.
    private static let lookMilliseconds: Int32 = 500

    /// Reads what stands before the fields of the next answer.
    ///
    /// - Parameter isTooLate: Asked now and then while nothing comes.
    func readHead(_ isTooLate: () -> Bool) throws(End) -> Head {
        let length = Int(try readNumber(isTooLate))
        let kind = try readKind(length, isTooLate)
        guard length >= 5 else { throw .malformed("a packet of \(length) bytes") }
        let id = try readNumber(isTooLate)
        let limit =
            kind == SFTPKind.data ? SFTPStream.maximumDataBytes : SFTPStream.maximumFieldBytes
        guard length - 5 <= limit else { throw .malformed("a packet of \(length) bytes") }
        return Head(kind: kind, id: id, fieldBytes: length - 5)
    }

    /// Reads the fields of an answer that is no data.
    func readReply(_ head: Head, _ isTooLate: () -> Bool) throws(End) -> SFTPReply {
        guard head.fieldBytes <= SFTPStream.maximumFieldBytes else {
            throw .malformed("a packet of \(head.fieldBytes) bytes")
        }
        let fields = try readBytes(head.fieldBytes, isTooLate)
        do throws(SFTPMalformed) {
            return try SFTPReply(kind: head.kind, fields)
        } catch {
            throw .malformed(error.what)
        }
    }

    /// Reads the fields of the server's first packet.
    func readVersion(_ isTooLate: () -> Bool) throws(End) -> [UInt8] {
        let number = try readNumber(isTooLate)
        let length = Int(number)
        guard (5...SFTPStream.maximumFieldBytes).contains(length) else {
            throw .malformed(try garbage(number, isTooLate))
        }
        let kind = try readKind(length, isTooLate)
        guard kind == SFTPKind.version else { throw .malformed("a first packet of kind \(kind)") }
        return try readBytes(length - 1, isTooLate)
    }

    /// A length that is none is often the beginning of a text that a login script prints.
    private func garbage(_ number: UInt32, _ isTooLate: () -> Bool) throws(End) -> String {
        var text = withUnsafeBytes(of: number.bigEndian) { [UInt8]($0) }
        text += UnsafeRawBufferPointer(rebasing: buffer[start..<end])
        let words = printable(text.prefix { $0 != UInt8(ascii: "\n") })
        return "its first words are \"\(words)\"; an account's login scripts must print nothing"
    }

    private func readKind(_ length: Int, _ isTooLate: () -> Bool) throws(End) -> UInt8 {
        guard length >= 1 else { throw .malformed("an empty packet") }
        var kind: UInt8 = 0
        try withUnsafeMutableBytes(of: &kind) { (bytes) throws(End) in
            try read(into: bytes, isTooLate)
        }
        return kind
    }

    func readNumber(_ isTooLate: () -> Bool) throws(End) -> UInt32 {
        var number: UInt32 = 0
        try withUnsafeMutableBytes(of: &number) { (bytes) throws(End) in
            try read(into: bytes, isTooLate)
        }
        return UInt32(bigEndian: number)
    }

    private func readBytes(_ count: Int, _ isTooLate: () -> Bool) throws(End) -> [UInt8] {
        try [UInt8](unsafeUninitializedCapacity: count) { (bytes, filled) throws(End) in
            try read(
                into: UnsafeMutableRawBufferPointer(
                    UnsafeMutableBufferPointer(rebasing: bytes[..<count])), isTooLate)
            filled = count
        }
    }

    /// Fills `target`. What has been received lies in the stream's own buffer; the rest of a long
    /// target is received where it belongs.
    func read(into target: UnsafeMutableRawBufferPointer, _ isTooLate: () -> Bool) throws(End) {
        var filled = 0
        while filled < target.count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: target[filled...])
            if start < end {
                let count = min(rest.count, end - start)
                rest.copyMemory(
                    from: UnsafeRawBufferPointer(rebasing: buffer[start..<start + count]))
                start += count
                filled += count
            } else if rest.count >= buffer.count / 2 {
                filled += try receive(into: rest, isTooLate)
            } else {
                start = 0
                end = 0
                end = try receive(into: buffer, isTooLate)
            }
        }
    }

    private func receive(
        into target: UnsafeMutableRawBufferPointer, _ isTooLate: () -> Bool
    ) throws(End) -> Int {
        while true {
            switch process.receive(
                into: target, waitMilliseconds: SFTPStream.lookMilliseconds)
            {
            case .bytes(let count): return count
            case .ended: throw .closed
            case .nothing: if isTooLate() { throw .late }
            }
        }
    }

    /// Ends the process and says why the stream ended.
    func explain(
        _ end: End, _ process: SSHProcess, wasConnected: Bool, seconds: Int
    ) -> SSHFailure {
        switch end {
        case .closed:
            // ssh ends by itself once it has said why.
            let code = process.end(waitMilliseconds: 2_000)
            return SSHFailure.ended(
                saying: process.saidErrors, exitCode: code, wasConnected: wasConnected)
        case .late:
            process.end(waitMilliseconds: 0)
            return SSHFailure.stalled(seconds: seconds)
        case .malformed(let what):
            process.end(waitMilliseconds: 0)
            return SSHFailure.malformed(what)
        }
    }
}
