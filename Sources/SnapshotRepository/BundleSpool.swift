import ObjectStorage

/// The file in which a bundle comes into being: for the directory store it is the temporary file
/// that becomes the object.
package final class BundleSpool: Sendable {
    let file: SpoolFile

    init(_ file: SpoolFile) { self.file = file }

    package func append(_ bytes: UnsafeRawBufferPointer) throws(RepositoryError) {
        try stored { () throws(StorageError) in try file.append(bytes) }
    }
}
