import ObjectStorage
import Replication
import SnapshotModel
import SnapshotRepository
import TestSupport
import Testing

/// A host whose backups, run by the built command, are killed; and what has to hold afterwards.
struct KillScene {
    let place: StorePlace
    let world: World
    private let binary: String
    /// More words for each backup.
    private let options: [String]
    private(set) var images: [TreeImage] = []

    /// - Throws: Cancels the test where the command is not built.
    init(in place: StorePlace, largeBytes: Int, options: [String] = []) throws {
        guard let binary = BuiltCommand.path else {
            try Test.cancel(
                "the command is not built: make test builds it, and BATCHSYNC_BINARY says where it is"
            )
        }
        self.binary = binary
        self.place = place
        self.options = options
        world = try World(store: try place.store(), at: place.location, sourceInMemory: true)
        plantTree(world.source, seed: 4, files: 80, largeBytes: largeBytes)
        // The first generation is there before anybody is killed.
        images.append(TreeImage(of: world.source.path))
        #expect(BuiltCommand.run(words, environment).code == 0)
    }

    var words: [String] {
        [binary, "backup"] + place.words + options
            + ["--checkpoint-interval", "1", world.source.path]
    }

    var environment: [String: String] {
        let directories = world.host.directories
        return place.environment.merging([
            "BATCHSYNC_CONFIG_DIR": directories.configuration,
            "BATCHSYNC_CACHE_DIR": directories.cache,
            "BATCHSYNC_STATE_DIR": directories.state,
        ]) { $1 }
    }

    /// A run has just ended well.
    mutating func noteGeneration() throws {
        images.append(TreeImage(of: world.source.path))
        #expect(try world.snapshots().count == images.count)
    }

    /// After a death: earlier generations are whole, the next run completes and stores nothing
    /// again.
    mutating func checkAndGoOn(_ what: String) throws {
        let now = TreeImage(of: world.source.path)
        var snapshots = try world.snapshots()
        #expect(snapshots.count == images.count || snapshots.count == images.count + 1, "\(what)")
        if snapshots.count > images.count { images.append(now) }
        for (snapshot, image) in zip(snapshots, images) {
            #expect(image.differences(try world.image(of: snapshot)) == [], "\(what)")
        }
        #expect(BuiltCommand.run(words, environment) == (0, 0), "\(what): the next run")
        images.append(now)
        snapshots = try world.snapshots()
        #expect(snapshots.count == images.count, "\(what)")
        let last = try #require(snapshots.last)
        #expect(now.differences(try world.image(of: last)) == [], "\(what), the next run")
        let waste = try world.waste()
        #expect(waste.twice == 0 && waste.unindexed == 0, "\(what): \(waste)")
        if place.kind == .directory {
            #expect(treeContents(place.location + "/+tmp") == [], "\(what): debris")
        }
    }
}
