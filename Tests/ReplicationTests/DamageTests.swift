import BundleFormat
import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

@Suite("Damage, wherever it is and whatever is done next")
struct DamageCampaignTests {
    enum Place: String, Sendable, CaseIterable {
        case config, hostKey, recipients, index, firstSnapshot, lastSnapshot, content, manifest
    }

    enum Damage: String, Sendable, CaseIterable {
        case delete, truncate, flip, empty, rename
    }

    enum Action: String, Sendable, CaseIterable {
        case backup, restore, verify
    }

    private struct Scene {
        let world: World
        let store: MemoryStore
        let images: [TreeImage]
        let snapshots: [Snapshot]
    }

    /// Two generations, the second with a little more than the first.
    private func scene() throws -> Scene {
        let store = MemoryStore()
        let world = try World(store: store, sourceInMemory: true)
        plantTree(world.source, seed: 3, files: 24, largeBytes: 600_000)
        var images = [TreeImage(of: world.source.path)]
        try world.backup()
        world.settle()
        world.source.put(SeededGenerator.numbers(77, 200_000), "dir-2/second")
        images.append(TreeImage(of: world.source.path))
        try world.backup()
        world.settle()
        return Scene(world: world, store: store, images: images, snapshots: try world.snapshots())
    }

    private func key(_ place: Place, _ scene: Scene) throws -> ObjectKey {
        let repository = try scene.world.open()
        let all = scene.store.keys
        func bundle(_ kind: BundleKind) throws -> ObjectKey {
            // The larger one: what the first run stored.
            let bundles = try ChunkIndex.load(repository).bundles.filter { $0.kind == kind }
            let id = try #require(bundles.max { $0.size < $1.size }).id
            return try #require(ObjectKey(repository.bundleKey(id)))
        }
        switch place {
        case .config: return ObjectKey(validated: "config.json")
        case .hostKey: return try #require(all.first { $0.text.hasPrefix("keys/host-") })
        case .recipients: return try #require(all.first { $0.text.hasPrefix("keys/recipients-") })
        case .index:
            let first = try #require(
                try repository.listRecords(.index).max { $0.length < $1.length })
            return try #require(ObjectKey(repository.recordKey(first.name)))
        case .firstSnapshot, .lastSnapshot:
            let name = try #require(scene.snapshots[place == .firstSnapshot ? 0 : 1].name)
            return try #require(ObjectKey(repository.recordKey(name)))
        case .content: return try bundle(.content)
        case .manifest: return try bundle(.manifest)
        }
    }

    private func inflict(_ damage: Damage, on key: ObjectKey, _ store: MemoryStore) throws {
        switch damage {
        case .delete: try store.delete(key)
        case .truncate: store.alter(key) { $0.removeLast($0.count / 2) }
        case .flip: store.alter(key) { $0[$0.count / 2] ^= 0x10 }
        case .empty: store.alter(key) { $0 = [] }
        case .rename:
            // Another name of the same shape: the last digits of the id are turned round.
            let bytes = try #require(store.bytes(key))
            var text = Array(key.text.utf8)
            let dot = key.text.utf8.firstIndex(of: UInt8(ascii: ".")).map {
                key.text.utf8.distance(from: key.text.startIndex, to: $0)
            }
            let end = try #require(dot)
            text[end - 1] =
                text[end - 1] == UInt8(ascii: "0") ? UInt8(ascii: "1") : UInt8(ascii: "0")
            try store.delete(key)
            store.plant(bytes, at: try #require(ObjectKey(String(decoding: text, as: UTF8.self))))
        }
    }

    /// What comes back is right or is named; nothing is silently wrong.
    private func checkRestore(
        _ scene: Scene, _ snapshot: Snapshot, _ expected: TreeImage, _ what: String
    ) throws {
        let (report, target) = try scene.world.restore(snapshot, on: scene.world.host)
        let image = TreeImage(of: target.path("out"))
        let prefix = Array(scene.world.source.path.utf8) + [0x2F]
        let named = Set(
            (report.damaged.map(\.path) + report.problems.map(\.path)).map {
                $0.starts(with: prefix) ? Array($0.dropFirst(prefix.count)) : $0
            })
        for (path, node) in image.nodes
        where node.mode & 0o170000 == 0o100000 && !named.contains(path) {
            let wanted = expected.nodes[path]
            #expect(
                node.digest == wanted?.digest && node.size == wanted?.size,
                "\(what): \(String(decoding: path, as: UTF8.self)) is restored wrong and not named")
        }
        if report.damagedCount == 0, report.problemCount == 0 {
            #expect(expected.differences(image) == [], "\(what): reported whole")
        }
    }

    @Test(
        "It is named or healed, never silently wrong, and undamaged snapshots stay whole",
        .timeLimit(.minutes(60)), arguments: Place.allCases, Damage.allCases)
    func matrix(place: Place, damage: Damage) throws {
        for action in Action.allCases {
            let what = "\(damage) of \(place), then \(action)"
            let scene = try scene()
            let key = try key(place, scene)
            try inflict(damage, on: key, scene.store)
            let untouched = scene.store.contents
            do {
                switch action {
                case .backup:
                    scene.world.source.put(SeededGenerator.numbers(78, 150_000), "dir-4/third")
                    let image = TreeImage(of: scene.world.source.path)
                    let report = try scene.world.backup()
                    #expect(report.problemCount == 0, "\(what)")
                    switch place {
                    case .firstSnapshot, .lastSnapshot:
                        #expect(
                            image.differences(try scene.world.image(of: report.snapshot)) == [],
                            "\(what)")
                    case .index where damage == .delete || damage == .rename:
                        // The host takes what only that record told for lost, and stores it again.
                        #expect(
                            image.differences(try scene.world.image(of: report.snapshot)) == [],
                            "\(what)")
                    case .index, .content, .manifest:
                        // It relied on what it had seen before and no list contradicts.
                        try checkRestore(scene, report.snapshot, image, what)
                    case .config, .hostKey, .recipients: break
                    }
                    // Nothing that was there has gone or changed.
                    for (key, bytes) in untouched {
                        #expect(scene.store.bytes(key) == bytes, "\(what): \(key) was touched")
                    }
                case .restore:
                    for snapshot in try scene.world.snapshots() {
                        let position = try #require(
                            scene.snapshots.firstIndex { $0.id == snapshot.id })
                        do {
                            try checkRestore(scene, snapshot, scene.images[position], what)
                        } catch {
                            #expect(
                                error is ReplicationError || error is RepositoryError,
                                "\(what): \(error)")
                            #expect(
                                place != .firstSnapshot && place != .lastSnapshot,
                                "\(what): \(error)")
                        }
                    }
                case .verify:
                    // Only the host that committed a snapshot can miss it, and it remembers the last one.
                    if place == .firstSnapshot, damage == .delete { continue }
                    let report = try scene.world.verify(data: true, on: scene.world.host)
                    #expect(!report.isSound, "\(what): verify finds nothing wrong")
                    #expect(!report.findings.isEmpty, "\(what)")
                }
            } catch {
                // A clear refusal is an answer as well, where the root of the repository is concerned.
                #expect(error is ReplicationError || error is RepositoryError, "\(what): \(error)")
                let mayRefuse: Set<Place> = [.config, .hostKey, .recipients]
                #expect(mayRefuse.contains(place), "\(what) was refused: \(error)")
                if place == .hostKey || place == .recipients {
                    #expect(action != .backup, "\(what): a backup needs nothing of keys/: \(error)")
                }
            }
        }
    }

    @Test("Damage costs the files that lay in it and no other", arguments: [0, 1, 2])
    func costs(piece: Int) throws {
        let scene = try scene()
        let key = try key(.content, scene)
        // A byte in the first, second or last part of the bundle.
        scene.store.alter(key) { $0[max(400, $0.count * piece / 2 - 300 * piece)] ^= 1 }
        let (report, target) = try scene.world.restore(scene.snapshots[1], on: scene.world.host)
        #expect(report.damagedCount > 0)
        let image = TreeImage(of: target.path("out"))
        // What the second run stored lies in another bundle.
        #expect(image["dir-2/second"] == scene.images[1]["dir-2/second"])
        let verdict = try scene.world.verify(data: true, on: scene.world.host)
        let finding = try #require(verdict.findings.first { $0.object == key.text })
        #expect(finding.snapshots == scene.snapshots.map(\.id))
        #expect(finding.pathCount > 0)
    }

    @Test("A snapshot record that was removed is missed by the host that committed it")
    func lastCommit() throws {
        let scene = try scene()
        try scene.store.delete(try key(.lastSnapshot, scene))
        #expect(
            try scene.world.verify(on: scene.world.host).findings.contains { $0.kind == .vanished })
        // A host that never wrote here cannot know.
        let other = try scene.world.addHost("other")
        #expect(try scene.world.verify(on: other).isSound)
    }
}
