import ObjectStorage
import TestSupport

/// A server in virtual time, and a client that always has another call to make.
///
/// Each call waits a round trip, then is served at up to one unit of work a second; all calls
/// together get no more than `capacity` units a second, shared evenly. Deterministic by its seed.
struct SimulatedServer {
    /// Calls at once at which the server is fully used, round trips aside.
    var capacity: Double
    /// Work of a call in seconds at full speed, before chance changes it by up to `noise`.
    var work = 0.2
    var noise = 0.2
    var roundTrip = 0.01
    /// More calls at once than this are refused; nil for none.
    var refusesAbove: Int?
    /// A server that refuses everything for a while.
    var isStorming = false
    /// Every call fails after its round trip, and not from overload.
    var isBroken = false

    private struct Call {
        var arrives: Double
        var workLeft: Double
        let began: Double
        let epoch: ConcurrencyControl.Epoch
        let isRefused: Bool
    }

    private var calls: [Call] = []
    private(set) var time = 0.0
    private(set) var served = 0
    private(set) var refused = 0
    private var generator: SeededGenerator

    init(capacity: Double, seed: UInt64) {
        self.capacity = capacity
        generator = SeededGenerator(seed: seed)
    }

    /// Calls a second that the server can serve at best.
    var bestRate: Double { capacity / work }

    /// Serves `control` until so many more calls have been served or refused, keeping as many under
    /// way as it allows, or as `demand` has.
    mutating func serve(_ control: inout ConcurrencyControl, calls count: Int, demand: Int = .max) {
        let end = served + refused + count
        while served + refused < end {
            while calls.count < min(control.limit, demand) { admit(control.epoch) }
            step(&control)
        }
    }

    /// Calls a second over the next `count` calls.
    mutating func rate(_ control: inout ConcurrencyControl, over count: Int) -> Double {
        let (began, before) = (time, served)
        serve(&control, calls: count)
        return Double(served - before) / (time - began)
    }

    private mutating func admit(_ epoch: ConcurrencyControl.Epoch) {
        let chance = Double.random(in: -1...1, using: &generator)
        let isRefused = isStorming || calls.count >= (refusesAbove ?? .max)
        calls.append(
            Call(
                arrives: time + roundTrip, workLeft: isRefused ? 0 : work * (1 + noise * chance),
                began: time, epoch: epoch, isRefused: isRefused))
    }

    /// Goes on to the next moment at which something arrives or is done.
    private mutating func step(_ control: inout ConcurrencyControl) {
        let active = calls.count { $0.arrives <= time && $0.workLeft > 0 }
        let speed = active == 0 ? 1 : min(1, capacity / Double(active))
        var next = Double.infinity
        for call in calls {
            let done = call.arrives > time ? call.arrives : time + call.workLeft / speed
            next = min(next, done)
        }
        let elapsed = next - time
        for index in calls.indices where calls[index].arrives <= time {
            calls[index].workLeft -= elapsed * speed
        }
        time = next
        let used = calls.count
        let isFull = used >= control.limit
        calls.removeAll { call in
            guard call.arrives <= time, call.workLeft <= 1e-9 else { return false }
            if call.isRefused {
                refused += 1
                control.overloaded(admittedIn: call.epoch)
            } else {
                served += 1
                guard !isBroken else { return true }
                control.succeeded(
                    .init(.up, bytes: 64 << 20),
                    nanoseconds: Int64((time - call.began) * 1e9), admittedIn: call.epoch,
                    wasFull: isFull)
            }
            return true
        }
    }
}
