import Glibc

/// Counts what a match costs, or nothing at all.
protocol GlobSteps {
    mutating func step()
}

/// Counts nothing and compiles to nothing.
struct GlobUncounted: GlobSteps {
    @inline(__always) mutating func step() {}
}

/// Counts comparisons.
struct GlobCounted: GlobSteps {
    private(set) var count = 0
    mutating func step() { count += 1 }
}

/// Holds compiled components against names and paths. Allocates nothing.
///
/// Both loops go back to the *last* asterisk only. That is enough: what stands before it has
/// matched as early as it could, and whatever a later position of an earlier asterisk could gain,
/// the later asterisk can take over. So the cost is a product of two lengths and never a power.
struct GlobMatcher {
    /// The bytes that the components' offsets refer to; must outlive the matcher. Nil where the
    /// components need none.
    private let pool: UnsafePointer<UInt8>?

    @inline(__always) init(pool: UnsafePointer<UInt8>?) {
        self.pool = pool
    }

    /// Whether components match the whole of a path of `count` bytes.
    ///
    /// - Parameter path: Not empty; components separated by single slashes, none at either end.
    func matches<Steps: GlobSteps>(
        _ components: UnsafeBufferPointer<GlobComponent>,
        path: UnsafePointer<UInt8>, count: Int, steps: inout Steps
    ) -> Bool {
        var component = 0
        // Behind the last component of the path stands `count + 1`, as if a slash had followed.
        var start = 0
        // The component behind the last `**` and the place where it was tried last.
        var retryComponent = -1
        var retryStart = 0

        while true {
            steps.step()
            if component < components.count, components[component].kind == .anyDepth {
                component += 1
                if component == components.count { return start < count }
                retryComponent = component
                retryStart = start
                continue
            }
            // With no path left a `**` that took even more of it cannot help.
            if start > count { return component == components.count }
            if component < components.count {
                let stop = Self.slash(in: path, from: start, to: count)
                if matches(
                    components[component], name: path + start, count: stop - start, steps: &steps)
                {
                    component += 1
                    start = stop + 1
                    continue
                }
            }
            guard retryComponent >= 0 else { return false }
            retryStart = Self.slash(in: path, from: retryStart, to: count) + 1
            if retryStart > count { return false }
            start = retryStart
            component = retryComponent
        }
    }

    /// Whether a component other than `**` matches the whole of a name of `count` bytes.
    @inline(__always) func matches<Steps: GlobSteps>(
        _ component: GlobComponent, name: UnsafePointer<UInt8>, count: Int, steps: inout Steps
    ) -> Bool {
        steps.step()
        guard component.mayMatch(name, count: count) else { return false }
        if component.kind == .any { return true }
        guard let pool else { return false }
        let bytes = pool + Int(component.offset)
        let length = Int(component.length)
        switch component.kind {
        case .literal:
            return count == length && memcmp(name, bytes, length) == 0
        case .suffix:
            return memcmp(name + (count - length), bytes, length) == 0
        case .prefix:
            return memcmp(name, bytes, length) == 0
        case .any, .anyDepth:
            return true
        case .program:
            return run(bytes, length: length, name: name, count: count, steps: &steps)
        }
    }

    /// Runs instructions over a name: forward, and back to the last asterisk where that fails.
    private func run<Steps: GlobSteps>(
        _ program: UnsafePointer<UInt8>, length: Int, name: UnsafePointer<UInt8>, count: Int,
        steps: inout Steps
    ) -> Bool {
        var instruction = 0
        var index = 0
        var retryInstruction = -1
        var retryIndex = 0
        while index < count {
            steps.step()
            if instruction < length {
                switch program[instruction] {
                case GlobInstruction.byte where name[index] == program[instruction + 1]:
                    instruction += 2
                    index += 1
                    continue
                case GlobInstruction.one:
                    instruction += 1
                    index += 1
                    continue
                case GlobInstruction.set
                where program[instruction + 1 + Int(name[index] >> 3)] & (1 << (name[index] & 7))
                    != 0:
                    instruction += 33
                    index += 1
                    continue
                case GlobInstruction.star:
                    instruction += 1
                    if instruction == length { return true }
                    retryInstruction = instruction
                    retryIndex = index
                    continue
                default:
                    break
                }
            }
            guard retryInstruction >= 0 else { return false }
            retryIndex += 1
            index = retryIndex
            instruction = retryInstruction
        }
        while instruction < length, program[instruction] == GlobInstruction.star {
            instruction += 1
        }
        return instruction == length
    }

    /// The index of the next slash, or `end`.
    @inline(__always) private static func slash(
        in path: UnsafePointer<UInt8>, from start: Int, to end: Int
    ) -> Int {
        var index = start
        while index < end, path[index] != UInt8(ascii: "/") { index += 1 }
        return index
    }
}
