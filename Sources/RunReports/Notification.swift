import SnapshotModel

/// Whom to tell of runs, and when. Holds secrets: never shown or logged.
package struct NotificationTargets: Sendable {
    package enum Occasion: String, Sendable, CaseIterable {
        /// Whenever somebody has to look.
        case failure
        /// Whenever a run went otherwise than the one before.
        case change
        case always
        /// Never, but for checks, whose alarm is silence.
        case never
    }

    package struct Mail: Sendable {
        package var from: String
        package var to: [String]

        package init(from: String, to: [String]) {
            self.from = from
            self.to = to
        }
    }

    package var occasion = Occasion.failure
    /// Addresses, encoded already.
    package var webhook: String?
    /// The whole value of the header Authorization.
    package var webhookAuthorization: String?
    /// The address of a check as healthchecks.io and its kin have it.
    package var healthchecks: String?
    /// The address of a topic.
    package var ntfy: String?
    package var ntfyToken: String?
    package var mail: Mail?

    package init() {}
}

/// What is to be sent to whom: values only, sending is `NotificationSender`'s.
package struct Notification: Sendable, Equatable {
    /// By its way, as profiles call it: `webhook`, `healthchecks`, `ntfy`. For logs, which must not
    /// show the address: it may be a secret.
    package struct Request: Sendable, Equatable {
        package var way: String
        package var url: String
        package var headers: [Header]
        package var body: [UInt8]

        package struct Header: Sendable, Equatable {
            package var name: String
            package var value: String

            init(_ name: String, _ value: String) {
                self.name = name
                self.value = value
            }
        }

        fileprivate init(_ way: String, _ url: String, _ headers: [Header], _ body: [UInt8]) {
            self.way = way
            self.url = url
            self.headers = headers
            self.body = body
        }
    }

    package private(set) var requests: [Request] = []
    package private(set) var mail: MailMessage?

    // MARK: The beginning

    /// A run begins: tells a check that watches for runs that hang. All other ways wait for the end.
    package static func ofStart(_ targets: NotificationTargets) -> Notification {
        var notification = Notification()
        if let url = targets.healthchecks {
            notification.requests.append(
                Request("healthchecks", Self.url(url, below: "start"), [], []))
        }
        return notification
    }

    // MARK: The end

    /// A run has ended. A check is told of every run, since its silence is the alarm; whether the
    /// others are told is for `occasion` to say.
    ///
    /// - Parameter previous: How the last run of the same profile went; nil where there was none.
    package static func ofEnd(
        _ run: RunSummary, after previous: RunSummary.Outcome?, _ targets: NotificationTargets
    ) -> Notification {
        var notification = Notification()
        if let url = targets.healthchecks {
            let place = run.outcome.isTrouble ? Self.url(url, below: "fail") : url
            notification.requests.append(
                Request("healthchecks", place, [.plainText], Array(Self.lines(run).utf8)))
        }
        guard Self.isDue(targets.occasion, run.outcome, after: previous) else {
            return notification
        }
        if let url = targets.webhook { notification.requests.append(webhook(url, run, targets)) }
        if let url = targets.ntfy { notification.requests.append(ntfy(url, run, targets)) }
        if let mail = targets.mail {
            notification.mail = MailMessage(
                from: mail.from, to: mail.to, subject: Self.title(run), text: Self.lines(run),
                date: run.ended)
        }
        return notification
    }

    static func isDue(
        _ occasion: NotificationTargets.Occasion, _ outcome: RunSummary.Outcome,
        after previous: RunSummary.Outcome?
    ) -> Bool {
        switch occasion {
        case .never: false
        case .always: true
        case .failure: outcome.isTrouble
        // A first run that went well is what everybody expects, and so is one with nothing to do.
        case .change:
            outcome == .skipped
                ? false : previous.map { $0 == .skipped ? .success : $0 } ?? .success != outcome
        }
    }

    private static func webhook(
        _ url: String, _ run: RunSummary, _ targets: NotificationTargets
    ) -> Request {
        let body = JSONValue.object([
            ("document", .string("notification")), ("version", .integer(1)),
            ("title", .string(title(run))), ("trouble", .bool(run.outcome.isTrouble)),
            ("run", run.document),
        ])
        var headers = [Request.Header("Content-Type", "application/json")]
        if let authorization = targets.webhookAuthorization {
            headers.append(Request.Header("Authorization", authorization))
        }
        return Request("webhook", url, headers, body.bytes + [0x0A])
    }

    private static func ntfy(
        _ url: String, _ run: RunSummary, _ targets: NotificationTargets
    ) -> Request {
        var headers = [
            Request.Header("Title", HeaderText.encoded(title(run))),
            Request.Header("Priority", run.outcome.isTrouble ? "high" : "default"),
            Request.Header("Tags", run.outcome.isTrouble ? "warning" : "white_check_mark"),
        ]
        if let token = targets.ntfyToken {
            headers.append(Request.Header("Authorization", "Bearer \(token)"))
        }
        // What is longer is delivered as a file.
        return Request("ntfy", url, headers, Array(lines(run, limitBytes: 3_500).utf8))
    }

    // MARK: Words

    /// `mars: home has failed`.
    static func title(_ run: RunSummary) -> String {
        let what = run.profile ?? run.verb.rawValue
        let how =
            switch run.outcome {
            case .success: "done"
            case .partial: "done, but not whole"
            case .damage: "damage was found"
            case .failure: "failed"
            case .interrupted: "interrupted"
            case .skipped: "nothing to do"
            }
        return "\(run.host): \(what) \(how)"
    }

    /// What a person reads: the sentence, the reasons with what to do, the stores, and what else is worth
    /// knowing.
    static func lines(_ run: RunSummary, limitBytes: Int = 50_000) -> String {
        var lines = [run.text]
        for failure in run.failures.prefix(20) where failure.message != run.text {
            lines.append("- \(failure.message)")
            if !failure.remedy.isEmpty { lines.append("  \(failure.remedy)") }
        }
        if let first = run.failures.first, first.message == run.text, !first.remedy.isEmpty {
            lines.insert("  \(first.remedy)", at: 1)
        }
        if run.problemCount > 0 { lines.append("files with problems: \(run.problemCount)") }
        for store in run.stores {
            if let failure = store.failure { lines.append("\(store.location): \(failure)") }
            for notice in store.notices { lines.append("\(store.location): \(notice)") }
        }
        lines += run.notes.prefix(20)
        lines.append("")
        lines.append(
            "\(run.verb.rawValue) on \(run.host), begun \(run.began.rfc3339), took \(run.milliseconds / 1000) s, exit code \(run.exitCode)"
        )
        lines.append(run.program)
        let text = lines.joined(separator: "\n") + "\n"
        guard text.utf8.count > limitBytes else { return text }
        var cut = ""
        for character in text {
            guard cut.utf8.count + character.utf8.count + 4 <= limitBytes else { break }
            cut.append(character)
        }
        return cut + "…\n"
    }

    /// Appends a component to an address, before its query.
    private static func url(_ url: String, below component: String) -> String {
        let parts = url.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let path = parts[0].hasSuffix("/") ? parts[0].dropLast() : parts[0]
        return "\(path)/\(component)" + (parts.count > 1 ? "?\(parts[1])" : "")
    }
}

extension Notification.Request.Header {
    fileprivate static var plainText: Self { Self("Content-Type", "text/plain; charset=utf-8") }
}
