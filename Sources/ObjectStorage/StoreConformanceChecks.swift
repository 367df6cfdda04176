import CSystem
import Synchronization

/// The checks themselves, one for each promise.
extension StoreConformance {
    func checkReadAfterWrite() throws(Broken) {
        for index in 0..<8 {
            let bytes = sample(100 + index, seed: index)
            try put(content(bytes), "read/\(index)")
            try expect(bytes, at: "read/\(index)")
            let listed = try attempt("list") { () throws(StorageError) in
                try store.list(prefix: prefix + "read/")
            }
            try require(
                listed.count == index + 1, "a listing right after put \(index) has \(listed.count)")
        }
    }

    func checkSizes() throws(Broken) {
        for size in [0, 1, 4095, 4096, 65_536, 65_537, 1 << 20, 5_000_000] {
            let bytes = sample(size, seed: size)
            try put(content(bytes), "sizes/\(size)")
            try expect(bytes, at: "sizes/\(size)")
        }
    }

    func checkSpooled() throws(Broken) {
        for size in [0, 1, 65_536, 5_000_000] {
            let bytes = sample(size, seed: size + 1)
            let content = try spooled(bytes)
            try put(content, "spooled/\(size)")
            try expect(bytes, at: "spooled/\(size)")
            // A caller whose first answer was lost holds the same spool file still.
            try put(content, "spooled/\(size)")
            try expect(bytes, at: "spooled/\(size)", " after it was put again from its spool file")
            // And after the object was deleted it can be put from it once more.
            try attempt("delete") { () throws(StorageError) in
                try store.delete(key("spooled/\(size)"))
            }
            try put(content, "spooled/\(size)")
            try expect(bytes, at: "spooled/\(size)", " after it was deleted and put again")
        }
    }

    func checkHead() throws(Broken) {
        let bytes = sample(12_345, seed: 3)
        try put(content(bytes), "head/object")
        let found = try attempt("head") { () throws(StorageError) in
            try store.head(key("head/object"))
        }
        guard let found else { throw Broken("head does not see an object that was put") }
        try require(found.key == key("head/object"), "head answers for \(found.key)")
        try require(found.length == 12_345, "head tells \(found.length) bytes instead of 12345")
        let listed = try attempt("list") { () throws(StorageError) in
            try store.list(prefix: prefix + "head/")
        }
        try require(listed.count == 1, "a listing of one object has \(listed.count)")
        try require(
            listed[0].length == found.length, "a listing tells \(listed[0].length) bytes, not 12345"
        )
        if store.capabilities.listingShowsTime {
            try require(listed[0].modified != nil, "a listing shows no time")
        }
        if store.capabilities.listingShowsMD5 {
            try require(listed[0].md5?.count == 16, "a listing shows no MD5")
        }
    }

    func checkMissing() throws(Broken) {
        try put(content(sample(10, seed: 1)), "missing/there")
        for name in ["missing/none", "none/none", "none", "missing/there/none"] {
            try expectFailure(.notFound, "get of a missing \(name)") { () throws(StorageError) in
                try store.get(key(name))
            }
            try expectFailure(.notFound, "ranged get of a missing \(name)") {
                () throws(StorageError) in
                try read(0..<10, of: name).count
            }
            let found = try attempt("head of a missing object") { () throws(StorageError) in
                try store.head(key(name))
            }
            try require(found == nil, "head finds \(name), which is not there")
        }
        // What looks like a directory is no object.
        let directory = try attempt("head of a prefix") { () throws(StorageError) in
            try store.head(key("missing"))
        }
        try require(directory == nil, "head takes a prefix for an object")
    }

    func checkBounded() throws(Broken) {
        let bytes = sample(5_000, seed: 5)
        try put(content(bytes), "bounded/object")
        let read = try attempt("get within its bound") { () throws(StorageError) in
            try store.get(key("bounded/object"), maximumBytes: 5_000)
        }
        try require(read == bytes, "a get within its bound reads something else")
        try expectFailure(.tooLarge, "a get of 5,000 bytes bounded to 4,999") {
            () throws(StorageError) in
            try store.get(key("bounded/object"), maximumBytes: 4_999)
        }
    }

