/// What the values of one file are read in: where it lies, and the environment.
struct ProfileScope {
    /// The directory of the file; relative paths begin there.
    let directory: String
    let environment: [String: String]
    /// The user's own directory; nil where nothing says which.
    let home: String?
    /// Variables that the value at hand was made with.
    var variables: [String] = []

    init(directory: String, environment: [String: String], isRoot: Bool) {
        self.directory = directory
        self.environment = environment
        // Services of the system have no HOME, and root's is the same everywhere.
        let given = environment["HOME"].flatMap { $0.isEmpty ? nil : $0 }
        home = given ?? (isRoot ? "/root" : nil)
    }

    /// Replaces `${NAME}` by the variable of that name; `$${` stands for `${`. A `$` alone means
    /// itself.
    mutating func expand(_ text: String) throws(ProfileProblem) -> String {
        var out = ""
        var rest = text[...]
        while let dollar = rest.firstIndex(of: "$") {
            out += rest[..<dollar]
            rest = rest[dollar...]
            if rest.hasPrefix("$${") {
                out += "${"
                rest = rest.dropFirst(3)
            } else if rest.hasPrefix("${") {
                guard let end = rest.firstIndex(of: "}") else {
                    throw ProfileProblem(
                        "has a ${ without its }", remedy: "write ${NAME}; $${ stands for ${ itself")
                }
                out += try variable(String(rest.dropFirst(2)[..<end]))
                rest = rest[end...].dropFirst()
            } else {
                out += "$"
                rest = rest.dropFirst()
            }
        }
        return out + rest
    }

    private mutating func variable(_ name: String) throws(ProfileProblem) -> String {
        guard Self.isVariableName(name) else {
            throw ProfileProblem(
                "names \(TOMLText.quoted(name)) as a variable, which cannot be one",
                remedy: "write ${NAME}; $${ stands for ${ itself")
        }
        guard let value = environment[name] else {
            throw ProfileProblem(
                "uses ${\(name)}, and the environment has no such variable",
                remedy: "set it where batchsync runs, or write the value itself; $${ stands for ${")
        }
        if !variables.contains(name) { variables.append(name) }
        return value
    }

    /// A path as a profile writes it, made absolute: `~` is the user's own directory, and what is
    /// relative begins where the profile lies.
    mutating func path(_ text: String) throws(ProfileProblem) -> String {
        let text = try expand(text)
        guard !text.isEmpty else {
            throw ProfileProblem("is an empty path", remedy: "write a path, or leave the key out")
        }
        if text.hasPrefix("~") {
            guard text == "~" || text.hasPrefix("~/") else {
                throw ProfileProblem(
                    "begins with ~ and a name, which is not understood",
                    remedy: "write the path of that user's directory; a file of that name is ./~…")
            }
            guard let home else {
                throw ProfileProblem(
                    "begins with ~, and the environment has no HOME",
                    remedy: "set HOME where batchsync runs, or write the whole path")
            }
            return home + text.dropFirst()
        }
        if text.hasPrefix("/") { return text }
        var relative = text[...]
        while relative.hasPrefix("./") { relative = relative.dropFirst(2) }
        if relative.isEmpty || relative == "." { return directory }
        return (directory == "/" ? "" : directory) + "/" + relative
    }

    static func isVariableName(_ name: String) -> Bool {
        guard let first = name.utf8.first, !(0x30...0x39).contains(first) else { return false }
        return name.utf8.allSatisfy { TOMLText.isBareKeyByte($0) && $0 != 0x2D }
    }
}
