internal import CLibArchive
import Glibc
package import SnapshotModel

/// Writes entries as one pax archive that any tar reads, with everything that a manifest records:
/// nanoseconds, owners' names, extended attributes, access control lists, inode flags, hard links,
/// devices.
///
/// One thread at a time. After an error the archive is lost, and every further call throws the same
/// error.
package final class TarStream {
    private let archive: OpaquePointer
    private let entry: OpaquePointer
    private let emitter: Emitter
    private let locale: locale_t?
    private let name = ByteBuffer(capacity: 1024)
    private var failure: BundleError?
    /// Content bytes that the member begun last still wants.
    package private(set) var missing: UInt64 = 0

    /// Carries what the receiver throws around the C library.
    private final class Emitter {
        let emit: (UnsafeRawBufferPointer) throws -> Void
        var failure: (any Error)?
        init(_ emit: @escaping (UnsafeRawBufferPointer) throws -> Void) { self.emit = emit }
    }

    /// - Parameter emit: Takes the bytes of the archive in order, in pieces of any size, valid
    ///   during the call only. What it throws comes back as `.output` with the error itself in
    ///   `underlying`.
    package init(emit: @escaping (UnsafeRawBufferPointer) throws -> Void) throws(BundleError) {
        emitter = Emitter(emit)
        guard let entry = archive_entry_new(), let archive = archive_write_new() else {
            fatalError("out of memory")
        }
        self.entry = entry
        self.archive = archive
        // Names are bytes; libarchive looks at the locale before it calls them UTF-8.
        locale = newlocale(1 << LC_CTYPE, "C.UTF-8", nil)
        archive_write_set_format_pax(archive)
        // The one form of extended attributes that GNU tar and star read, too.
        archive_write_set_format_option(archive, "pax", "xattrheader", "SCHILY")
        archive_write_add_filter_none(archive)
        archive_write_set_bytes_per_block(archive, 0)
        let opened = archive_write_open(
            archive, Unmanaged.passUnretained(emitter).toOpaque(), nil,
            { archive, context, bytes, count in
                let emitter = Unmanaged<Emitter>.fromOpaque(context!).takeUnretainedValue()
                do {
                    try emitter.emit(UnsafeRawBufferPointer(start: bytes, count: count))
                    return count
                } catch {
                    emitter.failure = error
                    return -1
                }
            }, nil)
        guard opened == ARCHIVE_OK else { throw fail("begin") }
    }

    deinit {
        // One that was not finished writes no end when it is freed.
        archive_write_fail(archive)
        archive_write_free(archive)
        archive_entry_free(entry)
        if let locale { freelocale(locale) }
    }

    /// Begins a member. For a file with content exactly `size` bytes follow through `write`, zeros
    /// of holes included.
    ///
    /// - Parameters:
    ///   - path: Relative, as it stands in the archive.
    ///   - linkedTo: The path in the archive of an earlier member of which this is one more name;
    ///     it has no content of its own then.
    /// - Returns: False where tar has no such kind of member (sockets); nothing was written.
    package func begin(
        _ item: Entry, path: [UInt8], linkedTo: [UInt8]? = nil
    ) throws(BundleError) -> Bool {
        if let failure { throw failure }
        precondition(missing == 0, "the member before is not complete")
        if item.kind == .socket { return false }
        archive_entry_clear(entry)
        set(path) { archive_entry_set_pathname(entry, $0) }
        archive_entry_set_mode(entry, item.kind.modeBits | item.mode & 0o7777)
        archive_entry_set_uid(entry, Int64(item.uid))
        archive_entry_set_gid(entry, Int64(item.gid))
        if let user = item.user { set(user) { archive_entry_set_uname(entry, $0) } }
        if let group = item.group { set(group) { archive_entry_set_gname(entry, $0) } }
        // A fraction of a negative number of seconds is read in two ways; nobody misreads a whole
        // one.
        let fraction = item.mtime.seconds < 0 ? 0 : Int(item.mtime.nanoseconds)
        archive_entry_set_mtime(entry, Int(item.mtime.seconds), fraction)
        if item.kind.isDevice {
            archive_entry_set_rdevmajor(entry, dev_t(item.deviceMajor))
            archive_entry_set_rdevminor(entry, dev_t(item.deviceMinor))
        }
        if item.kind == .symlink { set(item.target) { archive_entry_set_symlink(entry, $0) } }
        archive_entry_set_size(entry, 0)
        if let linkedTo {
            set(linkedTo) { archive_entry_set_hardlink(entry, $0) }
        } else {
            if item.kind == .file {
                guard item.size <= UInt64(Int64.max) else { throw refuse(path, "it is too large") }
                archive_entry_set_size(entry, Int64(item.size))
                missing = item.size
            }
            addMetadata(item)
        }
        let before = uselocale(locale)
        // Where a name is not text in this locale, libarchive takes what errno holds from earlier
        // for the reason.
        errno = 0
        let result = archive_write_header(archive, entry)
        uselocale(before)
        // A warning says that a name is no UTF-8; it is written as the bytes that it is.
        guard result >= ARCHIVE_WARN else { throw fail("write") }
        return true
    }

    private func addMetadata(_ item: Entry) {
        if item.flags != 0 { archive_entry_set_fflags(entry, UInt(item.flags), 0) }
        for attribute in item.xattrs where !attribute.name.contains(0) {
            set(attribute.name) { name in
                attribute.value.withUnsafeBytes {
                    archive_entry_xattr_add_entry(entry, name, $0.baseAddress, $0.count)
                }
            }
        }
        if let acl = item.acl { addACL(acl, ARCHIVE_ENTRY_ACL_TYPE_ACCESS) }
        if let acl = item.defaultACL { addACL(acl, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT) }
    }

    /// `u::rwx,u:1000:r-x,g::r-x,m::rwx,o::r--`, as a manifest has it.
    private func addACL(_ text: [UInt8], _ type: Int32) {
        for item in text.split(separator: 0x2C) {
            let fields = item.split(separator: 0x3A, omittingEmptySubsequences: false)
            guard fields.count == 3, let letter = fields[0].first else { continue }
            let qualifier = Int32(
                truncatingIfNeeded: Int64(String(decoding: fields[1], as: UTF8.self)) ?? -1)
            let tag: Int32
            switch (letter, fields[1].isEmpty) {
            case (0x75, true): tag = ARCHIVE_ENTRY_ACL_USER_OBJ
            case (0x75, false): tag = ARCHIVE_ENTRY_ACL_USER
            case (0x67, true): tag = ARCHIVE_ENTRY_ACL_GROUP_OBJ
            case (0x67, false): tag = ARCHIVE_ENTRY_ACL_GROUP
            case (0x6D, _): tag = ARCHIVE_ENTRY_ACL_MASK
            case (0x6F, _): tag = ARCHIVE_ENTRY_ACL_OTHER
            default: continue
            }
            var permissions: Int32 = 0
            if fields[2].contains(0x72) { permissions |= ARCHIVE_ENTRY_ACL_READ }
            if fields[2].contains(0x77) { permissions |= ARCHIVE_ENTRY_ACL_WRITE }
            if fields[2].contains(0x78) { permissions |= ARCHIVE_ENTRY_ACL_EXECUTE }
            archive_entry_acl_add_entry(entry, type, permissions, tag, qualifier, nil)
        }
    }

    /// Appends content of the member begun last.
    package func write(_ bytes: UnsafeRawBufferPointer) throws(BundleError) {
        if let failure { throw failure }
        precondition(UInt64(bytes.count) <= missing, "more content than was said")
        guard bytes.count > 0 else { return }
        guard archive_write_data(archive, bytes.baseAddress, bytes.count) == bytes.count else {
            throw fail("write")
        }
        missing -= UInt64(bytes.count)
    }

    /// Ends the archive. All bytes have been emitted when this returns.
    package func finish() throws(BundleError) {
        if let failure { throw failure }
        precondition(missing == 0, "the last member is not complete")
        guard archive_write_close(archive) == ARCHIVE_OK else { throw fail("end") }
    }

    /// Hands bytes to C with a zero behind them; what follows a zero of their own is lost to C, and
    /// paths hold none.
    private func set(_ bytes: [UInt8], _ body: (UnsafePointer<CChar>) -> Void) {
        name.removeAll()
        name.append(bytes)
        name.append(0)
        body(UnsafePointer(name.base.assumingMemoryBound(to: CChar.self)))
    }

    private func fail(_ operation: String) -> BundleError {
        let cause =
            archive_error_string(archive).map { String(cString: $0) }
            ?? "libarchive gives no reason"
        let error =
            emitter.failure.map {
                BundleError(
                    .output, operation, "the archive", String(describing: $0), underlying: $0)
            } ?? BundleError(.library, operation, "the archive", cause)
        failure = error
        missing = 0
        return error
    }

    private func refuse(_ path: [UInt8], _ cause: String) -> BundleError {
        BundleError(.limit, "write", UTF8Text.display(path), cause)
    }
}
