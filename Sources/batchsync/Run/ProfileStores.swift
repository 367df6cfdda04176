import ObjectStorage
import Profiles
import SnapshotModel

extension StoreAccess {
    /// How a profile reaches one of its stores.
    ///
    /// - Parameter words: What the command line says; it goes before the profile.
    init(_ store: Profile.Store, of profile: Profile, words: StoreAccess) throws {
        self = words
        spoolDirectory = spoolDirectory ?? profile.backup.spoolDirectory
        spoolBytes = spoolBytes ?? Int(clamping: profile.backup.spoolBytes.bytes)
        uploadLimit = try uploadLimit ?? Self.timetable(profile.limits.upload)
        downloadLimit = try downloadLimit ?? Self.timetable(profile.limits.download)
        if waitOnlineSeconds == nil, profile.schedule.waitOnlineSeconds > 0 {
            waitOnlineSeconds = Double(profile.schedule.waitOnlineSeconds)
        }
        caFile = caFile ?? store.caFile
        endpoint = endpoint ?? store.endpoint
        region = region ?? store.region
        addressing = addressing ?? store.style.rawValue
        if let name = store.storageClass, storageClasses["bundles"] == nil {
            storageClasses["bundles"] = name
        }
        if let name = store.recordStorageClass { storageClasses["records"] = name }
        if serverSideEncryption == nil, let encryption = store.serverEncryption {
            serverSideEncryption =
                encryption.rawValue + (store.serverEncryptionKey.map { ":\($0)" } ?? "")
        }
        if objectLock == nil, let lock = store.objectLock, let seconds = store.objectLockSeconds {
            let days = (seconds + 86_399) / 86_400
            objectLock = "\(lock.rawValue.uppercased()):\(days)d"
        }
        awsProfile = store.awsProfile
        accessKeyID = try store.accessKeyID?.word("the access key id")
        secretAccessKey = try store.secretAccessKey?.word("the secret access key")
        sessionToken = try store.sessionToken?.word("the session token")
        sshCommand = sshCommand ?? store.sshCommand
        passwordFile = passwordFile ?? store.passwordFile
    }

    private static func timetable(_ text: String) throws -> RateTimetable? {
        guard text != "unlimited" else { return nil }
        do throws(RateSyntaxError) {
            return try RateTimetable(parsing: text) { ByteCount(parsing: $0)?.bytes }
        } catch {
            throw CommandError.usage("\(text): \(error)", remedy: error.remedy)
        }
    }
}