    func checkRanges() throws(Broken) {
        let size = 200_003
        let bytes = sample(size, seed: 7)
        try put(content(bytes), "ranges/object")
        try put(content([]), "ranges/empty")
        let ranges = [
            0..<1, 0..<size, 1..<2, 65_535..<65_537, 100_000..<170_000, size - 1..<size,
            size - 1..<size + 100, 0..<size + 1, size..<size + 1, size + 5..<size + 10, 0..<0,
            size..<size,
        ]
        for range in ranges {
            let read = try attempt("ranged get of \(range)") { () throws(StorageError) in
                try self.read(range, of: "ranges/object")
            }
            let expected = bytes[range.clamped(to: 0..<size)]
            try require(
                read.elementsEqual(expected),
                "range \(range) of \(size) bytes gives \(read.count) bytes, or others than were put"
            )
        }
        let none = try attempt("ranged get of an empty object") { () throws(StorageError) in
            try read(0..<10, of: "ranges/empty")
        }
        try require(none.isEmpty, "a range of an empty object gives \(none.count) bytes")
    }

    func checkIdempotentPut() throws(Broken) {
        let bytes = sample(3_000, seed: 11)
        for _ in 0..<3 {
            try put(content(bytes), "again/object")
            try expect(bytes, at: "again/object")
        }
        try put(try spooled(bytes), "again/object")
        try expect(bytes, at: "again/object", " after it was put again from a spool file")
    }

    func checkWrittenOnce() throws(Broken) {
        let bytes = sample(3_000, seed: 13)
        try put(content(bytes), "once/object")
        for other in [sample(2_999, seed: 14), sample(3_001, seed: 15), []] {
            try expectFailure(.exists, "a put of \(other.count) bytes over 3,000") {
                () throws(StorageError) in
                try store.put(content(other), at: key("once/object"))
            }
            let spooled = try spooled(other)
            try expectFailure(.exists, "a put of \(other.count) spooled bytes over 3,000") {
                () throws(StorageError) in
                try store.put(spooled, at: key("once/object"))
            }
            try expect(bytes, at: "once/object", " after another was put there")
        }
    }

    func checkIdempotentDelete() throws(Broken) {
        try put(content(sample(10, seed: 17)), "delete/object")
        try put(content(sample(10, seed: 18)), "delete/other")
        for name in ["delete/object", "delete/object", "delete/none", "nowhere/none"] {
            try attempt("delete of \(name)") { () throws(StorageError) in
                try store.delete(key(name))
            }
        }
        try expectFailure(.notFound, "get of a deleted object") { () throws(StorageError) in
            try store.get(key("delete/object"))
        }
        let found = try attempt("head") { () throws(StorageError) in
            try store.head(key("delete/object"))
        }
        try require(found == nil, "head finds a deleted object")
        let left = try attempt("list") { () throws(StorageError) in
            try store.list(prefix: prefix + "delete/").map(\.key)
        }
        try require(left == [key("delete/other")], "after the delete a listing gives \(left)")
        // A name may be used again after it was deleted, by an object of another length.
        try put(content(sample(20, seed: 19)), "delete/object")
        try expect(sample(20, seed: 19), at: "delete/object")
    }

    func checkLegalKeys() throws(Broken) {
        let room = ObjectKey.maximumBytes - prefix.utf8.count - "keys/".utf8.count
        let depth = max(1, min(12, room / 60))
        let names = [
            "Z", "0", ".hidden", "...", "..a", "-", "--flag", "_", "a.b-c_d", "UPPER.json",
            "tmp/object", "lost.found/x", "a-b/c", "a/c.d", "con.txt",
            String(repeating: "n", count: min(255, room)),
            Array(repeating: String(repeating: "d", count: 50), count: depth).joined(
                separator: "/"),
        ]
        for (index, name) in names.enumerated() {
            try put(content(sample(index + 1, seed: index)), "keys/" + name)
        }
        for (index, name) in names.enumerated() {
            try expect(sample(index + 1, seed: index), at: "keys/" + name)
        }
        let listed = try attempt("list") { () throws(StorageError) in
            try store.list(prefix: prefix + "keys/").map(\.key)
        }
        let expected = names.map { key("keys/" + $0) }.sorted()
        try require(listed == expected, "a listing of unusual names gives \(listed)")
        for name in names {
            try attempt("delete of \(name)") { () throws(StorageError) in
                try store.delete(key("keys/" + name))
            }
        }
    }

