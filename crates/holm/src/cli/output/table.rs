//! Tables: aligned columns under upper-case headers, three spaces apart, nothing cut off.

use super::Cell;
use jiff::Timestamp;

const GAP: &str = "   ";

/// Lays out rows. Widths are counted in characters before colours are put in.
pub fn render(heads: &[&str], rows: &[Vec<Cell>], now: Timestamp, colours: bool) -> String {
    let texts: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| cell.human(now)).collect()).collect();
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(i, head)| {
            let longest = texts.iter().map(|row| row[i].chars().count()).max();
            longest.unwrap_or(0).max(head.chars().count())
        })
        .collect();
    let mut out = String::new();
    let header: Vec<(String, &str)> = heads.iter().map(|head| ((*head).to_string(), "")).collect();
    push_line(&mut out, &header, &widths);
    for (row, cells) in texts.into_iter().zip(rows) {
        let colour = |cell: &Cell| if colours { cell.colour() } else { "" };
        let line: Vec<(String, &str)> =
            row.into_iter().zip(cells).map(|(text, cell)| (text, colour(cell))).collect();
        push_line(&mut out, &line, &widths);
    }
    out
}

fn push_line(out: &mut String, cells: &[(String, &str)], widths: &[usize]) {
    let last = cells.len().saturating_sub(1);
    for (i, (text, colour)) in cells.iter().enumerate() {
        if colour.is_empty() {
            out.push_str(text);
        } else {
            out.push_str(&format!("{colour}{text}\x1b[0m"));
        }
        if i < last {
            out.push_str(&" ".repeat(widths[i] - text.chars().count()));
            out.push_str(GAP);
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_colours_take_no_room() {
        let rows = vec![
            vec![Cell::text("web"), Cell::Phase("running"), Cell::Bytes(1 << 30)],
            vec![Cell::text("database-1"), Cell::Phase("failed"), Cell::text("")],
        ];
        let plain = render(&["NAME", "PHASE", "SIZE"], &rows, Timestamp::UNIX_EPOCH, false);
        insta::assert_snapshot!(plain, @r"
        NAME         PHASE     SIZE
        web          running   1 GiB
        database-1   failed    -
        ");
        let coloured = render(&["NAME", "PHASE", "SIZE"], &rows, Timestamp::UNIX_EPOCH, true);
        let stripped = coloured.replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[0m", "");
        assert_eq!(stripped, plain);
    }
}
