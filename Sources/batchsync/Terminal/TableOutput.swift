/// Rows in columns. On a terminal the header is bold; in a pipe the same lines stand without
/// colour.
struct TableOutput {
    enum Alignment { case left, right }
    struct Column {
        let title: String
        var alignment = Alignment.left
    }
    struct Cell: ExpressibleByStringLiteral, ExpressibleByStringInterpolation {
        let text: String
        var style: Console.Style?
        init(_ text: String, _ style: Console.Style? = nil) {
            self.text = text
            self.style = style
        }
        init(stringLiteral value: String) { text = value }
    }

    private let columns: [Column]
    private var rows: [[Cell]] = []

    init(_ columns: [Column]) { self.columns = columns }

    mutating func add(_ cells: [Cell]) {
        precondition(cells.count == columns.count, "a row has as many cells as there are columns")
        rows.append(cells)
    }

    func print(to console: Console) {
        var widths = columns.map { width($0.title) }
        for row in rows {
            for (index, cell) in row.enumerated() {
                widths[index] = max(widths[index], width(cell.text))
            }
        }
        // A column in which nothing stands says nothing.
        let shown = columns.indices.filter { index in rows.contains { !$0[index].text.isEmpty } }
        func line(_ cells: [Cell]) -> String {
            var text = ""
            for (position, index) in shown.enumerated() {
                let cell = cells[index]
                let gap = String(repeating: " ", count: widths[index] - width(cell.text))
                if position > 0 { text += "  " }
                switch columns[index].alignment {
                case .right: text += gap + console.styled(cell.text, cell.style)
                case .left:
                    let isLast = position == shown.count - 1
                    text += console.styled(cell.text, cell.style) + (isLast ? "" : gap)
                }
            }
            while text.last == " " { text.removeLast() }
            return text
        }
        console.out(line(columns.map { Cell($0.title, .bold) }))
        for row in rows { console.out(line(row)) }
    }

    /// Columns that a terminal uses, near enough: one a character.
    private func width(_ text: String) -> Int { text.count }
}
