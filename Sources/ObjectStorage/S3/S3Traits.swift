/// What is known of how a service behaves, so that the caller can remember it from run to run.
///
/// With nothing known a store does what every service understands, and promises no more.
package struct S3Traits: Sendable, Equatable {
    /// `If-None-Match: *` lets a put fail where the key is taken.
    package var conditionalPut = false
    /// A SHA-256 that is sent with an object is told again when the object is looked up.
    package var keepsSHA256 = false
    /// The ETag in a listing is the MD5 of the object.
    package var listingShowsMD5 = false
    /// A deleted object can be brought back by its version.
    package var versioning = false
    /// Whether the bucket keeps what a retention protects; nil where nobody has asked.
    package var objectLock: Bool?
    /// Where the bucket is, if the service said that it is elsewhere than it was asked for.
    package var region: String?

    package init() {}

    /// One line of words, to be read back by `init(text:)`.
    package var text: String {
        var words: [String] = []
        if conditionalPut { words.append("conditional-put") }
        if keepsSHA256 { words.append("keeps-sha256") }
        if listingShowsMD5 { words.append("listing-shows-md5") }
        if versioning { words.append("versioning") }
        if let objectLock { words.append("object-lock=\(objectLock ? "yes" : "no")") }
        if let region { words.append("region=\(region)") }
        return words.joined(separator: " ")
    }

    /// Takes the words it knows: a line that another release wrote means less, but nothing wrong.
    package init(text: String) {
        for word in text.split(separator: " ") {
            switch word {
            case "conditional-put": conditionalPut = true
            case "keeps-sha256": keepsSHA256 = true
            case "listing-shows-md5": listingShowsMD5 = true
            case "versioning": versioning = true
            case "object-lock=yes": objectLock = true
            case "object-lock=no": objectLock = false
            default:
                if word.hasPrefix("region=") { region = String(word.dropFirst("region=".count)) }
            }
        }
    }
}
