package import AgeEncryption
package import SnapshotModel

/// One frame as a scan has found it.
package struct ScannedFrame: Sendable {
    /// Just what the index should say of it.
    package let record: FrameRecord
    /// In order of offset, one for each of the record's chunks.
    package let members: [ScannedMember]
    /// The raw bytes, in which the chunks lie; valid until the scanner goes on.
    package let raw: ByteBuffer

    /// Where a member stands in the raw bytes, from its headers to the end of its padding.
    package func range(ofMember number: Int) -> Range<Int> {
        func end(_ place: ChunkPlace) -> Int { Tar.padded(Int(place.offset) + Int(place.length)) }
        let start = number == 0 ? 0 : end(members[number - 1].place)
        return start..<end(members[number].place)
    }
}

/// Reads a whole bundle as a stream, checks all of it, and says what is in it, down to each chunk's
/// id. Trusts nothing and needs no index; this is how an index is rebuilt and how content is
/// verified.
///
/// Holds one frame at a time in memory. One thread at a time. After an error every further call
/// throws the same.
package final class BundleScanner: @unchecked Sendable {
    // Sendable: has one owner at a time, which hands it over whole.
    private enum Stage {
        case prefix
        case frameHeader
        case frame(ZstdFrameWalker)
    }

    private static let usedUpBytes = 4 << 20

    private var decryptor: AgeDecryptor?
    private let opener: FrameOpener
    private let raw = ByteBuffer(capacity: 64 << 10)
    /// Plain text that has come and is not yet used up, from `position` on.
    private let pending = ByteBuffer(capacity: 1 << 20)
    private var position = 0
    private var stage = Stage.prefix
    /// Offset of `position` in the plain text.
    private var plainOffset = 0
    private var storedBytes = 0
    private var digest = DigestStream()
    private let known: BundleID?
    private var md5: MD5Stream?
    private var frames: [FrameRecord] = []
    private var kind: BundleKind?
    private var endsArchive = false
    private var failure: BundleError?

    /// - Parameters:
    ///   - identities: Empty for a bundle that is not sealed.
    ///   - wantsMD5: Whether the result shall tell the MD5 of the stored bytes.
    ///   - known: What the stored bytes have just been found to hash to: they are not hashed again.
    package init(
        identities: [AgeIdentity], wantsMD5: Bool = false, known: BundleID? = nil
    ) throws(BundleError) {
        self.known = known
        decryptor = identities.isEmpty ? nil : AgeDecryptor(identities: identities)
        md5 = wantsMD5 ? MD5Stream() : nil
        opener = try FrameOpener()
    }

    /// Takes the next stored bytes, of any length, and shows each frame that they complete.
    package func feed(
        _ bytes: UnsafeRawBufferPointer, _ visit: (ScannedFrame) -> Void
    ) throws(BundleError) {
        if let failure { throw failure }
        storedBytes += bytes.count
        if known == nil { digest.update(bytes) }
        md5?.update(bytes)
        // What the seal yields goes into `pending` in small steps, so that a long feed does not
        // pile up.
        var rest = bytes
        while !rest.isEmpty {
            let step = UnsafeRawBufferPointer(rebasing: rest.prefix(1 << 20))
            rest = UnsafeRawBufferPointer(rebasing: rest[step.count...])
            do throws(BundleError) {
                try unseal(step)
                try parse(visit)
            } catch {
                failure = error
                throw error
            }
        }
    }

    /// Ends the scan. The whole bundle has been checked when this returns.
    ///
    /// - Parameter name: The id that the stored bytes should have, where one is known.
    package func finish(
        expecting name: BundleID? = nil, _ visit: (ScannedFrame) -> Void
    ) throws(BundleError) -> SealedBundle {
        if let failure { throw failure }
        do throws(BundleError) {
            return try end(name, visit)
        } catch {
            failure = error
            throw error
        }
    }

    private func end(
        _ name: BundleID?, _ visit: (ScannedFrame) -> Void
    ) throws(BundleError) -> SealedBundle {
        let id: BundleID = known ?? digest.finish()
        if let name, name != id {
            throw BundleError(
                .damaged, "read", "bundle \(name.short)…", "its bytes hash to \(id.short)…")
        }
        if let decryptor = decryptor.take() {
            do throws(AgeError) {
                try decryptor.finish { self.pending.append($0) }
            } catch {
                throw BundleError(error, "open", "a bundle")
            }
            try parse(visit)
        }
        guard pending.count == position, case .frameHeader = stage else {
            throw malformed("it ends within a frame")
        }
        guard endsArchive else { throw malformed("its archive is not ended") }
        guard let kind else { throw malformed("it holds no chunk") }
        return SealedBundle(
            id: id, kind: kind, size: storedBytes, plain: plainOffset, md5: md5?.finish(),
            frames: frames)
    }

    private func unseal(_ bytes: UnsafeRawBufferPointer) throws(BundleError) {
        if position > Self.usedUpBytes || position == pending.count {
            // What is left over is less than a frame; it moves to the front, now and then.
            let left = pending.count - position
            moveToFront(left)
            position = 0
        }
        if decryptor == nil {
            pending.append(bytes)
            return
        }
        do throws(AgeError) {
            try decryptor!.update(bytes) { self.pending.append($0) }
        } catch {
            throw BundleError(error, "open", "a bundle")
        }
    }

    private func moveToFront(_ left: Int) {
        UnsafeMutableRawBufferPointer(start: pending.base, count: left).copyMemory(
            from: UnsafeRawBufferPointer(start: pending.base + position, count: left))
        pending.count = left
    }

    private var rest: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: pending.bytes[position...])
    }

    private func parse(_ visit: (ScannedFrame) -> Void) throws(BundleError) {
        while true {
            switch stage {
            case .prefix:
                guard rest.count >= BundleWriter.prefixBytes else { return }
                guard
                    rest.loadUnaligned(as: UInt32.self).littleEndian == BundleWriter.skippableMagic,
                    rest.loadUnaligned(fromByteOffset: 4, as: UInt32.self).littleEndian
                        == BundleWriter.randomBytes
                else { throw malformed("it does not begin with the random frame of a bundle") }
                consume(BundleWriter.prefixBytes)
                stage = .frameHeader
            case .frameHeader:
                guard let header = try readHeader() else { return }
                guard !endsArchive else {
                    throw malformed("a frame follows the end of the archive")
                }
                stage = .frame(ZstdFrameWalker(header))
            case .frame(var walker):
                do throws(ZstdFrameHeader.Failure) {
                    try walker.advance(rest)
                } catch {
                    throw translate(error)
                }
                guard let length = walker.frameBytes else {
                    stage = .frame(walker)
                    return
                }
                try readFrame(length, visit)
                consume(length)
                stage = .frameHeader
            }
        }
    }

    private func readHeader() throws(BundleError) -> ZstdFrameHeader? {
        do throws(ZstdFrameHeader.Failure) {
            return try ZstdFrameHeader(rest, maximumContent: BundleLimits.rawFrameBytes)
        } catch .needsMoreBytes {
            return nil
        } catch {
            throw translate(error)
        }
    }

    private func readFrame(
        _ length: Int, _ visit: (ScannedFrame) -> Void
    ) throws(BundleError) {
        let bytes = UnsafeRawBufferPointer(rebasing: rest.prefix(length))
        try opener.decompress(bytes, at: plainOffset, into: raw)
        var tar = TarReader(raw.bytes, frameOffset: plainOffset)
        var members: [ScannedMember] = []
        while let member = try tar.next() {
            guard kind == nil || kind == member.kind.bundleKind else {
                throw malformed("it mixes chunks of files with pieces of manifests")
            }
            kind = member.kind.bundleKind
            members.append(member)
        }
        guard raw.count > 0 else { throw .frame(.malformed, at: plainOffset, "it is empty") }
        endsArchive = tar.endsArchive
        let record = FrameRecord(
            offset: plainOffset, length: length, raw: raw.count,
            fingerprint: ContentHash.fingerprint(raw.bytes), chunks: members.map(\.place))
        frames.append(record)
        visit(ScannedFrame(record: record, members: members, raw: raw))
    }

    private func consume(_ bytes: Int) {
        position += bytes
        plainOffset += bytes
    }

    private func translate(_ failure: ZstdFrameHeader.Failure) -> BundleError {
        switch failure {
        case .needsMoreBytes: malformed("it ends within a frame")
        case .refused(let kind, let cause): .frame(kind, at: plainOffset, cause)
        }
    }

    private func malformed(_ cause: String) -> BundleError {
        BundleError(.malformed, "read", "a bundle", cause)
    }
}
