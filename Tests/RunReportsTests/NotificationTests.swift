import RunReports
import SnapshotModel
import Testing

@Suite("Notifications as values")
struct NotificationTests {
    private func targets(
        _ occasion: NotificationTargets.Occasion = .always
    ) -> NotificationTargets {
        var targets = NotificationTargets()
        targets.occasion = occasion
        targets.webhook = "https://hooks.example.org/x?token=secret"
        targets.webhookAuthorization = "Bearer hook"
        targets.healthchecks = "https://hc.example.org/ping/uuid"
        targets.ntfy = "https://ntfy.example.org/topic"
        targets.ntfyToken = "tk_secret"
        targets.mail = .init(from: "backup@example.org", to: ["Anna <anna@example.org>"])
        return targets
    }

    private func ways(_ notification: Notification) -> [String] {
        notification.requests.map(\.way) + (notification.mail == nil ? [] : ["mail"])
    }

    private static let all = ["healthchecks", "webhook", "ntfy", "mail"]

    @Test(
        "On failure: told whenever somebody has to look", arguments: RunSummary.Outcome.allCases)
    func onFailure(_ outcome: RunSummary.Outcome) {
        let notification = Notification.ofEnd(
            RunSamples.run(outcome), after: nil, targets(.failure))
        let isQuiet = outcome == .success || outcome == .skipped
        #expect(ways(notification) == (isQuiet ? ["healthchecks"] : Self.all))
    }

    @Test(
        "On change: told when a run went otherwise than the one before",
        arguments: [
            (nil, .success, false), (nil, .failure, true), (.success, .success, false),
            (.success, .partial, true), (.partial, .partial, false), (.partial, .success, true),
            (.failure, .damage, true), (.failure, .success, true), (.skipped, .success, false),
            (.skipped, .failure, true), (.failure, .skipped, false), (.success, .skipped, false),
        ] as [(RunSummary.Outcome?, RunSummary.Outcome, Bool)])
    func onChange(
        _ previous: RunSummary.Outcome?, _ outcome: RunSummary.Outcome, _ isTold: Bool
    ) {
        let notification = Notification.ofEnd(
            RunSamples.run(outcome), after: previous, targets(.change))
        #expect(ways(notification) == (isTold ? Self.all : ["healthchecks"]))
    }

    @Test(
        "Always and never are what they say; a check is told in any case, since silence is its alarm",
        arguments: RunSummary.Outcome.allCases)
    func extremes(_ outcome: RunSummary.Outcome) {
        let run = RunSamples.run(outcome)
        #expect(ways(.ofEnd(run, after: outcome, targets(.always))) == Self.all)
        #expect(ways(.ofEnd(run, after: nil, targets(.never))) == ["healthchecks"])
        #expect(ways(.ofStart(targets(.always))) == ["healthchecks"])
        #expect(ways(.ofStart(targets(.never))) == ["healthchecks"])
        #expect(ways(.ofStart(NotificationTargets())) == [])
        #expect(ways(.ofEnd(run, after: nil, NotificationTargets())) == [])
    }

    @Test(
        "A check is pinged at its start, success and failure addresses, before a query",
        arguments: [
            ("https://hc.example.org/ping/uuid", "https://hc.example.org/ping/uuid/start"),
            ("https://hc.example.org/ping/uuid/", "https://hc.example.org/ping/uuid/start"),
            (
                "https://hc.example.org/k/slug?create=1",
                "https://hc.example.org/k/slug/start?create=1"
            ),
        ])
    func checks(_ url: String, _ start: String) {
        var targets = NotificationTargets()
        targets.healthchecks = url
        #expect(Notification.ofStart(targets).requests.map(\.url) == [start])
        func end(_ outcome: RunSummary.Outcome) -> [String] {
            Notification.ofEnd(RunSamples.run(outcome), after: nil, targets).requests.map(\.url)
        }
        for outcome in RunSummary.Outcome.allCases {
            let expected = outcome.isTrouble ? start.replacing("/start", with: "/fail") : url
            #expect(end(outcome) == [expected])
        }
    }

