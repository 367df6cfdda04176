import Glibc

/// What a test needs of a process that has no more rights than anybody.
package enum OrdinaryUser {
    /// Gives up root's rights for good; a process of its own does so, since there is no way back.
    /// False where that does not work.
    package static func become() -> Bool {
        if geteuid() != 0 { return true }
        guard setgroups(0, nil) == 0, setgid(65534) == 0, setuid(65534) == 0 else { return false }
        // Such a process is closed to itself in /proc until it says otherwise (PR_SET_DUMPABLE).
        return prctl(4, 1) == 0
    }
}

/// prctl(2), which Swift does not import since it takes any number of arguments.
@_silgen_name("prctl")
private func prctl(_ option: Int32, _ value: UInt) -> Int32
