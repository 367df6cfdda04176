package import SnapshotModel

/// A mail of text, as RFC 5322 and MIME have it.
package struct MailMessage: Sendable, Equatable {
    package let from: String
    package let to: [String]
    package let subject: String
    package let text: String
    package let date: Timestamp

    /// - Parameter from: With or without a name, as is each of `to`: `Anna <anna@example.org>`.
    /// - Parameter text: Lines ended by line feeds.
    package init(from: String, to: [String], subject: String, text: String, date: Timestamp) {
        self.from = from
        self.to = to
        self.subject = subject
        self.text = text
        self.date = date
    }

    /// Addresses alone, for the envelope: `anna@example.org` of `Anna <anna@example.org>`.
    package var sender: String { Self.address(from) }
    package var receivers: [String] { to.map(Self.address) }

    private static func address(_ text: String) -> String {
        guard let open = text.lastIndex(of: "<"), let close = text.lastIndex(of: ">"), open < close
        else { return text }
        return String(text[text.index(after: open)..<close])
    }

    /// The whole message with its headers, lines ended by CR and LF.
    ///
    /// - Parameter identity: What makes the message's id unique; nothing secret.
    package func bytes(identity: String) -> [UInt8] {
        let isPlain =
            text.utf8.allSatisfy { $0 < 0x80 && ($0 >= 0x20 || $0 == 0x0A || $0 == 9) }
            && text.split(separator: "\n").allSatisfy { $0.utf8.count <= 900 }
        let domain = sender.split(separator: "@").last.map(String.init) ?? "localhost"
        var lines = [
            "From: \(HeaderText.line(from))",
            "To: \(to.map(HeaderText.line).joined(separator: ",\r\n "))",
            "Subject: \(HeaderText.encoded(subject))",
            "Date: \(Self.text(date))",
            "Message-ID: <\(identity)@\(HeaderText.line(domain))>",
            // Answers to a machine by other machines help nobody.
            "Auto-Submitted: auto-generated",
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Transfer-Encoding: \(isPlain ? "7bit" : "base64")",
            "",
        ]
        let body = (text.hasSuffix("\n") ? text.dropLast() : text[...])
            .split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        if isPlain {
            lines += body
        } else {
            // Lines end with CR and LF inside of the coding, too (RFC 2045, section 6.8).
            let content = Array((body.joined(separator: "\r\n") + "\r\n").utf8)
            var rest = Substring(Base64.encode(content))
            while !rest.isEmpty {
                lines.append(String(rest.prefix(76)))
                rest = rest.dropFirst(76)
            }
        }
        return Array((lines.joined(separator: "\r\n") + "\r\n").utf8)
    }

    /// `Tue, 31 Mar 2026 20:00:05 +0000`.
    static func text(_ time: Timestamp) -> String {
        let at = time.civil
        let days = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
        let months = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ]
        let day = days[(StatusRecord.day(time) % 7 + 7) % 7]
        func two(_ value: Int) -> String { Timestamp.padded(value, 2) }
        return "\(day), \(at.day) \(months[at.month - 1]) \(Timestamp.padded(at.year, 4)) "
            + "\(two(at.hour)):\(two(at.minute)):\(two(at.second)) +0000"
    }
}

/// Text in header lines, of mails and of HTTP requests.
enum HeaderText {
    /// One line without control characters: nothing that comes from a profile or a file's name can
    /// begin a header of its own.
    static func line(_ text: String) -> String {
        String(
            String.UnicodeScalarView(
                text.unicodeScalars.map { $0.value < 0x20 || $0.value == 0x7F ? " " : $0 }))
    }

    /// The same, and where it is not all ASCII in the encoded words of RFC 2047, which fold.
    static func encoded(_ text: String) -> String {
        let text = line(text)
        guard !text.utf8.allSatisfy({ $0 < 0x80 }) else { return text }
        var words: [String] = []
        var piece: [UInt8] = []
        for scalar in text.unicodeScalars {
            let bytes = Array(String(scalar).utf8)
            // A word has at most 75 characters, and ends between two letters.
            if piece.count + bytes.count > 45 {
                words.append("=?utf-8?B?\(Base64.encode(piece))?=")
                piece = []
            }
            piece += bytes
        }
        if !piece.isEmpty { words.append("=?utf-8?B?\(Base64.encode(piece))?=") }
        return words.joined(separator: " ")
    }
}
