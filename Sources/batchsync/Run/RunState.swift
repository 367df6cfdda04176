import SnapshotModel
import SnapshotRepository

/// When a profile last did what it does not do in every run; in this host's state.
struct RunState {
    private let path: String
    private var times: [String: Timestamp] = [:]

    enum Task {
        case verify
        case prune
        case backup

        var name: String {
            switch self {
            case .verify: "verify"
            case .prune: "prune"
            case .backup: "backup"
            }
        }
    }

    init(profile: String, directories: HostDirectories) {
        path = "\(directories.state)/runs/\(directories.placeName(profile)).json"
        guard let bytes = try? LocalFile.read(path, maximumBytes: 1 << 16),
            let value = JSONValue(parsing: bytes)
        else { return }
        for (key, time) in value["times"]?.fields ?? [] { times[key] = time.timestamp }
    }

    private func key(_ task: Task, _ location: String) -> String { "\(task.name) \(location)" }

    /// Whether a task was last done so long ago, or never, or in what the clock calls the future.
    func isDue(_ task: Task, at location: String, every seconds: Int, now: Timestamp) -> Bool {
        guard seconds > 0, let last = times[key(task, location)], last <= now else { return true }
        return now.seconds - last.seconds >= Int64(seconds)
    }

    func last(_ task: Task, at location: String) -> Timestamp? { times[key(task, location)] }

    mutating func done(_ task: Task, at location: String, now: Timestamp) {
        times[key(task, location)] = now
        let fields = times.sorted { $0.key < $1.key }.map {
            (key: $0.key, value: JSONValue.string($0.value.text))
        }
        try? LocalFile.write(
            JSONValue.object([("times", .object(fields))]).bytes + [0x0A], to: path)
    }
}