    @Test("A webhook gets the documented document and its authorization")
    func webhook() throws {
        let run = RunSamples.run(.failure)
        let request = try #require(
            Notification.ofEnd(run, after: nil, targets()).requests.first { $0.way == "webhook" })
        #expect(request.url == "https://hooks.example.org/x?token=secret")
        #expect(
            request.headers.map { "\($0.name): \($0.value)" } == [
                "Content-Type: application/json", "Authorization: Bearer hook",
            ])
        let body = try #require(JSONValue(parsing: request.body))
        #expect(body["document"]?.string == "notification")
        #expect(body["version"]?.count == 1)
        #expect(body["title"]?.string == "mars: home failed")
        #expect(body["trouble"]?.bool == true)
        #expect(body["run"].flatMap { RunSummary($0) } == run)
    }

    @Test("ntfy gets title, priority and token in headers that any server takes, and the text")
    func ntfy() throws {
        var run = RunSamples.run(.failure)
        run.host = "büro\r\nX-Evil: 1"
        run.failures = (0..<20).map { .init("reason \($0) " + String(repeating: "ü", count: 900)) }
        let request = try #require(
            Notification.ofEnd(run, after: nil, targets()).requests.first { $0.way == "ntfy" })
        for header in request.headers {
            #expect(header.value.utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7F }, "\(header)")
        }
        let headers = Dictionary(
            request.headers.map { ($0.name, $0.value) }, uniquingKeysWith: { a, _ in a })
        #expect(headers["Title"]?.hasPrefix("=?utf-8?B?") == true)
        #expect(headers["Priority"] == "high")
        #expect(headers["Authorization"] == "Bearer tk_secret")
        #expect(request.body.count <= 3_500)
        #expect(UTF8Text.isValid(request.body))
        #expect(
            Notification.ofEnd(RunSamples.run(), after: nil, targets()).requests.contains {
                $0.way == "ntfy"
                    && $0.headers.contains { $0.name == "Priority" && $0.value == "default" }
            })
    }

    @Test("A person reads what happened, what to do next, and where it stands")
    func words() throws {
        let mail = try #require(
            Notification.ofEnd(RunSamples.run(.failure), after: nil, targets()).mail)
        #expect(mail.subject == "mars: home failed")
        #expect(
            mail.text == """
                /srv/mail: Permission denied (open)
                  run as a user who may read
                - hook after: 'true' failed
                files with problems: 2
                s3://bucket/prefix: nothing was pruned: the store keeps what is deleted
                /mnt/backup: there is no repository here
                home: the run that began at 22:00 was killed before its end

                run on mars, begun 2026-03-31T22:00:00.500000000Z, took 63 s, exit code 1
                batchsync 1.0

                """)
    }

    @Test("No notification shows a secret in what is printed of it for logs")
    func secrets() {
        // Ways are what logs show; they must be none of the addresses.
        let notification = Notification.ofEnd(RunSamples.run(.failure), after: nil, targets())
        for request in notification.requests {
            #expect(["healthchecks", "webhook", "ntfy"].contains(request.way))
            #expect(!String(decoding: request.body, as: UTF8.self).contains("secret"))
        }
    }

    // MARK: Mail

    /// What Python's mail library makes of a message.
    private func parsed(_ message: MailMessage) throws -> [String: String] {
        let bytes = message.bytes(identity: "1.abc")
        let text = String(decoding: bytes, as: UTF8.self)
        for line in text.split(separator: "\r\n", omittingEmptySubsequences: false) {
            #expect(line.utf8.count <= 998, "\(line)")
            #expect(!line.contains("\n") && !line.contains("\r"))
        }
        let script = """
            import email, email.policy, json, sys
            m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.SMTP)
            print(json.dumps({k: str(m[k]) for k in m.keys()} | {"text": m.get_content().replace("\\r\\n", "\\n"),
                "defects": str(m.defects)}))
            """
        let output = try Shell.output(of: "python3 -B -c '\(script)'", input: bytes)
        let value = try #require(JSONValue(parsing: Array(output.utf8)))
        return (value.fields ?? []).reduce(into: [:]) { $0[$1.key] = $1.value.string }
    }

    @Test(
        "A mail is read by others as it was meant",
        arguments: [
            ("plain", "one\ntwo\n"), ("Büro läuft nicht", "Übel\n"),
            (String(repeating: "ä€", count: 100), String(repeating: "long ", count: 400) + "\n"),
            ("dots", "a\n.\n..b\n"), ("", "\n"),
        ])
    func mail(_ subject: String, _ text: String) throws {
        let found = try parsed(
            MailMessage(
                from: "Backup <backup@example.org>",
                to: ["anna@example.org", "Ben <ben@example.org>"],
                subject: subject, text: text, date: RunSamples.evening))
        #expect(found["Subject"] == subject)
        #expect(found["text"] == text)
        #expect(found["From"] == "Backup <backup@example.org>")
        #expect(found["To"] == "anna@example.org, Ben <ben@example.org>")
        #expect(found["Date"] == "Tue, 31 Mar 2026 22:00:00 +0000")
        #expect(found["Message-ID"] == "<1.abc@example.org>")
        #expect(found["defects"] == "[]")
    }

    @Test("Nothing in a subject or an address begins a header of its own")
    func injection() throws {
        let found = try parsed(
            MailMessage(
                from: "backup@example.org", to: ["anna@example.org\r\nBcc: eve@example.org"],
                subject: "a\r\nBcc: eve@example.org\r\n\r\nbody", text: "x\n",
                date: RunSamples.evening))
        #expect(found["Bcc"] == nil)
        #expect(found["text"] == "x\n")
    }

    @Test("The envelope has the addresses alone")
    func envelope() {
        let mail = MailMessage(
            from: "Backup <backup@example.org>",
            to: ["anna@example.org", "\"B\" <ben@example.org>"],
            subject: "", text: "", date: RunSamples.evening)
        #expect(mail.sender == "backup@example.org")
        #expect(mail.receivers == ["anna@example.org", "ben@example.org"])
    }

    @Test(
        "Dates have their day of the week",
        arguments: [
            (0, "Thu, 1 Jan 1970 00:00:00 +0000"), (-1, "Wed, 31 Dec 1969 23:59:59 +0000"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 +0000"),
            (1_774_994_400, "Tue, 31 Mar 2026 22:00:00 +0000"),
        ] as [(Int64, String)])
    func dates(_ seconds: Int64, _ text: String) throws {
        let mail = MailMessage(
            from: "a@b", to: ["c@d"], subject: "", text: "", date: Timestamp(seconds: seconds))
        let lines = String(decoding: mail.bytes(identity: "1"), as: UTF8.self)
        #expect(lines.contains("\r\nDate: \(text)\r\n"))
    }
}
