import CSystem
import Glibc
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

/// One suite on every kind of store: what holds for a directory holds wherever a repository lies.
@Suite("A repository on every store")
struct EveryStoreTests {
    private static let kinds = StoreKind.allCases.filter { $0 != .ceph }

    @Test(
        "It is made, backed up to, restored from, verified, found damaged, and whole again",
        .timeLimit(.minutes(5)), arguments: kinds)
    func life(kind: StoreKind) throws { try liveThrough(StorePlace(kind)) }

    @Test("A record that was altered where it lies is named and believed by nobody", arguments: kinds)
    func forgedRecord(kind: StoreKind) throws {
        let place = try StorePlace(kind)
        let world = try World(store: try place.store(), at: place.location, sourceInMemory: true)
        plantTree(world.source, files: 10, largeBytes: 0)
        try world.backup { $0.uploads = place.uploads }
        let store = try place.bareStore()
        let snapshot = try #require(try store.list(prefix: "snapshots/").first).key
        try alter(snapshot, in: store)
        let report = try world.verify(on: try world.addHost("stranger"))
        #expect(report.findings.contains { $0.isDamage && $0.object == snapshot.text })
    }
}

/// The same on a real distributed object store; in a suite of its own, since it takes its time to
/// come up.
@Suite("A repository on Ceph")
struct CephTests {
    @Test("The store keeps every promise on a Ceph RADOS Gateway", .timeLimit(.minutes(5)))
    func contract() throws {
        let place = try StorePlace(.ceph)
        #expect(StoreContract.run(try place.bareStore()) == [])
    }

    @Test(
        "A repository is made there, backed up to, restored from, verified, found damaged, and whole again",
        .timeLimit(.minutes(5)))
    func life() throws { try liveThrough(StorePlace(.ceph)) }
}

/// The life of a repository, from `init` to the night after a damage.
private func liveThrough(_ place: StorePlace) throws {
    let world = try World(store: try place.store(), at: place.location, sourceInMemory: true)
    // More than one bundle, so that several are under way at once.
    plantTree(world.source, files: 60, largeBytes: 70 << 20)
    var images = [TreeImage(of: world.source.path)]
    let first = try world.backup { $0.uploads = place.uploads }
    #expect(first.statistics.newBytes > 70 << 20)
    world.settle()

    let second = try world.backup { $0.uploads = place.uploads }
    #expect(second.statistics.readBytes == 0 && second.statistics.newBytes == 0)
    images.append(images[0])

    world.source.put(SeededGenerator.numbers(2, 3 << 20), "dir-2/new")
    #expect(unlink(world.source.path("dir-1/sub-1/file-1")) == 0)
    try world.backup { $0.uploads = place.uploads }
    images.append(TreeImage(of: world.source.path))
    try checkAll(images, in: world)

    var report = try world.verify(data: true)
    #expect(report.isSound, "\(report.findings.map(\.description))")

    // The largest object is a bundle of the first night, and every snapshot needs it.
    let store = try place.bareStore()
    let bundles = try store.list(prefix: "bundles/")
    let largest = try #require(bundles.max { $0.length < $1.length })
    try alter(largest.key, in: store)
    report = try world.verify(data: true)
    #expect(report.findings.contains { $0.isDamage && $0.object == largest.key.text })
    try store.delete(largest.key)
    report = try world.verify()
    #expect(
        report.findings.contains {
            $0.kind == .bundleMissing && $0.object == largest.key.text
        })

    // What is lost is packed again by the next run, and all snapshots are whole.
    try world.backup { $0.uploads = place.uploads }
    images.append(images[2])
    try checkAll(images, in: world)
    report = try world.verify(data: true)
    #expect(report.findings.allSatisfy { !$0.isDamage || $0.kind == .bundleMissing })
}

private func checkAll(_ images: [TreeImage], in world: World) throws {
    let snapshots = try world.snapshots()
    #expect(snapshots.count == images.count)
    for (snapshot, image) in zip(snapshots, images) {
        #expect(image.differences(try world.image(of: snapshot)) == [])
    }
}

/// Replaces an object by one of the same length with other bytes in its middle.
private func alter(_ key: ObjectKey, in store: any ObjectStore) throws {
    var bytes = try store.get(key)
    bytes[bytes.count / 2] ^= 1
    try store.delete(key)
    try store.put(bytes, at: key)
}