    func checkListing() throws(Broken) {
        // Spread over directories, as bundles are, with lengths that tell them apart.
        let names = (0..<listedObjects).map { index in
            "many/\(index % 7)/" + sample(4, seed: index).map(String.init).joined() + "-\(index)"
        }
        try concurrently(8) { (worker) throws(Broken) in
            for index in stride(from: worker, to: names.count, by: 8) {
                try put(content(sample(index % 50, seed: index)), names[index])
            }
        }
        let listed = try attempt("list") { () throws(StorageError) in
            try store.list(prefix: prefix + "many/")
        }
        let expected = names.enumerated()
            .map { (key: key($0.element), length: $0.offset % 50) }
            .sorted { $0.key < $1.key }
        try require(
            listed.count == expected.count,
            "a listing of \(expected.count) objects gives \(listed.count)")
        for (found, put) in zip(listed, expected) {
            try require(
                found.key == put.key, "a listing gives \(found.key) where \(put.key) belongs")
            try require(
                found.length == put.length,
                "a listing says \(found.length) bytes of \(put.key), which has \(put.length)")
        }
        // A listing that was broken off is taken up behind any of its objects.
        for index in [0, expected.count / 2, expected.count - 1] {
            var rest: [ObjectKey] = []
            try attempt("list from the middle") { () throws(StorageError) in
                try store.list(prefix: prefix + "many/", after: expected[index].key) { object in
                    rest.append(object.key)
                    return true
                }
            }
            try require(
                rest == expected.dropFirst(index + 1).map(\.key),
                "a listing from behind object \(index) of \(expected.count) gives \(rest.count)")
        }
    }

    func checkListingPrefixes() throws(Broken) {
        // Each of these would be confused with another by some mistake of ordering or comparing.
        let names = [
            "p/a", "p/a-b/x", "p/a.b/x", "p/ab", "p/b/x", "p/b/y/z", "p/b0", "p-q/x", "pq/x",
        ]
        for name in names { try put(content(sample(5, seed: 23)), "prefix/" + name) }
        for (listed, expected) in [
            ("p/", names.filter { $0.hasPrefix("p/") }), ("p/b/", ["p/b/x", "p/b/y/z"]),
            ("p/b/y/", ["p/b/y/z"]), ("pq/", ["pq/x"]), ("q/", []), ("p/a/", []), ("", names),
        ] {
            let found = try attempt("list of \(listed)") { () throws(StorageError) in
                try store.list(prefix: prefix + "prefix/" + listed).map(\.key)
            }
            let wanted = expected.map { key("prefix/" + $0) }.sorted()
            try require(found == wanted, "a listing of \(listed) gives \(found), not \(wanted)")
        }
        let sorted = names.map { key("prefix/" + $0) }.sorted()
        for last in [sorted[0], sorted[3], sorted[8], key("prefix/a"), key("prefix/z")] {
            var found: [ObjectKey] = []
            try attempt("list behind \(last)") { () throws(StorageError) in
                try store.list(prefix: prefix + "prefix/", after: last) { object in
                    found.append(object.key)
                    return true
                }
            }
            let wanted = sorted.filter { $0 > last }
            try require(found == wanted, "a listing behind \(last) gives \(found), not \(wanted)")
        }
        var seen = 0
        try attempt("list") { () throws(StorageError) in
            try store.list(prefix: prefix + "prefix/") { _ in
                seen += 1
                return seen < 3
            }
        }
        try require(seen == 3, "a listing that was told to stop after 3 objects gave \(seen)")
    }

    func checkThreads() throws(Broken) {
        try concurrently(8) { (worker) throws(Broken) in
            for index in 0..<12 {
                let name = "threads/\(index)/\(worker)"
                let bytes = sample(1_000 * worker + index, seed: worker * 100 + index)
                try put(index % 2 == 0 ? content(bytes) : try spooled(bytes), name)
                try expect(bytes, at: name)
                let range = try attempt("ranged get") { () throws(StorageError) in
                    try self.read(index..<index + 500, of: name)
                }
                try require(
                    range.elementsEqual(bytes.dropFirst(index).prefix(500)),
                    "a range read beside other threads differs")
                if index % 3 == 0 {
                    try attempt("delete") { () throws(StorageError) in try store.delete(key(name)) }
                }
            }
        }
        let listed = try attempt("list") { () throws(StorageError) in
            try store.list(prefix: prefix + "threads/").count
        }
        try require(listed == 64, "eight threads left \(listed) objects instead of 64")
    }

