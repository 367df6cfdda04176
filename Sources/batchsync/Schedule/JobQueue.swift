import Profiles
import SnapshotModel

/// Which job runs next, and when. Pure: the clock is handed in.
///
/// A job waits for one time at a time. One that passes while another job runs is made up for by one
/// run; the next is looked for when that has ended, so that none comes while the job itself runs.
struct JobQueue {
    struct Job {
        let name: String
        let calendar: [CalendarExpression]
        let randomDelaySeconds: Int
    }

    private struct Waiting {
        var job: Job
        /// Nil while it runs, and when its times are over.
        var time: Timestamp?
    }

    private var jobs: [Waiting] = []

    /// Names and times of the jobs that wait, the next first.
    var waiting: [(name: String, time: Timestamp)] {
        jobs.compactMap { waiting in waiting.time.map { (waiting.job.name, $0) } }
            .sorted { ($0.time, $0.name) < ($1.time, $1.name) }
    }

    var nextTime: Timestamp? { waiting.first?.time }

    mutating func add(_ job: Job, after now: Timestamp) {
        jobs.append(Waiting(job: job, time: Self.time(of: job, after: now)))
    }

    /// Replaces what is known of a job; its time stays.
    mutating func update(_ job: Job) {
        for index in jobs.indices where jobs[index].job.name == job.name { jobs[index].job = job }
    }

    /// The job whose time has come, which then waits for none.
    mutating func take(_ now: Timestamp) -> String? {
        guard let (name, time) = waiting.first, time <= now,
            let index = jobs.firstIndex(where: { $0.job.name == name && $0.time == time })
        else { return nil }
        jobs[index].time = nil
        return name
    }

    /// - Returns: The job's next time; nil where its times are over.
    mutating func reschedule(_ name: String, after now: Timestamp) -> Timestamp? {
        guard let index = jobs.firstIndex(where: { $0.job.name == name }) else { return nil }
        jobs[index].time = Self.time(of: jobs[index].job, after: now)
        return jobs[index].time
    }

    private static func time(of job: Job, after now: Timestamp) -> Timestamp? {
        let next = job.calendar.compactMap {
            $0.next(after: now, offset: TimeText.secondsAheadOfUTC)
        }.min()
        let delay = job.randomDelaySeconds > 0 ? Int.random(in: 0...job.randomDelaySeconds) : 0
        return next.map { Timestamp(seconds: $0.seconds + Int64(delay)) }
    }
}
