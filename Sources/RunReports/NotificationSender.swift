import CSystem
import Glibc
import SnapshotModel
package import Transfer

/// Sends notifications, by all ways at once. Blocks until each has arrived or has failed for good; the
/// failures come back, since nobody's backup fails because a message did.
package struct NotificationSender: Sendable {
    /// How long it may take until a message has arrived, and how often each way is tried.
    package struct Patience: Sendable {
        package var attempts: Int
        /// How long it may take until a connection stands: a host that is not there says nothing.
        package var connectSeconds: Double
        /// How long one attempt may take.
        package var deadlineSeconds: Double
        /// How long to wait between attempts.
        package var pauseSeconds: Double
        /// How long all attempts may take together. The ways do not wait for each other, so it bounds
        /// a whole notification.
        package var totalSeconds: Double

        package init(
            attempts: Int, connectSeconds: Double, deadlineSeconds: Double, pauseSeconds: Double,
            totalSeconds: Double
        ) {
            self.attempts = attempts
            self.connectSeconds = connectSeconds
            self.deadlineSeconds = deadlineSeconds
            self.pauseSeconds = pauseSeconds
            self.totalSeconds = totalSeconds
        }

        /// For what is sent before a run, which it must not hold up, and by a run that was asked to
        /// stop.
        package static let brief = Patience(
            attempts: 1, connectSeconds: 3, deadlineSeconds: 5, pauseSeconds: 0, totalSeconds: 5)
        /// For what is sent after it: the one message that matters.
        package static let long = Patience(
            attempts: 3, connectSeconds: 5, deadlineSeconds: 15, pauseSeconds: 3, totalSeconds: 30)
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
        var ways: [@Sendable () -> RunReportError?] = notification.requests.map { request in
            { send(request, patience) }
        }
        if let mail = notification.mail { ways.append { send(mail, patience) } }
        return SideBySide.run(ways).compactMap(\.self)
    }

    private func send(_ request: Notification.Request, _ patience: Patience) -> RunReportError? {
        attempt(request.way, patience) { deadline in
            var transfer = TransferRequest(
                "POST", request.url, headers: request.headers.map { ($0.name, $0.value) },
                body: .bytes(request.body), sink: .collect(maximumBytes: 1 << 20))
            transfer.deadlineSeconds = deadline
            transfer.connectSeconds = min(deadline, patience.connectSeconds)
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
        return attempt("mail", patience) { deadline in
            do throws(TransferError) {
                try MailTransfer.send(
                    bytes, from: mail.sender, to: mail.receivers, by: mailServer,
                    deadlineSeconds: deadline, connectSeconds: patience.connectSeconds)
                return nil
            } catch {
                return (Self.said(error), error.isTransient)
            }
        }
    }

    /// - Parameter once: Gets the seconds that it may take, and gives nil where it arrived; else why
    ///   not, and whether it may yet.
    private func attempt(
        _ way: String, _ patience: Patience,
        _ once: (Double) -> (reason: String, isTransient: Bool)?
    ) -> RunReportError? {
        let began = csys_boottime_ns()
        func secondsLeft() -> Double {
            patience.totalSeconds - Double(csys_boottime_ns() - began) / 1e9
        }
        var number = 1
        while true {
            // An attempt that has begun gets a moment, whatever the clock did meanwhile.
            // Tenths are enough for whoever reads it in an error.
            let deadline = max(
                0.1, (min(patience.deadlineSeconds, secondsLeft()) * 10).rounded() / 10)
            guard let failure = once(deadline) else { return nil }
            guard failure.isTransient, number < patience.attempts,
                secondsLeft() > patience.pauseSeconds
            else {
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