    /// What others see of an object while it is put: nothing, or all of it.
    ///
    /// Some servers list a name a moment before its object can be read. Readers of a repository bear
    /// with a record that is listed and not there; but what was put completely has to stay.
    func checkAtomicPut() throws(Broken) {
        let bytes = sample(2_000_000, seed: 29)
        let count = 10
        let completed = Atomic<Int>(0)
        let isDone = Atomic<Bool>(false)
        try concurrently(2) { (worker) throws(Broken) in
            if worker == 0 {
                defer { isDone.store(true, ordering: .releasing) }
                for index in 0..<count {
                    try put(content(bytes), "atomic/\(index)")
                    completed.store(index + 1, ordering: .releasing)
                }
                return
            }
            while !isDone.load(ordering: .acquiring) {
                let whole = completed.load(ordering: .acquiring)
                let found = try attempt("list") { () throws(StorageError) in
                    try store.list(prefix: prefix + "atomic/")
                }
                if let part = found.first(where: { $0.length != bytes.count }) {
                    throw Broken(
                        "\(part.key) was listed with \(part.length) bytes while it was put")
                }
                let listed = Set(found.map(\.key))
                for index in 0..<whole {
                    try require(
                        listed.contains(key("atomic/\(index)")),
                        "\(key("atomic/\(index)")) was not listed although its put had succeeded")
                }
                guard let last = found.last else { continue }
                let wasWhole = (0..<completed.load(ordering: .acquiring)).contains {
                    key("atomic/\($0)") == last.key
                }
                do throws(StorageError) {
                    let read = try store.get(last.key)
                    guard read != bytes else { continue }
                } catch {
                    if error.kind == .notFound, !wasWhole { continue }
                    throw Broken(
                        error.kind == .notFound
                            ? "\(last.key) was not there although its put had succeeded"
                            : "get failed: \(error)")
                }
                throw Broken("\(last.key) was read while only a part of it was there")
            }
        }
        for index in 0..<count { try expect(bytes, at: "atomic/\(index)") }
    }

    func checkRacingPuts() throws(Broken) {
        for round in 0..<4 {
            let bytes = sample(50_000, seed: 31 + round)
            try concurrently(6) { (worker) throws(Broken) in
                try put(worker % 2 == 0 ? content(bytes) : try spooled(bytes), "racing/\(round)")
            }
            try expect(bytes, at: "racing/\(round)")
        }
        // Different lengths: exactly one of them wins, and stays.
        let wins = Atomic<Int>(0)
        try concurrently(6) { (worker) throws(Broken) in
            do throws(StorageError) {
                try store.put(content(sample(1_000 + worker, seed: worker)), at: key("racing/one"))
                wins.wrappingAdd(worker + 1, ordering: .relaxed)
            } catch {
                try require(error.kind == .exists, "a put that lost a race failed with \(error)")
            }
        }
        let winner = wins.load(ordering: .relaxed) - 1
        try require(winner >= 0 && winner < 6, "of six puts of one key several succeeded, or none")
        try expect(sample(1_000 + winner, seed: winner), at: "racing/one")
    }

    /// Puts an object with the digests of another, as it looks when bytes change on their way.
    ///
    /// - Returns: Whether anybody noticed.
    func checkChecksums() throws(Broken) -> Bool {
        let bytes = sample(10_000, seed: 41)
        let damaged = ObjectContent(
            bytes: bytes, digest: digest(sample(10_000, seed: 42)), md5: sample(16, seed: 43))
        do throws(StorageError) {
            try store.put(damaged, at: key("damaged/object"))
            return false
        } catch {
            try require(error.kind == .io, "a damaged object is refused with \(error)")
        }
        let found = try attempt("head") { () throws(StorageError) in
            try store.head(key("damaged/object"))
        }
        try require(found == nil, "an object that was refused is there all the same")
        try put(content(bytes), "damaged/object")
        try expect(bytes, at: "damaged/object", " after it was refused once")
        return true
    }

    func checkManyDeletes() throws(Broken) {
        let names = (0..<40).map { "deletes/\($0 % 3)/\($0)" }
        try concurrently(8) { (worker) throws(Broken) in
            for index in stride(from: worker, to: names.count, by: 8) {
                try put(content(sample(index, seed: index)), names[index])
            }
        }
        let kept = names[17]
        let doomed = names.filter { $0 != kept } + ["deletes/none", "nowhere/at/all"]
        var failures: [String] = []
        store.delete(doomed.map { key($0) }) { failures.append("\($0): \($1)") }
        try require(failures.isEmpty, "deleting many objects failed: \(failures.first ?? "")")
        let left = try attempt("list") { () throws(StorageError) in
            try store.list(prefix: prefix + "deletes/").map(\.key)
        }
        try require(left == [key(kept)], "after many deletes a listing gives \(left)")
    }

