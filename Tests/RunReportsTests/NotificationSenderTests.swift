import RunReports
import SnapshotModel
import TestSupport
import Testing
import Transfer

/// The receiver with its addresses, and what it received as values.
private struct LocalReceiver {
    private let receiver: Receiver
    let http: String
    let smtpPort: Int

    init(_ options: String...) {
        receiver = Receiver(options)
        let ports = JSONValue(parsing: receiver.ports)
        http = "http://127.0.0.1:\(ports?["http"]?.count ?? 0)"
        smtpPort = ports?["smtp"]?.count ?? 0
    }

    var smtp: String { "smtp://127.0.0.1:\(smtpPort)" }

    func next() -> JSONValue? { receiver.next().flatMap { JSONValue(parsing: $0) } }
}

@Suite("Notifications under way")
struct NotificationSenderTests {
    private static let patience = NotificationSender.Patience(
        attempts: 3, connectSeconds: 10, deadlineSeconds: 10, pauseSeconds: 0, totalSeconds: 60)

    private func send(
        _ notification: Notification, mailServer: MailServer? = nil,
        patience: NotificationSender.Patience = patience
    ) -> [RunReportError] {
        NotificationSender(engine: TransferEngine(), mailServer: mailServer)
            .send(notification, patience)
    }

    private func targets(_ receiver: LocalReceiver) -> NotificationTargets {
        var targets = NotificationTargets()
        targets.webhook = receiver.http + "/hook?token=secret"
        targets.webhookAuthorization = "Basic c2VjcmV0"
        targets.healthchecks = receiver.http + "/ping"
        targets.ntfy = receiver.http + "/topic"
        return targets
    }

    private func mail(_ text: String = "Übel\n.\n") -> Notification {
        var targets = NotificationTargets()
        targets.mail = .init(from: "Backup <backup@example.org>", to: ["anna@example.org", "b@c"])
        var run = RunSamples.run(.failure)
        run.text = text
        return Notification.ofEnd(run, after: nil, targets)
    }

    // MARK: HTTP

    @Test("Each request arrives as it was made")
    func arrives() throws {
        let receiver = LocalReceiver()
        let notification = Notification.ofEnd(
            RunSamples.run(.failure), after: nil, targets(receiver))
        #expect(send(notification) == [])
        let all = notification.requests.map { _ in receiver.next() }
        for (request, path) in zip(
            notification.requests, ["/ping/fail", "/hook?token=secret", "/topic"])
        {
            let got = try #require(all.first { $0?["path"]?.string == path } ?? nil)
            #expect(got["body"]?.string == String(decoding: request.body, as: UTF8.self))
            for header in request.headers {
                #expect(got["headers"]?[header.name.lowercased()]?.string == header.value)
            }
        }
    }

