import Glibc
import ObjectStorage
import TestSupport
import Testing

@Suite("Errors of a store")
struct StorageErrorTests {
    @Test("An error says what could not be done, to what, where, and why")
    func sentences() {
        let error = StorageError(
            .noSpace, .put, key: ObjectKey(validated: "bundles/ab/c"), location: "/srv/backup",
            cause: "No space left on device (write)")
        #expect(
            error.description
                == "cannot store bundles/ab/c in /srv/backup: No space left on device (write)")
        let opening = StorageError(.notFound, .open, location: "/srv/backup", cause: "gone (open)")
        #expect(opening.description == "cannot open the store at /srv/backup: gone (open)")
    }

    @Test("Every kind of error comes with a remedy, for an object and for a store")
    func remedies() {
        for kind in StorageError.Kind.allCases {
            for key in [nil, ObjectKey("a")] {
                let error = StorageError(kind, .get, key: key, location: "", cause: "")
                #expect(!error.remedy.isEmpty)
            }
        }
    }

    @Test("A directory for spool files that is missing is no missing repository")
    func missingSpoolDirectory() {
        let path = TemporaryDirectory().path("none")
        let error = #expect(throws: StorageError.self) { try SpoolFile.temporary(in: path) }
        #expect(error?.kind == .notFound)
        #expect(
            error?.description
                == "cannot write a temporary file in \(path): No such file or directory (open)")
        #expect(error?.remedy.contains("--spool-directory") == true)
    }

    @Test(
        "An errno becomes the kind of error that it means, and a passing one may be retried",
        arguments: [
            (ENOSPC, StorageError.Kind.noSpace, false), (EDQUOT, .noSpace, false),
            (EACCES, .denied, false), (EPERM, .denied, false), (EROFS, .readOnly, false),
            (EIO, .io, false), (ENOTDIR, .notADirectory, false), (EXDEV, .unsupported, false),
            (EFBIG, .tooLarge, false), (EMFILE, .unavailable, true), (ESTALE, .unavailable, true),
            (ETIMEDOUT, .unavailable, true), (ENODEV, .unavailable, false), (EUCLEAN, .io, false),
        ])
    func kinds(code: Int32, kind: StorageError.Kind, isTransient: Bool) throws {
        let directory = TemporaryDirectory()
        let operations = FaultyFileOperations { _, call in call == .write ? .fail(code) : .pass }
        let store = try LocalStore.create(at: directory.path("store"), operations: operations)
        let error = #expect(throws: StorageError.self) {
            try store.put([1], at: ObjectKey(validated: "a"))
        }
        #expect(error?.kind == kind)
        #expect(error?.isTransient == isTransient)
        #expect(error?.cause == "\(String(cString: strerror(code))) (write)")
    }
}