    /// One call after another, of each kind.
    func measureSpeed() throws(Broken) -> [Figure] {
        let large = try spooled(sample(StoreConformance.largeBytes, seed: 47))
        let small = content(sample(StoreConformance.smallBytes, seed: 48))
        let largeKey = key("speed/large/2")
        let buffer = UnsafeMutableRawBufferPointer.allocate(
            byteCount: StoreConformance.largeBytes, alignment: 64)
        defer { buffer.deallocate() }
        var figures: [Figure] = []
        func measure(
            _ operation: String, _ count: Int, bytes: Int = 0,
            _ body: (Int) throws(StorageError) -> Void
        ) throws(Broken) {
            var seconds: [Double] = []
            for index in 0..<count {
                let start = csys_boottime_ns()
                try attempt(operation) { () throws(StorageError) in try body(index) }
                seconds.append(Double(csys_boottime_ns() - start) / 1e9)
            }
            let middle = seconds.sorted()[count / 2]
            figures.append(Figure(operation: operation, seconds: middle, bytes: bytes))
        }
        try measure("put of 8 MiB", 3, bytes: large.length) { (index) throws(StorageError) in
            try store.put(large, at: key("speed/large/\(index)"))
        }
        try measure("put of 4 KiB", 10, bytes: small.length) { (index) throws(StorageError) in
            try store.put(small, at: key("speed/small/\(index)"))
        }
        try measure("get of 8 MiB", 3, bytes: large.length) { (_) throws(StorageError) in
            _ = try store.get(largeKey, range: 0..<large.length, into: buffer)
        }
        try measure("get of 4 KiB", 10, bytes: small.length) { (index) throws(StorageError) in
            let start = index * 500_000
            _ = try store.get(
                largeKey, range: start..<start + small.length,
                into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<small.length]))
        }
        try measure("head", 10) { (_) throws(StorageError) in _ = try store.head(largeKey) }
        try measure("list", 5) { (_) throws(StorageError) in
            _ = try store.list(prefix: prefix + "speed/small/")
        }
        try measure("delete", 10) { (index) throws(StorageError) in
            try store.delete(key("speed/small/\(index)"))
        }
        return figures
    }

    func checkClock() throws(Broken) {
        let before = try attempt("clock") { () throws(StorageError) in try store.currentTime() }
        try put(content(sample(10, seed: 37)), "clock/object")
        let after = try attempt("clock") { () throws(StorageError) in try store.currentTime() }
        try require(before <= after, "the store's clock went from \(before) to \(after)")
        let found = try attempt("list") { () throws(StorageError) in
            try store.list(prefix: prefix + "clock/").first
        }
        guard let modified = found?.modified else { throw Broken("a new object has no time") }
        // Servers round times in either direction.
        try require(
            (before - 2...after + 2).contains(modified),
            "an object put between \(before) and \(after) is said to be of \(modified)")
    }

    func cleanUp() throws(Broken) {
        let listed = try attempt("list") { () throws(StorageError) in
            try store.list(prefix: prefix)
        }
        try concurrently(8) { (worker) throws(Broken) in
            let share = stride(from: worker, to: listed.count, by: 8).map { listed[$0].key }
            var failure: StorageError?
            store.delete(share) { failure = failure ?? $1 }
            if let failure { throw Broken("delete failed: \(failure)") }
        }
        let left = try attempt("list") { () throws(StorageError) in
            try store.list(prefix: prefix)
        }
        try require(left.isEmpty, "\(left.count) objects are left, \(left.first?.key.text ?? "")")
        store.removeEmptyDirectories(below: prefix)
    }

    private func read(_ range: Range<Int>, of name: String) throws(StorageError) -> [UInt8] {
        try [UInt8](unsafeUninitializedCapacity: range.count) {
            (buffer, count) throws(StorageError) in
            count = try store.get(
                key(name), range: range,
                into: UnsafeMutableRawBufferPointer(
                    UnsafeMutableBufferPointer(rebasing: buffer[..<range.count])))
        }
    }

    /// Runs `body` on `count` threads at once and throws what the first of them threw.
    private func concurrently(
        _ count: Int, _ body: @Sendable (Int) throws(Broken) -> Void
    ) throws(Broken) {
        let failure = Mutex<Broken?>(nil)
        withoutActuallyEscaping(body) { body in
            runOnThreads(count) { worker in
                do throws(Broken) {
                    try body(worker)
                } catch {
                    failure.withLock { $0 = $0 ?? error }
                }
            }
        }
        if let failure = failure.withLock({ $0 }) { throw failure }
    }
}
