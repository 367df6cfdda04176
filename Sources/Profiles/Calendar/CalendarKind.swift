extension ProfileKind where Value == CalendarExpression {
    /// When a job runs.
    static var calendar: ProfileKind {
        ProfileKind("a calendar expression", example: TOMLText.quoted("Mon..Sat 02:30")) {
            (node, scope) throws(ProfileProblem) in
            guard case .text(let raw) = node.value else { return nil }
            let text = try scope.expand(raw)
            do throws(CalendarSyntaxError) {
                return try CalendarExpression(parsing: text)
            } catch {
                throw ProfileProblem(
                    "\(TOMLText.quoted(text)) \(error.reason)", line: node.line,
                    remedy: error.remedy)
            }
        } write: {
            .text($0.text)
        }
    }
}
