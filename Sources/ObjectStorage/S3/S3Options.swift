package import Transfer

/// What a user decides about her objects in S3, beyond where they are.
package struct S3Options: Sendable {
    /// Whether, and with whose key, the service is told to encrypt what it stores.
    package enum ServerSideEncryption: Sendable, Equatable {
        /// As the bucket is configured.
        case bucketDefault
        /// `AES256`: with keys of the service itself (SSE-S3).
        case serviceKeys
        /// With a key of the key management service; nil for the account's default one.
        case managedKey(String?)
    }

    /// How long nobody may delete an object, where the bucket has Object Lock.
    package struct Retention: Sendable, Equatable {
        package enum Mode: String, Sendable, CaseIterable {
            case governance = "GOVERNANCE"
            case compliance = "COMPLIANCE"
        }

        package var mode: Mode
        package var days: Int

        package init(mode: Mode, days: Int) {
            self.mode = mode
            self.days = days
        }
    }

    /// Storage class by the beginning of the key; the longest that fits decides, `""` fits all. A
    /// key that none fits goes where the bucket puts it.
    package var storageClasses: [String: String] = [:]
    package var encryption = ServerSideEncryption.bucketDefault
    package var retention: Retention?
    /// How long one request may take beyond the time that its body needs, in seconds.
    package var requestSeconds: Double = 300
    /// The slowest line on which a body still counts as moving on, in bytes a second: a request
    /// with a body may take as long as that needs.
    package var slowestBytesPerSecond: Double = 4_000
    /// How long nothing may move during a request, in seconds.
    package var stallSeconds: Double = 60
    /// How fast answers may arrive; nil for as fast as they can.
    package var downloadPacer: (any Pacer)?
    /// Asked during each request; once it gives true the request is given up.
    package var isCancelled: (@Sendable () -> Bool)?

    package init() {}

    /// The class for `key`, or nil.
    func storageClass(of key: ObjectKey) -> String? {
        storageClasses
            .filter { key.text.hasPrefix($0.key) }
            .max { $0.key.utf8.count < $1.key.utf8.count }?.value
    }
}
