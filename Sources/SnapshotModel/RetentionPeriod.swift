/// What a retention rule counts by: the hours, days … of the local calendar.
package enum RetentionPeriod: String, Sendable, CaseIterable {
    case hour = "hourly"
    case day = "daily"
    /// From Monday, as ISO 8601 has it, whatever year its days belong to.
    case week = "weekly"
    case month = "monthly"
    case quarter = "quarterly"
    case year = "yearly"

    /// The word of the rules that count by it.
    package var name: String { rawValue }
}
