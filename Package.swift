// swift-tools-version: 6.2

// The map of the house. Targets stand in the order of their level; an arrow goes to a smaller level
// only, and rooms of one level never see one another. docs/architecture.md shows it on one page.

import PackageDescription

/// One set of rules for every room: Swift 6, no implicit re-exports, no C type in a door.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    // The compiler still refuses overlapping access that it can see, and debug builds look for the
    // rest while they run; a release build need not ask again at every byte that is appended.
    .unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release)),
]

let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")
let cryptoExtras: Target.Dependency = .product(name: "CryptoExtras", package: "swift-crypto")

let package = Package(
    name: "batchsync",
    products: [.executable(name: "batchsync", targets: ["batchsync"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-crypto.git", from: "4.5.0"),
        .package(url: "https://github.com/LebJe/TOMLKit.git", from: "0.6.0"),
    ],
    targets: [
        // MARK: C libraries — a module map and a header each, nothing else

        .systemLibrary(
            name: "CLibArchive", pkgConfig: "libarchive", providers: [.apt(["libarchive-dev"])]),
        .systemLibrary(name: "CLibZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
        .systemLibrary(
            name: "CLibXXHash", pkgConfig: "libxxhash", providers: [.apt(["libxxhash-dev"])]),
        .systemLibrary(
            name: "CLibCurl", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
        /// The mixing of scrypt, which needs vector registers.
        .target(name: "CScrypt"),
        /// The system calls that Swift's Glibc module does not import, as plain typed functions.
        .target(name: "CSystem"),

        // MARK: Level 0 — the nouns

        /// Entries, paths, identifiers and their one order; the coding of a manifest line; the
        /// chunker. Pure: no I/O, no Foundation.
        .target(name: "SnapshotModel", swiftSettings: strict),

        // MARK: Level 1 — encryption, transfers, the file system

        /// age v1 and nothing else: bytes in, bytes out.
        .target(
            name: "AgeEncryption", dependencies: ["CScrypt", crypto], swiftSettings: strict),
        /// Many transfers at once over one thread: requests out, answers in. Knows no store.
        .target(
            name: "Transfer", dependencies: ["CLibCurl", "CSystem"], swiftSettings: strict),
        /// The file system of this host: walking, reading, and writing it back safely.
        .target(
            name: "FileTree", dependencies: ["SnapshotModel", "CSystem"],
            swiftSettings: strict),

        /// One backup job as a TOML file describes it, turned into values.
        .target(
            name: "Profiles",
            dependencies: [
                "SnapshotModel", .product(name: "TOMLKit", package: "TOMLKit"),
            ],
            swiftSettings: strict),

        // MARK: Level 2 — stores and bundles

        /// Named immutable bytes somewhere. Has never heard of a snapshot.
        .target(
            name: "ObjectStorage", dependencies: ["SnapshotModel", "Transfer", "CSystem", crypto],
            swiftSettings: strict),

        /// What a host remembers of its runs and tells of them: history, status, metrics, log,
        /// notifications. Has never heard of a repository.
        .target(
            name: "RunReports", dependencies: ["SnapshotModel", "Transfer", "CSystem"],
            swiftSettings: strict),

        /// Turns chunks into one sealed object and back: tar, then zstd, then age.
        /// Knows nothing of repositories or stores.
        .target(
            name: "BundleFormat",
            dependencies: [
                "SnapshotModel", "AgeEncryption", "CLibArchive", "CLibZstd", "CLibXXHash", crypto,
            ],
            swiftSettings: strict),

        // MARK: Level 3 — the repository

        /// What is stored, under which name, in which order.
        .target(
            name: "SnapshotRepository",
            dependencies: [
                "SnapshotModel", "AgeEncryption", "ObjectStorage", "BundleFormat", "CSystem",
                crypto,
            ],
            exclude: ["Recovery"],
            swiftSettings: strict),

        // MARK: Level 4 — the verbs

        /// Backup, restore, verify and their kin; the only room with concurrency.
        .target(
            name: "Replication",
            dependencies: [
                "SnapshotModel", "FileTree", "BundleFormat", "SnapshotRepository", "CSystem",
            ],
            swiftSettings: strict),

        // MARK: Level 5 — the command

        /// Words in, words out.
        .executableTarget(
            name: "batchsync",
            dependencies: [
                "Replication", "RunReports", "SnapshotRepository", "FileTree", "ObjectStorage",
                "Transfer",
                "Profiles", "AgeEncryption", "BundleFormat", "SnapshotModel", "CSystem",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),

        /// The speed of each stage by itself; the whole beside its peers is Benchmarks/run.py.
        .executableTarget(
            name: "stage-benchmarks",
            dependencies: [
                "Replication", "FileTree", "BundleFormat", "AgeEncryption", "SnapshotModel",
            ],
            path: "Benchmarks/Stages", swiftSettings: strict),

        // MARK: Tests — one target for each room, and the campaigns over all of them

        .target(
            name: "TestSupport", dependencies: ["ObjectStorage", "CSystem", crypto],
            path: "Tests/TestSupport", exclude: ["receiver.py"],
            swiftSettings: strict),
        .testTarget(
            name: "SnapshotModelTests", dependencies: ["SnapshotModel"], exclude: ["Fixtures"],
            swiftSettings: strict),
        .testTarget(
            name: "AgeEncryptionTests", dependencies: ["AgeEncryption", crypto, cryptoExtras],
            swiftSettings: strict),
        .testTarget(
            name: "TransferTests", dependencies: ["Transfer", "TestSupport", "CSystem"],
            swiftSettings: strict),
        /// The servers and the proxy that other tests talk to, held to what they claim.
        .testTarget(
            name: "ServerTests", dependencies: ["TestSupport"], exclude: ["Fixtures"],
            swiftSettings: strict),
        .testTarget(
            name: "ObjectStorageTests",
            dependencies: [
                "ObjectStorage", "SnapshotModel", "Transfer", "TestSupport", "CSystem", crypto,
            ],
            exclude: ["Fixtures"], swiftSettings: strict),
        .testTarget(
            name: "ProfilesTests", dependencies: ["Profiles", "SnapshotModel", "TestSupport"],
            swiftSettings: strict),
        .testTarget(
            name: "FileTreeTests",
            dependencies: ["FileTree", "SnapshotModel", "CSystem", "TestSupport"],
            swiftSettings: strict),
        .testTarget(
            name: "BundleFormatTests",
            dependencies: ["BundleFormat", "SnapshotModel", "AgeEncryption", "CLibZstd"],
            swiftSettings: strict),
        .testTarget(
            name: "SnapshotRepositoryTests",
            dependencies: [
                "SnapshotRepository", "BundleFormat", "AgeEncryption", "ObjectStorage",
                "SnapshotModel",
                "CSystem", "TestSupport", crypto,
            ],
            exclude: ["Fixtures"], swiftSettings: strict),
        .testTarget(
            name: "ReplicationTests",
            dependencies: [
                "Replication", "SnapshotRepository", "BundleFormat", "FileTree", "ObjectStorage",
                "Transfer", "AgeEncryption", "SnapshotModel", "CSystem", "TestSupport",
            ],
            swiftSettings: strict),
        .testTarget(
            name: "CommandTests",
            dependencies: [
                "SnapshotModel", "Profiles", "Replication", "CSystem", "TestSupport", "batchsync",
            ],
            exclude: ["Fixtures"], swiftSettings: strict),
        .testTarget(
            name: "RunReportsTests",
            dependencies: ["RunReports", "Transfer", "SnapshotModel", "CSystem", "TestSupport"],
            swiftSettings: strict),
        .testTarget(
            name: "InteropTests", dependencies: ["AgeEncryption"], exclude: ["Fixtures"],
            swiftSettings: strict),
    ]
)
