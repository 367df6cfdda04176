import Foundation

/// The system's zlib, loaded when a test needs it, so that no target has to link it.
enum Zlib {
    struct Failure: Error {
        let reason: String
    }

    private typealias Uncompress =
        @convention(c) (
            UnsafeMutablePointer<UInt8>?, UnsafeMutablePointer<UInt>, UnsafePointer<UInt8>?, UInt
        ) -> Int32

    /// The data in a zlib stream (RFC 1950).
    static func inflate(_ compressed: [UInt8]) throws -> [UInt8] {
        guard let library = dlopen("libz.so.1", RTLD_NOW),
            let symbol = dlsym(library, "uncompress")
        else { throw Failure(reason: "libz.so.1 is missing") }
        let uncompress = unsafeBitCast(symbol, to: Uncompress.self)
        // The stream does not say its length: -5 is zlib's word for an output that is too small.
        var capacity = 1 << 18
        while capacity <= 1 << 28 {
            var output = [UInt8](repeating: 0, count: capacity)
            var count = UInt(capacity)
            let result = uncompress(&output, &count, compressed, UInt(compressed.count))
            if result == 0 { return Array(output.prefix(Int(count))) }
            guard result == -5 else { throw Failure(reason: "zlib says \(result)") }
            capacity *= 4
        }
        throw Failure(reason: "more than 256 MiB")
    }
}