    @Test(
        "What may pass is tried again, as often as patience allows",
        arguments: [("500,429,200", 3, true), ("0,200", 2, true), ("503", 3, false)])
    func again(_ answers: String, _ requests: Int, _ arrives: Bool) throws {
        let receiver = LocalReceiver("--http", answers)
        var targets = NotificationTargets()
        targets.healthchecks = receiver.http + "/ping"
        let failures = send(.ofStart(targets))
        #expect(failures.isEmpty == arrives, "\(failures)")
        for _ in 0..<requests { #expect(receiver.next()?["path"]?.string == "/ping/start") }
        if !arrives {
            #expect(failures.first?.message.contains("503, tried 3 times") == true)
        }
    }

    @Test("What was refused is not tried again, and says so without its address")
    func refused() throws {
        let receiver = LocalReceiver("--http", "404,200")
        var targets = targets(receiver)
        (targets.healthchecks, targets.ntfy) = (nil, nil)
        let failures = send(.ofEnd(RunSamples.run(.failure), after: nil, targets))
        #expect(failures.map(\.subject) == ["webhook"])
        #expect(failures.first?.message.contains("status 404") == true)
        #expect(!"\(failures)".contains("secret"))
        let (first, second) = (receiver.next(), send(.ofStart(self.targets(receiver))))
        #expect(first?["path"]?.string == "/hook?token=secret")
        #expect(second == [])
        #expect(receiver.next()?["path"]?.string == "/ping/start")
    }

    @Test("Where nobody answers every way fails by itself, without its address")
    func nobody() throws {
        var targets = NotificationTargets()
        targets.webhook = "http://127.0.0.1:1/secret"
        targets.ntfy = "no address/secret"
        let failures = send(.ofEnd(RunSamples.run(.failure), after: nil, targets))
        #expect(failures.map(\.subject) == ["webhook", "ntfy"])
        #expect(!"\(failures)".contains("secret"), "\(failures)")
    }

    @Test("All ways are tried at once: none waits for the answer of another")
    func together() {
        // Who asks one after the other never gets a first answer.
        let receiver = LocalReceiver("--together", "3")
        #expect(send(.ofEnd(RunSamples.run(.failure), after: nil, targets(receiver))) == [])
    }

    @Test("Who takes the message and says nothing is given up when patience ends")
    func silent() {
        let receiver = LocalReceiver("--http", "1")
        var targets = NotificationTargets()
        targets.healthchecks = receiver.http + "/ping"
        let patience = NotificationSender.Patience(
            attempts: 1_000_000, connectSeconds: 5, deadlineSeconds: 0.2, pauseSeconds: 0.1,
            totalSeconds: 1)
        let failures = send(.ofStart(targets), patience: patience)
        #expect(failures.map(\.subject) == ["healthchecks"])
        // As often as there was time for, and not as often as might be.
        let tries = failures.first?.message.matches(of: #/tried (\d+) times/#).first?.output.1
        #expect((1...4).contains(tries.flatMap { Int($0) } ?? 1), "\(failures)")
    }

    // MARK: Mail

    @Test("A mail is handed in for every receiver, byte for byte")
    func mailArrives() throws {
        let receiver = LocalReceiver()
        let notification = mail()
        #expect(send(notification, mailServer: MailServer(receiver.smtp)) == [])
        let got = try #require(receiver.next())
        #expect(got["sender"]?.string?.hasPrefix("MAIL FROM:<backup@example.org>") == true)
        #expect(
            got["receivers"]?.array?.compactMap(\.string) == [
                "RCPT TO:<anna@example.org>", "RCPT TO:<b@c>",
            ])
        let data = try #require(got["data"]?.string)
        #expect(data.contains("Subject: mars: home failed\r\n"))
        let commands = got["commands"]?.array?.compactMap(\.string) ?? []
        #expect(!commands.contains { $0.hasPrefix("AUTH") })
    }

    @Test("A server that is busy is asked again, one that refuses is not")
    func mailAgain() throws {
        let busy = LocalReceiver("--smtp", "451,452,250")
        #expect(send(mail(), mailServer: MailServer(busy.smtp)) == [])
        for _ in 0..<3 { #expect(busy.next()?["data"] != nil) }
        let firm = LocalReceiver("--smtp", "554,250")
        let failures = send(mail(), mailServer: MailServer(firm.smtp))
        #expect(failures.map(\.subject) == ["mail"])
        #expect(failures.first?.message.contains("554") == true, "\(failures)")
    }

    @Test("A password never goes to a server that offers no encryption")
    func clear() throws {
        let receiver = LocalReceiver()
        let server = MailServer(receiver.smtp, user: "backup", password: "hunter2")
        let failures = send(mail(), mailServer: server)
        #expect(failures.map(\.subject) == ["mail"])
        let got = try #require(receiver.next())
        #expect(!got.text.contains("hunter2") && !got.text.contains("AUTH PLAIN "))
        #expect(got["data"] == nil)
    }

    @Test("Over TLS a password is given, to a server with a certificate that is trusted")
    func encrypted() throws {
        let directory = TemporaryDirectory()
        let (certificate, key) = (directory.path("certificate.pem"), directory.path("key.pem"))
        _ = try Shell.output(
            of: """
                openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost \
                -addext subjectAltName=IP:127.0.0.1 -keyout \(key) -out \(certificate) 2>/dev/null
                """)
        let receiver = LocalReceiver("--certificate", certificate, "--key", key)
        var server = MailServer(
            "smtps://127.0.0.1:\(receiver.smtpPort)", user: "backup", password: "hunter2")
        #expect(send(mail(), mailServer: server).map(\.subject) == ["mail"])
        server.caFile = certificate
        #expect(send(mail(), mailServer: server) == [])
        var got = receiver.next()
        while got?["kind"]?.string == "broken" { got = receiver.next() }
        let commands = got?["commands"]?.array?.compactMap(\.string) ?? []
        #expect(commands.contains { $0.hasPrefix("AUTH") })
        #expect(got?["data"] != nil)
    }

    @Test(
        "What is no address is refused before anybody is asked",
        arguments: ["", "a b@c", "a@b>\r\nRCPT TO:<eve@x", "<a@b", "a@b\r\n"])
    func addresses(_ address: String) {
        let error = #expect(throws: TransferError.self) {
            try MailTransfer.send(
                [], from: "a@b", to: [address], by: MailServer("smtp://127.0.0.1:1"),
                deadlineSeconds: 1)
        }
        #expect(error?.kind == .invalidRequest)
    }
}
