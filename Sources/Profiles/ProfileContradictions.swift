extension Profile {
    /// What is wrong with values that are each right by themselves.
    var contradictions: [ProfileProblem] {
        var found: [ProfileProblem] = []
        func note(_ key: String, _ message: String, _ remedy: String) {
            let origin = origins[key]
            found.append(
                ProfileProblem(
                    message, file: origin?.file ?? files.first ?? "", line: origin?.line ?? 0,
                    remedy: remedy))
        }
        if repository.location.isEmpty {
            note(
                "repository.location", "the profile names no repository",
                "write location = \"…\" below [repository]")
        }
        checkStore(repository, "repository", note)
        for (index, replica) in replicas.enumerated() {
            checkStore(replica, "replica[\(index)]", note)
            let others = [repository.location] + replicas[..<index].map(\.location)
            if others.contains(replica.location) {
                note(
                    "replica[\(index)].location", "two stores have the same location",
                    "a replica lies elsewhere; take this one out or change its location")
            }
        }
        if source.command != nil, !source.paths.isEmpty || !source.filesFrom.isEmpty {
            note(
                "source.stdin-from-command", "a stream is the only source of its snapshot",
                "give the paths a profile of their own, or dump into a file in a hook")
        }
        checkNotifications(note)
        return found.sorted { ($0.file, $0.line) < ($1.file, $1.line) }
    }

    private typealias Note = (_ key: String, _ message: String, _ remedy: String) -> Void

    private func checkStore(_ store: Store, _ name: String, _ note: Note) {
        if (store.accessKeyID == nil) != (store.secretAccessKey == nil) {
            let isKeyMissing = store.accessKeyID == nil
            let present = isKeyMissing ? "aws-secret-access-key" : "aws-access-key-id"
            let missing = isKeyMissing ? "aws-access-key-id" : "aws-secret-access-key"
            note("\(name).\(present)", "\(present) needs \(missing)", "write both, or neither")
        }
        if store.sessionToken != nil, store.accessKeyID == nil {
            note(
                "\(name).aws-session-token", "aws-session-token goes with keys, and there are none",
                "write aws-access-key-id and aws-secret-access-key, or leave it out")
        }
        if store.serverEncryptionKey != nil, store.serverEncryption != .kms {
            note(
                "\(name).sse-key-id", "sse-key-id needs sse = \"aws:kms\"",
                "write both, or leave it out")
        }
        if (store.objectLock == nil) != (store.objectLockSeconds == nil) {
            let present = store.objectLock == nil ? "object-lock-period" : "object-lock"
            let missing = store.objectLock == nil ? "object-lock" : "object-lock-period"
            note("\(name).\(present)", "\(present) needs \(missing)", "write both, or neither")
        }
        if let seconds = store.objectLockSeconds, seconds % 86_400 != 0 {
            note(
                "\(name).object-lock-period", "Object Lock counts in whole days",
                "write it so: object-lock-period = \"30d\"")
        }
    }

    private func checkNotifications(_ note: Note) {
        if notify.mailServer != nil {
            if notify.mailFrom == nil {
                note("notify.mail-server", "mail needs a sender", "write mail-from = \"…\"")
            }
            if notify.mailTo.isEmpty {
                note("notify.mail-server", "mail needs a receiver", "write mail-to = [\"…\"]")
            }
        } else if let key = ["mail-to", "mail-from", "mail-user", "mail-password"]
            .first(where: { origins["notify.\($0)"] != nil })
        {
            note(
                "notify.\(key)", "\(key) needs a server to send by",
                "write mail-server = \"smtps://…\", or leave it out")
        }
        if (notify.mailUser == nil) != (notify.mailPassword == nil) {
            let present = notify.mailUser == nil ? "mail-password" : "mail-user"
            note(
                "notify.\(present)", "mail-user and mail-password go together",
                "write both, or neither")
        }
        if notify.webhookAuthorization != nil, notify.webhook == nil {
            note(
                "notify.webhook-authorization", "webhook-authorization needs a webhook",
                "write webhook = \"…\", or leave it out")
        }
        if notify.ntfyToken != nil, notify.ntfy == nil {
            note(
                "notify.ntfy-token", "ntfy-token needs a topic",
                "write ntfy = \"…\", or leave it out")
        }
    }
}
