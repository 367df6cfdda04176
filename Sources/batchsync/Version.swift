/// The release of this program. It is stored with every snapshot.
enum Version {
    static let text = "0.1.0"
}
