/// Keeps what flows to and from a store below a rate.
///
/// What is sent over a line is paced piece by piece, since the content carries its pacer to the
/// store. Everything else is waited for before the call: what the last calls moved too fast is a
/// debt, and a call begins when there is none.
package struct ThrottledStore: StoreWrapper {
    package let base: any ObjectStore
    private let upload: TokenBucket?
    private let download: TokenBucket?
    private let surroundings: StoreSurroundings

    package init(
        _ base: any ObjectStore, upload: TokenBucket?, download: TokenBucket?,
        surroundings: StoreSurroundings = StoreSurroundings()
    ) {
        self.base = base
        self.upload = upload
        self.download = download
        self.surroundings = surroundings
    }

    package func perform<Result>(
        _ call: StoreCall, _ effect: () throws(StorageError) -> Result
    ) throws(StorageError) -> Result { try effect() }

    package func put(_ content: ObjectContent, at key: ObjectKey) throws(StorageError) {
        guard let upload else { return try base.put(content, at: key) }
        // A directory does not send its bytes, so it asks no pacer.
        if base.capabilities.isLocal {
            take(content.length, from: upload)
            return try base.put(content, at: key)
        }
        var content = content
        content.pacer = upload
        try base.put(content, at: key)
    }

    package func get(_ key: ObjectKey, maximumBytes: Int) throws(StorageError) -> [UInt8] {
        guard let download else { return try base.get(key, maximumBytes: maximumBytes) }
        take(0, from: download)
        let bytes = try base.get(key, maximumBytes: maximumBytes)
        download.settle(bytes.count)
        return bytes
    }

    package func get(
        _ key: ObjectKey, range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(StorageError) -> Int {
        guard let download else { return try base.get(key, range: range, into: buffer) }
        take(range.count, from: download)
        var count = 0
        defer { download.settle(count - range.count) }
        count = try base.get(key, range: range, into: buffer)
        return count
    }

    /// Waits for the bucket's debt to be paid and takes so many bytes. Who is to stop does not wait:
    /// the few calls that end a run are worth more than the line's peace.
    private func take(_ bytes: Int, from bucket: TokenBucket) {
        while true {
            let wait = bucket.take(bytes)
            guard wait > 0, surroundings.wait(until: surroundings.now() + wait) else { return }
        }
    }
}
