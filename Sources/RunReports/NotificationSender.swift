import CSystem
import Glibc
import SnapshotModel
package import Transfer

/// Sends notifications. Blocks until each has arrived or has failed for good; the failures come
/// back, since nobody's backup fails because a message did.
package struct NotificationSender: Sendable {
    /// How often each is tried, how long each attempt may take, and how long to wait between.
    package struct Patience: Sendable {
        package var attempts: Int
        package var deadlineSeconds: Double
        package var pauseSeconds: Double

        package init(attempts: Int, deadlineSeconds: Double, pauseSeconds: Double) {
            self.attempts = attempts
            self.deadlineSeconds = deadlineSeconds
            self.pauseSeconds = pauseSeconds
        }

        /// For what is sent before a run: it must not hold up the backup.
        package static let brief = Patience(attempts: 1, deadlineSeconds: 10, pauseSeconds: 0)
        /// For what is sent after it: the one message that matters.
        package static let long = Patience(attempts: 4, deadlineSeconds: 30, pauseSeconds: 10)
    }

    /// By what server mail goes out; nil where none does.
    private let mailServer: MailServer?
    private let engine: TransferEngine

    package init(engine: TransferEngine, mailServer: MailServer?) {
        self.engine = engine
        self.mailServer = mailServer
    }

    /// - Returns: What did not arrive, by its way, without addresses.
    package func send(_ notification: Notification, _ patience: Patience) -> [RunReportError] {
        var failures: [RunReportError] = []
        for request in notification.requests {
            if let failure = send(request, patience) { failures.append(failure) }
        }
        if let mail = notification.mail, let failure = send(mail, patience) {
            failures.append(failure)
        }
        return failures
    }

    private func send(_ request: Notification.Request, _ patience: Patience) -> RunReportError? {
        var transfer = TransferRequest(
            "POST", request.url, headers: request.headers.map { ($0.name, $0.value) },
            body: .bytes(request.body), sink: .collect(maximumBytes: 1 << 20))
        transfer.deadlineSeconds = patience.deadlineSeconds
        return attempt(request.way, patience) {
            let answer: TransferResponse
            do throws(TransferError) {
                answer = try engine.perform(transfer)
            } catch {
                return (Self.said(error), error.isTransient)
            }
            if answer.isSuccess { return nil }
            let isTransient = answer.status >= 500 || answer.status == 429 || answer.status == 408
            return ("the server answers with status \(answer.status)", isTransient)
        }
    }

    private func send(_ mail: MailMessage, _ patience: Patience) -> RunReportError? {
        guard let mailServer else {
            return RunReportError(.unusable, "mail", "no server is named to send it by")
        }
        var random: UInt64 = 0
        _ = csys_random(&random, MemoryLayout<UInt64>.size)
        let identity = "\(mail.date.seconds).\(String(random, radix: 16))"
        let bytes = mail.bytes(identity: identity)
        return attempt("mail", patience) {
            do throws(TransferError) {
                try MailTransfer.send(
                    bytes, from: mail.sender, to: mail.receivers, by: mailServer,
                    deadlineSeconds: patience.deadlineSeconds)
                return nil
            } catch {
                return (Self.said(error), error.isTransient)
            }
        }
    }

    /// - Parameter once: Nil where it arrived; else why not, and whether it may yet.
    private func attempt(
        _ way: String, _ patience: Patience, _ once: () -> (reason: String, isTransient: Bool)?
    ) -> RunReportError? {
        var number = 1
        while true {
            guard let failure = once() else { return nil }
            guard failure.isTransient, number < patience.attempts else {
                let tries = number > 1 ? ", tried \(number) times" : ""
                return RunReportError(
                    .delivery, way, "the notification did not arrive: \(failure.reason)\(tries)",
                    remedy: "check the section [notify] of the profile")
            }
            number += 1
            usleep(useconds_t(patience.pauseSeconds * 1_000_000))
        }
    }

    /// libcurl's words may quote an address, which may be a secret; its kind says enough then.
    private static func said(_ error: TransferError) -> String {
        error.text.contains("://") ? error.kind.rawValue : error.text
    }
}
